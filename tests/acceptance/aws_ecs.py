"""Amazon ECS through boto3: clusters, definitions, tasks and what is in them, container instances, services."""

import json
import subprocess
import time
import unittest

import _aws
import _lib
from _aws import ACCOUNT, Base, client, daemon

WAIT = {"Delay": 1, "MaxAttempts": 60}
PREFIX = f"arn:aws:ecs:us-east-1:{ACCOUNT}"


def setUpModule():
    _aws.daemon.options = ["--label", "ecs.cluster=instances"]
    _aws.start("busybox")


def tearDownModule():
    daemon.stop()


class Ecs(Base):
    def setUp(self):
        self.ecs = client("ecs")
        self.name = self.id().rsplit(".", 1)[-1].replace("test_", "")
        self.cluster = self.ecs.create_cluster(clusterName=f"c-{self.name}")["cluster"]["clusterName"]
        self.subnet = client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        self.net = {"awsvpcConfiguration": {"subnets": [self.subnet]}}

    def container(self, command="sleep 600", name="main", **more):
        return {"name": name, "image": "busybox:latest", "command": ["sh", "-c", command], "stopTimeout": 2, **more}

    def define(self, *containers, **more):
        made = {"family": self.name, "networkMode": "awsvpc", "cpu": "256", "memory": "512", "requiresCompatibilities": ["FARGATE"], **more}
        return self.ecs.register_task_definition(**made, containerDefinitions=list(containers or [self.container()]))["taskDefinition"]

    def start(self, **more):
        ask = {"cluster": self.cluster, "taskDefinition": self.name, "launchType": "FARGATE", "networkConfiguration": self.net, **more}
        return self.ecs.run_task(**ask)["tasks"]

    def running(self, **more):
        task = self.start(**more)[0]["taskArn"]
        self.ecs.get_waiter("tasks_running").wait(cluster=self.cluster, tasks=[task], WaiterConfig=WAIT)
        return self.told(task)

    def ended(self, **more):
        task = self.start(**more)[0]["taskArn"]
        self.ecs.get_waiter("tasks_stopped").wait(cluster=self.cluster, tasks=[task], WaiterConfig=WAIT)
        return self.told(task)

    def told(self, task):
        return self.ecs.describe_tasks(cluster=self.cluster, tasks=[task], include=["TAGS"])["tasks"][0]

    def exec(self, task, *command, container="main"):
        found = daemon.docker("ps", "-q", "--filter", f"name=k8s_{container}_.*{task['taskArn'].rsplit('/', 1)[-1]}")
        return daemon.docker("exec", found, *command)


class Clusters(Ecs):
    def test_life(self):
        ecs = self.ecs
        made = ecs.create_cluster(clusterName="life", settings=[{"name": "containerInsights", "value": "enabled"}], tags=[{"key": "a", "value": "b"}])["cluster"]
        self.assertEqual((made["clusterArn"], made["status"]), (f"{PREFIX}:cluster/life", "ACTIVE"))
        again = ecs.create_cluster(clusterName="life")["cluster"]
        self.assertEqual(again["clusterArn"], made["clusterArn"])
        told = ecs.describe_clusters(clusters=["life", "none"], include=["SETTINGS", "TAGS", "STATISTICS"])
        self.assertEqual(told["failures"], [{"arn": f"{PREFIX}:cluster/none", "reason": "MISSING"}])
        self.assertEqual(told["clusters"][0]["tags"], [{"key": "a", "value": "b"}])
        self.assertEqual(told["clusters"][0]["settings"], [{"name": "containerInsights", "value": "enabled"}])
        ecs.update_cluster_settings(cluster="life", settings=[{"name": "containerInsights", "value": "disabled"}])
        self.fails("InvalidParameterException", "containerInsights", ecs.update_cluster_settings, cluster="life", settings=[{"name": "containerInsights", "value": "v"}])
        ecs.put_cluster_capacity_providers(cluster="life", capacityProviders=["FARGATE", "FARGATE_SPOT"], defaultCapacityProviderStrategy=[{"capacityProvider": "FARGATE", "weight": 1}])
        self.fails("InvalidParameterException", "none", ecs.put_cluster_capacity_providers, cluster="life", capacityProviders=["none"], defaultCapacityProviderStrategy=[])
        self.assertEqual(ecs.delete_cluster(cluster="life")["cluster"]["status"], "INACTIVE")
        self.fails("ClusterNotFoundException", "Cluster not found.", ecs.list_tasks, cluster="life")
        pages = ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 1})
        self.assertNotIn(made["clusterArn"], [a for page in pages for a in page["clusterArns"]])


