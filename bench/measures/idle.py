"""Memory of an engine that does nothing: Swarm active, no container, ten seconds after the last request."""

import os
import time

from harness import procs

TITLE = "resident memory when idle, Swarm active, MB (1,000,000 bytes)"
ENGINES = ("docker", "tripod")


def run(engine, options):
    engine.start()
    engine.swarm()
    api = engine.api()
    # One container has run: whatever an engine starts with its first container (a keeper) is there and counted.
    engine.load("busybox.tar")
    made = api.post("/containers/create", {"Image": "busybox:latest", "Cmd": ["true"]})
    api.post(f"/containers/{made['Id']}/start")
    api.post(f"/containers/{made['Id']}/wait")
    api.delete(f"/containers/{made['Id']}")
    api.close()
    time.sleep(10)
    result = {"rss_mb": 0.0, "pss_mb": 0.0}
    for pid in engine.pids():
        rss, pss = procs.memory(pid)
        result["rss_mb"] += rss / 1e6
        result["pss_mb"] += pss / 1e6
        arguments = procs.command(pid)
        kind = os.path.basename(arguments[0].decode())
        if engine.name == "tripod":
            kind = arguments[1].decode()
        result[f"{kind}_rss_mb"] = result.get(f"{kind}_rss_mb", 0.0) + rss / 1e6
    result["processes"] = len(engine.pids())
    return result
