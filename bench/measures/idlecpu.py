"""Processor time of an idle engine with 100 running replicas over 20 seconds, as percent of one core."""

import time

from harness import procs
from measures.service import until_running

TITLE = "processor time when idle with 100 replicas, % of one core"
ENGINES = ("docker", "tripod")


def run(engine, options):
    engine.start()
    engine.load("busybox.tar")
    engine.swarm()
    api = engine.api()
    until_running(api, "idle", 100)
    api.close()
    time.sleep(10)  # after-work of the start is not idling
    seconds = 20
    pids = engine.pids()
    cpu, woken = procs.cpu_seconds(pids), procs.switches(pids)
    time.sleep(seconds)
    return {"cpu_percent": (procs.cpu_seconds(pids) - cpu) / seconds * 100,
            "wakeups_per_s": (procs.switches(pids) - woken) / seconds,
            "processes": len(pids)}