class Definitions(Ecs):
    def test_revisions(self):
        ecs, name = self.ecs, self.name
        arns = [self.define()["taskDefinitionArn"] for _ in range(4)]
        self.assertEqual(arns[3], f"{PREFIX}:task-definition/{name}:4")
        pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix=name, sort="DESC", PaginationConfig={"PageSize": 3})
        self.assertEqual([a for page in pages for a in page["taskDefinitionArns"]], arns[::-1])
        self.assertIn(name, ecs.list_task_definition_families(familyPrefix=name)["families"])
        self.fails("ClientException", "Revision is missing.", ecs.deregister_task_definition, taskDefinition=name)
        gone = ecs.deregister_task_definition(taskDefinition=arns[3])["taskDefinition"]
        self.assertEqual(gone["status"], "INACTIVE")
        self.assertEqual(ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["revision"], 3)
        self.assertEqual(ecs.describe_task_definition(taskDefinition=arns[3])["taskDefinition"]["status"], "INACTIVE")
        self.fails("ClientException", "inactive", self.start, taskDefinition=arns[3])
        told = ecs.delete_task_definitions(taskDefinitions=[arns[3], arns[2], name])
        self.assertEqual([d["status"] for d in told["taskDefinitions"]], ["DELETE_IN_PROGRESS"])
        self.assertEqual([f["arn"] for f in told["failures"]], [arns[2], name])
        self.assertIn("still in ACTIVE status", told["failures"][0]["reason"])
        self.assertEqual(ecs.list_task_definitions(familyPrefix=name, status="INACTIVE")["taskDefinitionArns"], [])
        for arn in arns[:3]:
            ecs.deregister_task_definition(taskDefinition=arn)
        self.assertNotIn(name, ecs.list_task_definition_families(familyPrefix=name, status="ACTIVE")["families"])

    def test_what_is_refused(self):
        c = self.container
        for text, change in [
            ("No Fargate configuration exists", {"cpu": "512", "memory": "512"}),
            ("awsvpc", {"networkMode": "bridge"}),
            ("Role is not valid", {"taskRoleArn": f"arn:aws:iam::{ACCOUNT}:role/none"}),
            ("pidMode", {"pidMode": "host"}),
            ("between 21 and 200", {"ephemeralStorage": {"sizeInGiB": 300}}),
        ]:
            self.fails("ClientException", text, self.define, **change)
        for text, containers in [
            ("essential", [c(essential=False)]),
            ("unique", [c(), c()]),
            ("circular", [c(dependsOn=[{"containerName": "b", "condition": "START"}]), c(name="b", dependsOn=[{"containerName": "main", "condition": "START"}])]),
            ("image", [{"name": "a", "memory": 64}]),
            ("privileged", [c(privileged=True)]),
            ("stopTimeout", [c() | {"stopTimeout": 121}]),
        ]:
            with self.subTest(text):
                with self.assertRaises(self.ecs.exceptions.ClientException) as caught:
                    self.define(*containers)
                self.assertIn(text, caught.exception.response["Error"]["Message"])

    def test_defaults_are_told(self):
        made = self.define(self.container(healthCheck={"command": ["CMD-SHELL", "true"]}, portMappings=[{"containerPort": 80}]),
                           volumes=[{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}])
        container = made["containerDefinitions"][0]
        self.assertEqual((container["essential"], container["cpu"], container["environment"]), (True, 0, []))
        self.assertEqual(container["portMappings"], [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}])
        self.assertEqual({k: container["healthCheck"][k] for k in ("interval", "timeout", "retries")}, {"interval": 30, "timeout": 5, "retries": 3})
        self.assertEqual(made["volumes"][0]["efsVolumeConfiguration"]["rootDirectory"], "/")
        self.assertIn("ecs.capability.task-eni", [a["name"] for a in made["requiresAttributes"]])
        plain = self.ecs.register_task_definition(family="plain", containerDefinitions=[{"name": "a", "image": "b", "memory": 64}])["taskDefinition"]
        self.assertEqual((plain["networkMode"], plain["compatibilities"]), ("bridge", ["EXTERNAL", "EC2"]))


