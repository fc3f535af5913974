"""Start of the daemon until its first answer: on an empty data root, and after kill -9 with containers running.

With running containers it counts until the engine lists them all as running (Docker: `--live-restore`, which Swarm
mode excludes), and their first processes must be the ones from before.
"""

import statistics
import time

from harness.api import run_container

TITLE = "daemon start until its first answer, milliseconds"
ENGINES = ("docker", "tripod")


def run(engine, options):
    count = 50 if options.quick else 200
    fresh = []
    for n in range(3 if options.quick else 5):
        one = type(engine)(f"fresh-{n}")
        fresh.append(one.start() * 1000)
        one.stop()
    engine.live_restore = True
    engine.start()
    engine.load("busybox.tar")
    if engine.name == "tripod":
        engine.swarm()
    api = engine.api()
    ids = [run_container(api, f"kept-{n}", ["sleep", "1000000"]) for n in range(count)]
    before = {i: api.get(f"/containers/{i}/json")["State"]["Pid"] for i in ids}
    api.close()
    engine.kill()
    began = time.monotonic()
    answered = engine.start()
    api = engine.api()
    while len(api.get("/containers/json")) < count:
        if time.monotonic() - began > 60:
            raise RuntimeError("not all containers are running after a restart of the daemon")
        time.sleep(0.005)
    adopted = time.monotonic() - began
    after = {i: api.get(f"/containers/{i}/json")["State"]["Pid"] for i in ids}
    if before != after:
        raise RuntimeError("containers were started again")
    return {"fresh_ms": statistics.median(fresh), "fresh_max_ms": max(fresh), "containers": count,
            "again_answer_ms": answered * 1000, "again_adopted_ms": adopted * 1000}
