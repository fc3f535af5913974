"""Clusters on one machine: from `tripod start` until it returns (all nodes ready, the three APIs answering), `stop` and
`start` of one with 20 services until each answers again, and what a one-node cluster costs when idle."""

import http.client
import json
import os
import statistics
import subprocess
import time

from harness import procs
from harness.api import Api, service_spec
from harness.engines import PROJECT, WORK, Tripod

TITLE = "clusters on one machine: tripod start, stop and start again, idle"
ENGINES = ("tripod",)
SERVICES = 20


def tripod(*arguments):
    environment = {**os.environ, "TRIPOD_HOME": str(WORK / "clusters")}
    done = subprocess.run([Tripod.program, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"tripod {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


def started(*arguments):
    """Starts a cluster; what it tells of itself, and the milliseconds it took."""
    began = time.monotonic()
    told = json.loads(tripod("start", "--output", "json", *arguments))
    return told, (time.monotonic() - began) * 1000


def run(engine, options):
    result = {}
    for name, arguments in {"1": [], "3": ["--nodes", "3"], "6": ["--nodes", "6", "--managers", "3"]}.items():
        times = []
        for _ in range(1 if options.quick else 5):
            times.append(started("--name", "b", *arguments)[1])
            tripod("delete", "--name", "b")
        result[f"start_{name}_ms"] = statistics.median(times)
    told, _ = started("--name", "b")
    result.update(idle(options))
    result.update(again(told))
    tripod("delete", "--name", "b")
    return result


def idle(options):
    """Memory and processor time of all processes of the cluster."""
    time.sleep(2 if options.quick else 10)
    pids = procs.processes(os.path.basename(Tripod.program))
    used, began = procs.cpu_seconds(pids), time.monotonic()
    time.sleep(2 if options.quick else 20)
    used = (procs.cpu_seconds(pids) - used) / (time.monotonic() - began)
    sizes = [procs.memory(pid) for pid in pids]
    return {
        "idle_rss_mb": sum(rss for rss, _ in sizes) / 1e6, "idle_pss_mb": sum(pss for _, pss in sizes) / 1e6,
        "idle_cpu_percent": used * 100,
    }


def again(told):
    """Stop and start with services on published ports, until each answers."""
    socket, address = told["dockerHost"].removeprefix("unix://"), told["nodes"][0]["address"]
    api = Api(socket)
    api.call("POST", "/images/load", raw=(PROJECT / "target/images/quantum-game.tar").read_bytes(), quiet="1")
    for i in range(SERVICES):
        spec = service_spec(f"s{i}", 1, None, "spkane/quantum-game", ports=[{"TargetPort": 8080, "PublishedPort": 18000 + i}])
        api.post("/services/create", spec)
    api.close()
    serving(address)
    began = time.monotonic()
    tripod("stop", "--name", "b")
    stopped = time.monotonic() - began
    tripod("start", "--name", "b")
    serving(address)
    return {"stop_s": stopped, "again_20_s": time.monotonic() - began}


def serving(address):
    """Returns when every service answers."""
    began = time.monotonic()
    for port in range(18000, 18000 + SERVICES):
        while True:
            try:
                connection = http.client.HTTPConnection(address, port, timeout=2)
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() - began > 120:
                raise RuntimeError(f"nothing answers at {address}:{port}")
            time.sleep(0.01)