class Tasks(Ecs):
    def test_order_and_health(self):
        """One container after another: a first one that succeeds, one that must be healthy, and the main one."""
        self.define(
            self.container("echo made >/shared/made", "setup", essential=False, mountPoints=[{"sourceVolume": "v", "containerPath": "/shared"}]),
            self.container("sleep 600", "side", essential=False, healthCheck={"command": ["CMD-SHELL", "true"], "interval": 5},
                           dependsOn=[{"containerName": "setup", "condition": "SUCCESS"}]),
            self.container("sleep 600", mountPoints=[{"sourceVolume": "v", "containerPath": "/shared"}], dependsOn=[{"containerName": "side", "condition": "HEALTHY"}]),
            volumes=[{"name": "v"}])
        task = self.running()
        status = {c["name"]: (c["lastStatus"], c["healthStatus"]) for c in task["containers"]}
        self.assertEqual(status, {"setup": ("STOPPED", "UNKNOWN"), "side": ("RUNNING", "HEALTHY"), "main": ("RUNNING", "UNKNOWN")})
        self.assertEqual(self.exec(task, "cat", "/shared/made"), "made")

    def test_limits_and_overrides(self):
        self.define(self.container(ulimits=[{"name": "nofile", "softLimit": 1000, "hardLimit": 2000}], environment=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
                                   workingDirectory="/tmp", linuxParameters={"initProcessEnabled": True}))
        task = self.running(overrides={"containerOverrides": [{"name": "main", "environment": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
                                                               "command": ["sh", "-c", "sleep 601"]}]})
        self.assertEqual(self.exec(task, "sh", "-c", "ulimit -Sn; ulimit -Hn; pwd; echo $A$B$C").split(), ["1000", "2000", "/tmp", "123"])
        self.assertEqual(task["overrides"]["containerOverrides"][0]["command"], ["sh", "-c", "sleep 601"])
        self.assertIn("sleep 601", self.exec(task, "sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"))
        self.fails("InvalidParameterException", "", self.start, overrides={"containerOverrides": [{"name": "none"}]})

    def test_secrets(self):
        client("ssm").put_parameter(Name="/t/word", Value="sesame", Type="SecureString")
        arn = client("secretsmanager").create_secret(Name="t-secret", SecretString=json.dumps({"user": "ann", "word": "open"}))["ARN"]
        execution = client("iam").create_role(RoleName="execution", AssumeRolePolicyDocument=_aws.TASKS_TRUST)["Role"]["Arn"]
        with self.assertRaises(self.ecs.exceptions.ClientException) as caught:
            self.define(self.container(secrets=[{"name": "WORD", "valueFrom": "/t/word"}]))
        self.assertIn("execution role", caught.exception.response["Error"]["Message"])
        self.define(self.container(secrets=[{"name": "WORD", "valueFrom": "/t/word"}, {"name": "WHOLE", "valueFrom": arn}, {"name": "USER_", "valueFrom": f"{arn}:user::"}]),
                    executionRoleArn=execution)
        task = self.running()
        said = self.exec(task, "sh", "-c", "echo $WORD; echo $WHOLE; echo $USER_").splitlines()
        self.assertEqual((said[0], json.loads(said[1])["word"], said[2]), ("sesame", "open", "ann"))
        self.define(self.container(secrets=[{"name": "WORD", "valueFrom": "/t/none"}]), executionRoleArn=execution)
        task = self.ended()
        self.assertEqual(task["stopCode"], "TaskFailedToStart")
        self.assertIn("ResourceInitializationError", task["stoppedReason"])

    def test_metadata_and_credentials(self):
        iam = client("iam")
        iam.create_role(RoleName="task-role", AssumeRolePolicyDocument=_aws.TASKS_TRUST)
        iam.put_role_policy(RoleName="task-role", PolicyName="p", PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecs:ListClusters", "Resource": "*"}]}))
        self.define(taskRoleArn="task-role")
        task = self.running(tags=[{"key": "team", "value": "red"}])
        env = dict(line.split("=", 1) for line in self.exec(task, "env").splitlines() if "=" in line)
        get = lambda url: json.loads(subprocess.check_output(["curl", "-sf", url]))
        uri = env["ECS_CONTAINER_METADATA_URI_V4"]
        self.assertEqual((get(uri)["Name"], get(uri)["KnownStatus"]), ("main", "RUNNING"))
        about = get(f"{uri}/task")
        self.assertEqual((about["TaskARN"], about["Family"], about["LaunchType"]), (task["taskArn"], self.name, "FARGATE"))
        self.assertEqual(get(f"{uri}/taskWithTags")["TaskTags"], {"team": "red"})
        self.assertEqual(len(get(f"{uri}/task/stats")), 1)
        base = uri.split("/v4/")[0]
        given = get(base + env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])
        session = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"], "aws_session_token": given["Token"]}
        self.assertIn("assumed-role/task-role/", client("sts", **session).get_caller_identity()["Arn"])
        client("ecs", **session).list_clusters()
        self.fails("AccessDeniedException", "ecs:CreateCluster", client("ecs", **session).create_cluster, clusterName="x")

    def test_how_they_end(self):
        self.define(self.container("trap 'exit 7' TERM; while :; do sleep 0.1; done"))
        task = self.running()
        stopped = self.ecs.stop_task(cluster=self.cluster, task=task["taskArn"], reason="enough")["task"]
        self.assertEqual((stopped["desiredStatus"], stopped["stopCode"]), ("STOPPED", "UserInitiated"))
        self.ecs.get_waiter("tasks_stopped").wait(cluster=self.cluster, tasks=[task["taskArn"]], WaiterConfig=WAIT)
        task = self.told(task["taskArn"])
        self.assertEqual((task["stoppedReason"], task["containers"][0]["exitCode"]), ("enough", 7))
        self.assertLess(task["createdAt"], task["stoppedAt"])
        self.assertEqual(self.ecs.list_tasks(cluster=self.cluster)["taskArns"], [])
        self.assertEqual(self.ecs.list_tasks(cluster=self.cluster, desiredStatus="STOPPED")["taskArns"], [task["taskArn"]])
        self.define({**self.container(), "image": "busybox:no-such-tag"})
        task = self.ended()
        self.assertEqual(task["stopCode"], "TaskFailedToStart")
        self.assertTrue(task["stoppedReason"].startswith("CannotPullContainerError"), task["stoppedReason"])
        self.fails("InvalidParameterException", "not found", self.ecs.stop_task, cluster=self.cluster, task="0" * 32)

    def test_tags_and_lists(self):
        self.define()
        tasks = self.start(count=3, startedBy="me", group="mine", tags=[{"key": "a", "value": "b"}], enableECSManagedTags=True)
        self.assertEqual([t["group"] for t in tasks], ["mine"] * 3)
        arns = sorted(t["taskArn"] for t in tasks)
        self.assertEqual(sorted(self.ecs.list_tasks(cluster=self.cluster, startedBy="me")["taskArns"]), arns)
        self.assertEqual(self.ecs.list_tasks(cluster=self.cluster, family="other")["taskArns"], [])
        tags = {t["key"]: t["value"] for t in self.told(arns[0])["tags"]}
        self.assertEqual((tags["a"], tags["aws:ecs:clusterName"]), ("b", self.cluster))
        pages = self.ecs.get_paginator("list_tasks").paginate(cluster=self.cluster, PaginationConfig={"PageSize": 2})
        self.assertEqual(sorted(a for page in pages for a in page["taskArns"]), arns)
        self.fails("InvalidParameterException", "less than or equal to 50", self.start, tags=[{"key": str(i), "value": ""} for i in range(51)])
        self.assertEqual([t["reason"] for t in self.ecs.describe_tasks(cluster=self.cluster, tasks=["0" * 32])["failures"]], ["MISSING"])


