"""Amazon ECS: from run-task until the task runs, a service of 50 tasks until it is steady, and requests about 1,000 tasks
per second of the server's processor time, beside moto's server in the same run (which runs no containers)."""

import json
import statistics
import subprocess
import time

from harness import procs
from harness.aws import Client

TITLE = "Amazon ECS: starting tasks, and requests per second and core with 1,000 tasks"
ENGINES = ("moto", "tripod")
DEFINITION = {
    "family": "sleep", "networkMode": "awsvpc", "cpu": "256", "memory": "512", "requiresCompatibilities": ["FARGATE"],
    "containerDefinitions": [{"name": "main", "image": "busybox:latest", "memory": 512, "command": ["sleep", "1000000"], "stopTimeout": 2}],
}


def run(engine, options):
    engine.start()
    if engine.name == "tripod":
        engine.load("busybox.tar")
        engine.swarm()
        lines = subprocess.check_output([engine.program, "aws-env", "--data-root", str(engine.root / "data")], text=True)
        settings = dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())
        host, port = settings["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
        access = (host, int(port)), settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]
    else:
        access = engine.address, "test", "test"
    client = Client(*access)
    network = Client(*access, "ec2")
    subnet = network.first("DescribeSubnets", "2016-11-15", "subnetId")
    group = network.first("DescribeSecurityGroups", "2016-11-15", "groupId")
    client.call("CreateCluster", clusterName="c")
    client.call("RegisterTaskDefinition", **DEFINITION)
    launch = {
        "cluster": "c", "taskDefinition": "sleep", "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [group]}},
    }
    result = {}
    if engine.name == "tripod":
        result.update(starts(client, launch, 5 if options.quick else 20))
        result.update(service(client, launch, 10 if options.quick else 50))
    result.update(asked(engine, client, launch, 100 if options.quick else 1000, 2 if options.quick else 6))
    return result


def one(client, task):
    return client.call("DescribeTasks", cluster="c", tasks=[task])["tasks"][0]


def starts(client, launch, rounds):
    """Milliseconds from RunTask until DescribeTasks says RUNNING, asked every 2 ms."""
    times, stops = [], []
    for _ in range(rounds + 2):
        began = time.monotonic()
        task = client.call("RunTask", **launch)["tasks"][0]["taskArn"]
        while one(client, task)["lastStatus"] != "RUNNING":
            if time.monotonic() - began > 60:
                raise RuntimeError(f"the task does not run: {json.dumps(one(client, task))[:800]}")
            time.sleep(0.002)
        times.append((time.monotonic() - began) * 1000)
        began = time.monotonic()
        client.call("StopTask", cluster="c", task=task)
        while one(client, task)["lastStatus"] != "STOPPED":
            time.sleep(0.01)
        stops.append((time.monotonic() - began) * 1000)
    times, stops = times[2:], stops[2:]
    return {"run_task_ms": statistics.median(times), "run_task_worst_ms": max(times), "stop_task_ms": statistics.median(stops)}


def service(client, launch, size):
    """Seconds from CreateService until it is steady as the waiter of the clients has it."""
    began = time.monotonic()
    client.call("CreateService", serviceName="s", desiredCount=size, **launch)
    steady = False
    while not steady:
        if time.monotonic() - began > 120:
            raise RuntimeError(f"the service is not steady: {running} of {size}")
        time.sleep(0.005)
        told = client.call("DescribeServices", cluster="c", services=["s"])["services"][0]
        running = told["runningCount"]
        steady = running == size and len(told["deployments"]) == 1
    took = time.monotonic() - began
    client.call("DeleteService", cluster="c", service="s", force=True)
    while client.call("ListTasks", cluster="c")["taskArns"]:
        time.sleep(0.05)
    return {f"service_{size}_steady_s": took}


def settled(client):
    """How many tasks run once no further one starts: the others wait for processors and memory that are not there."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < 5:
        now = client.call("DescribeClusters", clusters=["c"])["clusters"][0]["runningTasksCount"]
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(0.1)
    return count


def asked(engine, client, launch, tasks, seconds):
    """Requests per second of the server's processor time, with so many tasks."""
    arns = []
    while len(arns) < tasks:
        arns += [t["taskArn"] for t in client.call("RunTask", **launch, count=10)["tasks"]]
    result = {"tasks": tasks}
    if engine.name == "tripod":
        result["tasks_running"] = settled(client)
    requests = {
        "list": client.prepare("ListTasks", cluster="c", maxResults=100),
        "describe_10": client.prepare("DescribeTasks", cluster="c", tasks=arns[:10]),
        "describe_100": client.prepare("DescribeTasks", cluster="c", tasks=arns[:100]),
        "describe_cluster": client.prepare("DescribeClusters", clusters=["c"]),
    }
    for name, request in requests.items():
        request.send()
        used, began, sent = procs.spent_seconds(engine.pids()), time.monotonic(), 0
        while time.monotonic() - began < seconds:
            request.send()
            sent += 1
        used = procs.spent_seconds(engine.pids()) - used
        result[f"{name}_per_core_s"] = sent / max(used, 1e-9)
    return result
