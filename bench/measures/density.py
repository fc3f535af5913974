"""Memory per idle container: what the whole system uses more, between no container and the last.

Two readings of the system (MemAvailable, MemFree), each after dropping caches, and one of the control groups of the
machine (see `procs.charged_memory`). The system's readings include whatever else runs meanwhile: a quiet machine.
"""

import time

from harness import procs
from harness.api import run_container

TITLE = "memory per idle container with a network, MB (1,000,000 bytes)"
ENGINES = ("docker", "tripod")


def run(engine, options):
    count = 50 if options.quick else 200
    engine.start()
    engine.load("busybox.tar")
    engine.swarm()
    api = engine.api()
    run_container(api, "first", ["sleep", "1000000"])
    time.sleep(5)
    before = (*procs.system_memory(), procs.charged_memory())
    for n in range(count):
        run_container(api, f"idle-{n}", ["sleep", "1000000"])
    time.sleep(5)
    after = (*procs.system_memory(), procs.charged_memory())
    each = [None if a is None else (b - a) / count / 1e6 for a, b in zip(before, after)]
    result = {"containers": count, "system_available_mb": each[0], "system_free_mb": each[1]}
    if each[2] is not None:
        result["charged_mb"] = each[2]
    # A disturbed reading of the system may be too small, but not the truth below what the groups are charged.
    result["worst_mb"] = max(e for e in each if e is not None)
    own = sum(procs.memory(pid)[1] for pid in engine.pids())
    result["engine_pss_mb"] = own / 1e6
    return result