class Instances(Ecs):
    """The node is a container instance of the cluster `instances`."""

    def setUp(self):
        super().setUp()
        self.cluster = "instances"
        self.ecs.create_cluster(clusterName=self.cluster)
        self.instance = self.ecs.list_container_instances(cluster=self.cluster)["containerInstanceArns"][0]

    def test_attributes(self):
        ecs, instance = self.ecs, self.instance
        told = ecs.describe_container_instances(cluster=self.cluster, containerInstances=[instance])["containerInstances"][0]
        self.assertEqual((told["status"], told["agentConnected"]), ("ACTIVE", True))
        self.assertTrue(any(r["name"] == "CPU" and r["integerValue"] > 0 for r in told["registeredResources"]))
        target = {"name": "stack", "value": "blue", "targetType": "container-instance", "targetId": instance}
        ecs.put_attributes(cluster=self.cluster, attributes=[target])
        listed = ecs.list_attributes(cluster=self.cluster, targetType="container-instance", attributeName="stack", attributeValue="blue")["attributes"]
        self.assertEqual([a["targetId"] for a in listed], [instance])
        self.assertEqual(ecs.list_container_instances(cluster=self.cluster, filter="attribute:stack == blue")["containerInstanceArns"], [instance])
        self.assertEqual(ecs.list_container_instances(cluster=self.cluster, filter="attribute:stack == red")["containerInstanceArns"], [])
        ecs.delete_attributes(cluster=self.cluster, attributes=[target])
        self.assertEqual(ecs.list_attributes(cluster=self.cluster, targetType="container-instance", attributeName="stack")["attributes"], [])
        self.fails("InvalidParameterException", "cannot be empty", ecs.describe_container_instances, cluster=self.cluster, containerInstances=[])

    def test_placement_and_draining(self):
        ecs = self.ecs
        self.define(self.container(memory=64), requiresCompatibilities=["EC2"], networkMode="bridge", cpu="128", memory="64")
        ask = {"cluster": self.cluster, "taskDefinition": self.name, "launchType": "EC2"}
        task = ecs.run_task(**ask, placementStrategy=[{"type": "binpack", "field": "memory"}])["tasks"][0]
        self.assertEqual(task["containerInstanceArn"], self.instance)
        failed = ecs.run_task(**ask, placementConstraints=[{"type": "memberOf", "expression": "attribute:stack == green"}])
        self.assertEqual((failed["tasks"], failed["failures"][0]["reason"]), ([], "MemberOf placement constraint unsatisfied."), failed)
        started = ecs.start_task(cluster=self.cluster, taskDefinition=self.name, containerInstances=[self.instance])["tasks"][0]
        self.assertEqual(started["containerInstanceArn"], self.instance)
        daemon_service = ecs.create_service(cluster=self.cluster, serviceName="each", taskDefinition=self.name, launchType="EC2", schedulingStrategy="DAEMON")["service"]
        self.assertEqual(daemon_service["schedulingStrategy"], "DAEMON")
        ecs.get_waiter("services_stable").wait(cluster=self.cluster, services=["each"], WaiterConfig=WAIT)
        self.assertEqual(ecs.describe_services(cluster=self.cluster, services=["each"])["services"][0]["runningCount"], 1)
        ecs.update_container_instances_state(cluster=self.cluster, containerInstances=[self.instance], status="DRAINING")
        self.assertTrue(_lib.eventually(30, lambda: ecs.describe_services(cluster=self.cluster, services=["each"])["services"][0]["runningCount"] == 0))
        self.assertEqual(ecs.list_container_instances(cluster=self.cluster, status="DRAINING")["containerInstanceArns"], [self.instance])
        ecs.update_container_instances_state(cluster=self.cluster, containerInstances=[self.instance], status="ACTIVE")
        self.assertTrue(_lib.eventually(30, lambda: ecs.describe_services(cluster=self.cluster, services=["each"])["services"][0]["runningCount"] == 1))
        ecs.delete_service(cluster=self.cluster, service="each", force=True)
        for t in ecs.list_tasks(cluster=self.cluster)["taskArns"]:
            ecs.stop_task(cluster=self.cluster, task=t)


