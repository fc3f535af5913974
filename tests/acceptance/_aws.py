"""What the scripts about the AWS endpoint share: a daemon that is a cluster, and clients for its endpoint."""

import os
import subprocess
import unittest

import _lib
import boto3
import docker
from botocore.config import Config
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
TASKS_TRUST = """{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},
"Action":"sts:AssumeRole"}]}"""
daemon = _lib.Daemon()
settings = {}


def start(*images):
    daemon.start()
    daemon.load(*images)
    docker.DockerClient(base_url=daemon.url).swarm.init("192.0.2.1")
    text = subprocess.check_output([os.environ["TRIPOD"], "aws-env", "--data-root", str(daemon.root)], text=True)
    settings.update(line.removeprefix("export ").split("=", 1) for line in text.splitlines())


def client(service, region="us-east-1", **changes):
    options = {
        "endpoint_url": settings["AWS_ENDPOINT_URL"], "region_name": region,
        "aws_access_key_id": settings["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": settings["AWS_SECRET_ACCESS_KEY"],
        "config": Config(retries={"max_attempts": 1}),
    }
    return boto3.client(service, **{**options, **changes})


def keys(credentials):
    """Arguments of `client` for an access key or a session."""
    out = {"aws_access_key_id": credentials["AccessKeyId"], "aws_secret_access_key": credentials["SecretAccessKey"]}
    if "SessionToken" in credentials:
        out["aws_session_token"] = credentials["SessionToken"]
    return out


class Base(unittest.TestCase):
    def fails(self, code, text, call, **arguments):
        with self.assertRaises(ClientError) as caught:
            call(**arguments)
        error = caught.exception.response["Error"]
        self.assertEqual(error["Code"], code, error)
        self.assertIn(text, error["Message"])
        self.assertTrue(caught.exception.response["ResponseMetadata"]["RequestId"])
