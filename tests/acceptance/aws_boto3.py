"""The AWS endpoint through boto3: identities, the network, logs, parameters, secrets; ECS with waiters and paginators."""

import os
import subprocess
import time
import unittest
import urllib.error
import urllib.request

import _lib
import boto3
import docker
from botocore.config import Config
from botocore.exceptions import ClientError

daemon = _lib.Daemon()
account = "123456789012"
TRUST = """{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},
"Action":"sts:AssumeRole"}]}"""
settings = {}


def setUpModule():
    daemon.start()
    daemon.load("busybox")
    docker.DockerClient(base_url=daemon.url).swarm.init("192.0.2.1")
    text = subprocess.check_output([os.environ["TRIPOD"], "aws-env", "--data-root", str(daemon.root)], text=True)
    settings.update(line.removeprefix("export ").split("=", 1) for line in text.splitlines())


def tearDownModule():
    daemon.stop()


def client(service, region="us-east-1", **changes):
    options = {
        "endpoint_url": settings["AWS_ENDPOINT_URL"], "region_name": region,
        "aws_access_key_id": settings["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": settings["AWS_SECRET_ACCESS_KEY"],
        "config": Config(retries={"max_attempts": 1}),
    }
    return boto3.client(service, **{**options, **changes})


class Base(unittest.TestCase):
    def fails(self, code, text, call, **arguments):
        with self.assertRaises(ClientError) as caught:
            call(**arguments)
        error = caught.exception.response["Error"]
        self.assertEqual(error["Code"], code, error)
        self.assertIn(text, error["Message"])
        self.assertTrue(caught.exception.response["ResponseMetadata"]["RequestId"])


class Signatures(Base):
    def test_who_signs(self):
        me = client("sts").get_caller_identity()
        self.assertEqual((me["Account"], me["Arn"]), (account, f"arn:aws:iam::{account}:user/admin"))
        for service, call, code in [
            ("sts", "get_caller_identity", "SignatureDoesNotMatch"), ("iam", "list_users", "SignatureDoesNotMatch"),
            ("ec2", "describe_vpcs", "AuthFailure"), ("ecs", "list_clusters", "InvalidSignatureException"),
        ]:
            self.fails(code, "", getattr(client(service, aws_secret_access_key="wrong"), call))
        self.fails("UnrecognizedClientException", "", client("ecs", aws_access_key_id="AKIANOBODYNOBODY1234").list_clusters)
        self.fails("InvalidClientTokenId", "", client("iam", aws_access_key_id="AKIANOBODYNOBODY1234").list_users)

    def test_unsigned_and_unknown(self):
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(settings["AWS_ENDPOINT_URL"], timeout=5)
        self.assertEqual(caught.exception.code, 403)
        self.assertIn("MissingAuthenticationToken", caught.exception.read().decode())
        self.fails("UnsupportedOperation", "RunInstances", client("ec2").run_instances, ImageId="a", MinCount=1, MaxCount=1)
        self.fails("UnsupportedOperation", "CreateTaskSet", client("ecs").create_task_set, service="s", cluster="c", taskDefinition="t")


class Identities(Base):
    def test_policies_decide(self):
        iam = client("iam")
        iam.create_user(UserName="reader")
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        mine = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        self.fails("AccessDeniedException", "ecs:ListClusters", client("ecs", **mine).list_clusters)
        iam.attach_user_policy(UserName="reader", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        client("ecs", **mine).list_clusters()
        self.fails("AccessDeniedException", "ecs:CreateCluster", client("ecs", **mine).create_cluster)
        self.fails("DeleteConflict", "access keys", iam.delete_user, UserName="reader")
        iam.delete_access_key(UserName="reader", AccessKeyId=key["AccessKeyId"])
        iam.detach_user_policy(UserName="reader", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        iam.delete_user(UserName="reader")
        self.fails("NoSuchEntity", "reader", iam.get_user, UserName="reader")

    def test_roles(self):
        iam, sts = client("iam"), client("sts")
        trust = TRUST.replace('"Service":"ecs-tasks.amazonaws.com"', f'"AWS":"arn:aws:iam::{account}:root"')
        role = iam.create_role(RoleName="assumed", AssumeRolePolicyDocument=trust)["Role"]
        self.assertEqual(role["Arn"], f"arn:aws:iam::{account}:role/assumed")
        self.assertEqual(iam.get_role(RoleName="assumed")["Role"]["AssumeRolePolicyDocument"]["Version"], "2012-10-17")
        iam.put_role_policy(RoleName="assumed", PolicyName="p", PolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*"}]}')
        session = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
        as_role = {"aws_access_key_id": session["AccessKeyId"], "aws_secret_access_key": session["SecretAccessKey"],
                   "aws_session_token": session["SessionToken"]}
        self.assertEqual(client("sts", **as_role).get_caller_identity()["Arn"], f"arn:aws:sts::{account}:assumed-role/assumed/session")
        client("ecs", **as_role).list_clusters()
        self.fails("AccessDenied", "iam:ListUsers", client("iam", **as_role).list_users)
        self.fails("DeleteConflict", "policies", iam.delete_role, RoleName="assumed")
        iam.delete_role_policy(RoleName="assumed", PolicyName="p")
        iam.delete_role(RoleName="assumed")
        self.fails("MalformedPolicyDocument", "", iam.create_role, RoleName="r", AssumeRolePolicyDocument="{")
        names = {p["PolicyName"] for page in iam.get_paginator("list_policies").paginate(Scope="AWS", PaginationConfig={"PageSize": 3})
                 for p in page["Policies"]}
        self.assertIn("AmazonECSTaskExecutionRolePolicy", names)


class Network(Base):
    def test_security_groups(self):
        ec2 = client("ec2")
        vpc = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        self.assertEqual(len(ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]), 3)
        group = ec2.create_security_group(GroupName="web", Description="d", VpcId=vpc)["GroupId"]
        rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "x"}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        self.fails("InvalidPermission.Duplicate", "already exists", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[rule])
        told = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
        self.assertEqual(told["IpPermissions"][0]["IpRanges"], [{"CidrIp": "10.0.0.0/8", "Description": "x"}])
        ec2.create_tags(Resources=[group, vpc], Tags=[{"Key": "k", "Value": "v"}])
        self.assertEqual(ec2.describe_security_groups(Filters=[{"Name": "tag:k", "Values": ["v"]}])["SecurityGroups"][0]["GroupId"], group)
        self.fails("InvalidGroup.Duplicate", "web", ec2.create_security_group, GroupName="web", Description="d")
        self.fails("InvalidParameterValue", "CIDR", ec2.authorize_security_group_ingress, GroupId=group, CidrIp="x", IpProtocol="tcp", FromPort=1, ToPort=1)
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
        ec2.delete_security_group(GroupId=group)
        self.fails("InvalidGroup.NotFound", group, ec2.describe_security_groups, GroupIds=[group])

    def test_regions_are_apart(self):
        here, there = client("ec2"), client("ec2", "eu-west-1")
        self.assertNotEqual(here.describe_vpcs()["Vpcs"][0]["VpcId"], there.describe_vpcs()["Vpcs"][0]["VpcId"])
        client("ecs", "eu-west-1").create_cluster(clusterName="far")
        self.assertEqual(client("ecs").describe_clusters(clusters=["far"])["failures"][0]["reason"], "MISSING")


class Kept(Base):
    def test_logs(self):
        logs = client("logs")
        logs.create_log_group(logGroupName="/g", tags={"a": "b"})
        self.fails("ResourceAlreadyExistsException", "exists", logs.create_log_group, logGroupName="/g")
        self.fails("InvalidParameterException", "logGroupName", logs.create_log_group, logGroupName="a*b")
        logs.create_log_stream(logGroupName="/g", logStreamName="s")
        now = int(time.time() * 1000)
        logs.put_log_events(logGroupName="/g", logStreamName="s", logEvents=[{"timestamp": now + i, "message": f"line {i}"} for i in range(5)])
        got = logs.get_log_events(logGroupName="/g", logStreamName="s", startFromHead=True, limit=2)
        self.assertEqual([e["message"] for e in got["events"]], ["line 0", "line 1"])
        got = logs.get_log_events(logGroupName="/g", logStreamName="s", nextToken=got["nextForwardToken"])
        self.assertEqual([e["message"] for e in got["events"]], ["line 2", "line 3", "line 4"])
        self.assertEqual(logs.get_log_events(logGroupName="/g", logStreamName="s", nextToken=got["nextForwardToken"])["events"], [])
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/g", filterPattern="?1 ?4", PaginationConfig={"PageSize": 1})
        self.assertEqual([e["message"] for page in pages for e in page["events"]], ["line 1", "line 4"])
        logs.put_retention_policy(logGroupName="/g", retentionInDays=7)
        self.assertEqual(logs.describe_log_groups(logGroupNamePrefix="/g")["logGroups"][0]["retentionInDays"], 7)
        logs.delete_log_group(logGroupName="/g")
        self.fails("ResourceNotFoundException", "log group", logs.describe_log_streams, logGroupName="/g")

    def test_parameters(self):
        ssm = client("ssm")
        for i in range(3):
            ssm.put_parameter(Name=f"/a/b{i}", Value=str(i), Type="String")
        self.fails("ParameterAlreadyExists", "overwrite", ssm.put_parameter, Name="/a/b0", Value="x", Type="String")
        self.assertEqual(ssm.put_parameter(Name="/a/b0", Value="new", Overwrite=True)["Version"], 2)
        self.assertEqual(ssm.get_parameter(Name="/a/b0:1")["Parameter"]["Value"], "0")
        self.fails("ParameterNotFound", "", ssm.get_parameter, Name="/none")
        pages = ssm.get_paginator("get_parameters_by_path").paginate(Path="/a", PaginationConfig={"PageSize": 2})
        self.assertEqual([p["Value"] for page in pages for p in page["Parameters"]], ["new", "1", "2"])
        self.assertEqual(ssm.get_parameters(Names=["/a/b1", "/none"])["InvalidParameters"], ["/none"])

    def test_secrets(self):
        manager = client("secretsmanager")
        made = manager.create_secret(Name="s", SecretString="one")
        manager.put_secret_value(SecretId=made["ARN"], SecretString="two")
        self.assertEqual(manager.get_secret_value(SecretId="s")["SecretString"], "two")
        self.assertEqual(manager.get_secret_value(SecretId="s", VersionStage="AWSPREVIOUS")["SecretString"], "one")
        manager.delete_secret(SecretId="s")
        self.fails("InvalidRequestException", "deletion", manager.get_secret_value, SecretId="s")
        manager.restore_secret(SecretId="s")
        manager.delete_secret(SecretId="s", ForceDeleteWithoutRecovery=True)
        self.fails("ResourceNotFoundException", "", manager.describe_secret, SecretId="s")


class Ecs(Base):
    @classmethod
    def setUpClass(cls):
        cls.ecs = client("ecs")
        cls.ecs.create_cluster(clusterName="c")
        cls.subnet = client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        cls.net = {"awsvpcConfiguration": {"subnets": [cls.subnet]}}

    def define(self, family, command, **more):
        container = {"name": "main", "image": "busybox:latest", "command": ["sh", "-c", command], **more}
        return self.ecs.register_task_definition(
            family=family, networkMode="awsvpc", cpu="256", memory="512", requiresCompatibilities=["FARGATE"],
            containerDefinitions=[container])["taskDefinition"]

    def test_bad_input(self):
        ecs = self.ecs
        self.fails("ClusterNotFoundException", "Cluster not found.", ecs.list_tasks, cluster="none")
        self.fails("ClientException", "TaskDefinition not found.", ecs.run_task, cluster="c", taskDefinition="none")
        self.define("bad", "true")
        self.fails("InvalidParameterException", "Network Configuration", ecs.run_task, cluster="c", taskDefinition="bad", launchType="FARGATE")
        net = {"awsvpcConfiguration": {"subnets": ["subnet-none"]}}
        self.fails("InvalidParameterException", "InvalidSubnetID.NotFound", ecs.run_task, cluster="c", taskDefinition="bad", launchType="FARGATE", networkConfiguration=net)
        self.fails("InvalidParameterException", "count", ecs.run_task, cluster="c", taskDefinition="bad", launchType="FARGATE", networkConfiguration=self.net, count=11)
        self.fails("InvalidParameterException", "'launchType'", ecs.run_task, cluster="c", taskDefinition="bad", launchType="MOON")
        self.fails("InvalidParameterException", "No Container Instances", ecs.run_task, cluster="c", taskDefinition="bad", networkConfiguration=self.net)
        self.fails("ClientException", "Role is not valid", ecs.register_task_definition, family="r", taskRoleArn=f"arn:aws:iam::{account}:role/none",
                   containerDefinitions=[{"name": "a", "image": "b", "memory": 64}])
        self.fails("ServiceNotFoundException", "Service not found.", ecs.update_service, cluster="c", service="none")
        self.fails("InvalidParameterException", "loadBalancers", ecs.create_service, cluster="c", serviceName="lb", taskDefinition="bad", desiredCount=1,
                   loadBalancers=[{"targetGroupArn": "arn:x", "containerName": "main", "containerPort": 80}])

    def test_revisions(self):
        for _ in range(3):
            self.define("rev", "true")
        pages = self.ecs.get_paginator("list_task_definitions").paginate(familyPrefix="rev", PaginationConfig={"PageSize": 2})
        self.assertEqual([a.rsplit("/")[-1] for page in pages for a in page["taskDefinitionArns"]], ["rev:1", "rev:2", "rev:3"])
        self.ecs.deregister_task_definition(taskDefinition="rev:3")
        self.assertEqual(self.ecs.describe_task_definition(taskDefinition="rev")["taskDefinition"]["revision"], 2)
        self.assertEqual(self.define("rev", "true")["revision"], 4)

    def test_tags_and_settings(self):
        arn = self.define("tagged", "true")["taskDefinitionArn"]
        self.ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "b"}])
        self.assertEqual(self.ecs.list_tags_for_resource(resourceArn=arn)["tags"], [{"key": "a", "value": "b"}])
        self.ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
        self.assertEqual(self.ecs.list_tags_for_resource(resourceArn=arn)["tags"], [])
        self.ecs.put_account_setting(name="containerInsights", value="enabled")
        told = self.ecs.list_account_settings(name="containerInsights", effectiveSettings=True)["settings"][0]
        self.assertEqual(told["value"], "enabled")
        self.fails("InvalidParameterException", "value", self.ecs.put_account_setting, name="containerInsights", value="maybe")

    def test_a_task_runs_to_its_end(self):
        iam = client("iam")
        role = iam.create_role(RoleName="exec", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        client("logs").create_log_group(logGroupName="/ecs")
        client("ssm").put_parameter(Name="/word", Value="sesame", Type="SecureString")
        log = {"logDriver": "awslogs", "options": {"awslogs-group": "/ecs", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}}
        self.ecs.register_task_definition(
            family="job", networkMode="awsvpc", cpu="256", memory="512", requiresCompatibilities=["FARGATE"], executionRoleArn=role,
            containerDefinitions=[{"name": "main", "image": "busybox:latest", "command": ["sh", "-c", "echo the word is $WORD; exit 3"],
                                   "logConfiguration": log, "secrets": [{"name": "WORD", "valueFrom": "/word"}]}])
        task = self.ecs.run_task(cluster="c", taskDefinition="job", launchType="FARGATE", networkConfiguration=self.net, clientToken="t")["tasks"][0]
        again = self.ecs.run_task(cluster="c", taskDefinition="job", launchType="FARGATE", networkConfiguration=self.net, clientToken="t")["tasks"]
        self.assertEqual([t["taskArn"] for t in again], [task["taskArn"]])
        self.ecs.get_waiter("tasks_stopped").wait(cluster="c", tasks=[task["taskArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        task = self.ecs.describe_tasks(cluster="c", tasks=[task["taskArn"]])["tasks"][0]
        self.assertEqual((task["stopCode"], task["containers"][0]["exitCode"]), ("EssentialContainerExited", 3))
        stream = "p/main/" + task["taskArn"].rsplit("/", 1)[-1]
        deadline, lines = time.time() + 10, []
        while not lines and time.time() < deadline:
            time.sleep(0.2)
            try:
                lines = client("logs").get_log_events(logGroupName="/ecs", logStreamName=stream)["events"]
            except ClientError:
                pass
        self.assertEqual([e["message"] for e in lines], ["the word is sesame"])

    def test_a_service(self):
        self.define("web", "sleep 600")
        ecs = self.ecs
        made = ecs.create_service(cluster="c", serviceName="web", taskDefinition="web:1", desiredCount=2, launchType="FARGATE",
                                  networkConfiguration=self.net)["service"]
        self.assertEqual((made["runningCount"], made["events"], made["deployments"][0]["rolloutState"]), (0, [], "IN_PROGRESS"))
        self.fails("InvalidParameterException", "not idempotent", ecs.create_service, cluster="c", serviceName="web", taskDefinition="web:1", desiredCount=1,
                   launchType="FARGATE", networkConfiguration=self.net)
        wait = {"Delay": 1, "MaxAttempts": 60}
        ecs.get_waiter("services_stable").wait(cluster="c", services=["web"], WaiterConfig=wait)
        arns = ecs.list_tasks(cluster="c", serviceName="web")["taskArns"]
        self.assertEqual(len(arns), 2)
        self.fails("TargetNotConnectedException", "docker exec", ecs.execute_command, cluster="c", task=arns[0], interactive=True, command="sh")
        ecs.get_waiter("tasks_running").wait(cluster="c", tasks=arns, WaiterConfig=wait)
        self.define("web", "sleep 601")
        ecs.update_service(cluster="c", service="web", taskDefinition="web:2")
        ecs.get_waiter("services_stable").wait(cluster="c", services=["web"], WaiterConfig=wait)
        service = ecs.describe_services(cluster="c", services=["web"])["services"][0]
        self.assertTrue(service["taskDefinition"].endswith("web:2"))
        self.assertIn("steady state", service["events"][0]["message"])
        self.fails("InvalidParameterException", "scaled above 0", ecs.delete_service, cluster="c", service="web")
        ecs.delete_service(cluster="c", service="web", force=True)
        ecs.get_waiter("services_inactive").wait(cluster="c", services=["web"], WaiterConfig=wait)
        self.assertEqual(ecs.list_tasks(cluster="c", serviceName="web")["taskArns"], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