class Services(Ecs):
    def service(self, **more):
        ask = {"cluster": self.cluster, "serviceName": "s", "taskDefinition": self.name, "desiredCount": 2, "launchType": "FARGATE", "networkConfiguration": self.net, **more}
        return self.ecs.create_service(**ask)["service"]

    def stable(self):
        self.ecs.get_waiter("services_stable").wait(cluster=self.cluster, services=["s"], WaiterConfig=WAIT)
        return self.shown()

    def shown(self):
        return self.ecs.describe_services(cluster=self.cluster, services=["s"], include=["TAGS"])["services"][0]

    def test_life(self):
        ecs = self.ecs
        self.define()
        made = self.service(tags=[{"key": "a", "value": "b"}], propagateTags="SERVICE", clientToken="t")
        self.assertEqual(made["serviceArn"], f"{PREFIX}:service/{self.cluster}/s")
        self.assertEqual((made["deploymentConfiguration"]["maximumPercent"], made["deploymentConfiguration"]["minimumHealthyPercent"]), (200, 100))
        self.assertEqual(self.service(tags=[{"key": "a", "value": "b"}], propagateTags="SERVICE", clientToken="t")["serviceArn"], made["serviceArn"])
        told = self.stable()
        self.assertEqual((told["runningCount"], told["deployments"][0]["rolloutState"], told["tags"]), (2, "COMPLETED", [{"key": "a", "value": "b"}]))
        task = ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"][0]
        self.assertEqual(self.told(task)["tags"], [{"key": "a", "value": "b"}])
        self.assertEqual(self.told(task)["group"], "service:s")
        ecs.update_service(cluster=self.cluster, service="s", desiredCount=3)
        self.assertEqual(self.stable()["runningCount"], 3)
        ecs.update_service(cluster=self.cluster, service="s", forceNewDeployment=True)
        new = self.stable()
        self.assertNotIn(task, ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"])
        self.assertNotEqual(new["deployments"][0]["id"], told["deployments"][0]["id"])
        deployments = ecs.list_service_deployments(cluster=self.cluster, service="s")["serviceDeployments"]
        self.assertEqual([d["status"] for d in deployments][0], "SUCCESSFUL")
        ecs.stop_task(cluster=self.cluster, task=ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"][0])
        self.assertTrue(_lib.eventually(30, lambda: len(ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"]) == 3), "it is replaced")
        self.fails("InvalidParameterException", "scaled above 0", ecs.delete_service, cluster=self.cluster, service="s")
        self.fails("ClusterContainsServicesException", "Services are active", ecs.delete_cluster, cluster=self.cluster)
        ecs.update_service(cluster=self.cluster, service="s", desiredCount=0)
        self.stable()
        self.assertEqual(ecs.delete_service(cluster=self.cluster, service="s")["service"]["status"], "DRAINING")
        ecs.get_waiter("services_inactive").wait(cluster=self.cluster, services=["s"], WaiterConfig=WAIT)
        self.assertEqual(ecs.list_services(cluster=self.cluster)["serviceArns"], [])
        self.fails("ServiceNotActiveException", "not ACTIVE", ecs.update_service, cluster=self.cluster, service="s", desiredCount=1)

    def test_the_circuit_breaker(self):
        self.define()
        self.service(deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}})
        first = self.stable()
        self.define({**self.container(), "image": "busybox:no-such-tag"})
        self.ecs.update_service(cluster=self.cluster, service="s", taskDefinition=f"{self.name}:2")
        back = lambda: self.shown()["taskDefinition"] == first["taskDefinition"] and len(self.shown()["deployments"]) == 1
        self.assertTrue(_lib.eventually(120, back), self.shown()["events"][:5])
        self.assertEqual(self.shown()["runningCount"], 2)
        self.assertTrue(any("rolling back" in e["message"] for e in self.shown()["events"]))

    def test_the_circuit_breaker_counts_tasks_that_end_at_once(self):
        self.define()
        self.service(deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}})
        first = self.stable()
        self.define({**self.container(), "command": ["sh", "-c", "exit 1"]})
        self.ecs.update_service(cluster=self.cluster, service="s", taskDefinition=f"{self.name}:2")
        back = lambda: self.shown()["taskDefinition"] == first["taskDefinition"] and len(self.shown()["deployments"]) == 1
        self.assertTrue(_lib.eventually(120, back), self.shown()["events"][:5])
        self.assertTrue(any("rolling back" in e["message"] for e in self.shown()["events"]))

    def test_protection(self):
        ecs = self.ecs
        self.define()
        self.service()
        self.stable()
        tasks = ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"]
        told = ecs.update_task_protection(cluster=self.cluster, tasks=[tasks[0]], protectionEnabled=True, expiresInMinutes=10)["protectedTasks"][0]
        self.assertTrue(told["protectionEnabled"])
        ecs.update_service(cluster=self.cluster, service="s", desiredCount=0)
        self.assertTrue(_lib.eventually(30, lambda: ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"] == [tasks[0]]))
        time.sleep(1)
        self.assertEqual(ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"], [tasks[0]], "a protected task stays")
        ecs.update_task_protection(cluster=self.cluster, tasks=[tasks[0]], protectionEnabled=False)
        self.assertTrue(_lib.eventually(30, lambda: ecs.list_tasks(cluster=self.cluster, serviceName="s")["taskArns"] == []))

    def test_pages(self):
        self.define()
        for i in range(12):
            self.ecs.create_service(cluster=self.cluster, serviceName=f"p{i}", taskDefinition=self.name, desiredCount=0, launchType="FARGATE", networkConfiguration=self.net)
        self.assertEqual(len(self.ecs.list_services(cluster=self.cluster)["serviceArns"]), 10)
        pages = self.ecs.get_paginator("list_services").paginate(cluster=self.cluster, PaginationConfig={"PageSize": 5})
        self.assertEqual(sorted(a.rsplit("/", 1)[-1] for page in pages for a in page["serviceArns"]), sorted(f"p{i}" for i in range(12)))
        self.fails("InvalidParameterException", "cannot be empty", self.ecs.describe_services, cluster=self.cluster, services=[])


if __name__ == "__main__":
    unittest.main(verbosity=2)
