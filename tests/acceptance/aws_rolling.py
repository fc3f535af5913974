"""Deployments of an ECS service under load lose no request.

The tasks of the service are behind a port of the node (a NodePort of Kubernetes that selects the service's tasks), as
the load of rolling.py asks for it. Meanwhile a new revision is deployed, the service is deployed anew, scaled down and
up, and one of its tasks is stopped.
"""

import asyncio
import os
import subprocess
import sys
import time

import _aws
import _lib
import rolling
from _aws import client, daemon

rolling.PORT = 30080
WAIT = {"Delay": 1, "MaxAttempts": 90}


def kubectl(*arguments, text=None):
    config = _lib.WORK / "kubeconfig"
    if not config.exists():
        config.write_bytes(subprocess.check_output([os.environ["TRIPOD"], "kubeconfig", "--data-root", str(daemon.root)]))
    done = subprocess.run(["kubectl", "--kubeconfig", str(config), *arguments], input=text, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def define(ecs, image):
    container = {"name": "web", "image": image, "essential": True, "portMappings": [{"containerPort": 8080}], "stopTimeout": 10}
    return ecs.register_task_definition(
        family="web", networkMode="awsvpc", cpu="256", memory="512", requiresCompatibilities=["FARGATE"],
        containerDefinitions=[container])["taskDefinition"]["taskDefinitionArn"]


def changing(ecs, call, **arguments):
    """A change of the service, until it is stable."""
    def run():
        call(cluster="c", **arguments)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            service = ecs.describe_services(cluster="c", services=["web"])["services"][0]
            if len(service["deployments"]) == 1 and service["runningCount"] == service["desiredCount"] and service["deployments"][0]["rolloutState"] == "COMPLETED":
                return 0, ""
            time.sleep(0.1)
        return 1, f"not stable: {service['deployments']} {[e['message'] for e in service['events'][:5]]}"

    return lambda: asyncio.to_thread(run)


async def walk(check):
    ecs, ec2 = client("ecs"), client("ec2")
    ecs.create_cluster(clusterName="c")
    group = ec2.create_security_group(GroupName="web", Description="d")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=8080, ToPort=8080, CidrIp="0.0.0.0/0")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    net = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [group]}}
    first, second = define(ecs, "spkane/quantum-game"), define(ecs, "spkane/quantum-game:latest-plus")
    ecs.create_service(cluster="c", serviceName="web", taskDefinition=first, desiredCount=4, launchType="FARGATE", networkConfiguration=net)
    ecs.get_waiter("services_stable").wait(cluster="c", services=["web"], WaiterConfig=WAIT)
    namespace = kubectl("get", "pods", "-A", "-l", "ecs.tripod.dev/service=web", "-o", "jsonpath={.items[0].metadata.namespace}")
    kubectl("apply", "-f", "-", text=f"""
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec:
  type: NodePort
  selector: {{ecs.tripod.dev/service: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {rolling.PORT}}}]
""")
    answers = lambda: subprocess.run(["curl", "-sfm2", f"http://127.0.0.1:{rolling.PORT}/", "-o", "/dev/null"]).returncode == 0
    check("the service answers", _lib.eventually(20, answers))
    await rolling.phase(check, "at rest", "ps")
    load = await rolling.phase(check, "a new revision", change=changing(ecs, ecs.update_service, service="web", taskDefinition=second))
    check("a new revision: both editions were seen", load.pages["blue"] and load.pages["green"], load.pages)
    await rolling.phase(check, "deployed anew", change=changing(ecs, ecs.update_service, service="web", forceNewDeployment=True))
    halves = {"minimumHealthyPercent": 50, "maximumPercent": 100}
    await rolling.phase(check, "back, without more tasks", change=changing(ecs, ecs.update_service, service="web", taskDefinition=first, deploymentConfiguration=halves))
    await rolling.phase(check, "scaled down", change=changing(ecs, ecs.update_service, service="web", desiredCount=2), seconds=4)
    await rolling.phase(check, "scaled up", change=changing(ecs, ecs.update_service, service="web", desiredCount=5))
    task = ecs.list_tasks(cluster="c", serviceName="web")["taskArns"][0]
    await rolling.phase(check, "a task is stopped", change=changing(ecs, ecs.stop_task, task=task), seconds=5)
    ecs.delete_service(cluster="c", service="web", force=True)


def main():
    check = rolling.Checks()
    rolling.daemon = daemon
    try:
        _aws.start("quantum-game")
        asyncio.run(walk(check))
        check("no container is left", _lib.eventually(40, lambda: not daemon.docker("ps", "-q")), daemon.docker("ps", "-a"))
        daemon.stop()
    except Exception as e:
        check(f"{type(e).__name__}: {e}", False)
    if check.failed:
        print("# the end of the daemon's log:\n" + daemon.log.read_text()[-2000:])
    print(f"\n{check.passed} passed, {check.failed} failed")
    return check.failed > 0


if __name__ == "__main__":
    sys.exit(main())
