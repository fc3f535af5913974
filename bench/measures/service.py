"""Time from the request that makes a service until all its replicas run; image present, Swarm active.

The replicas' own network is the default one (no overlay). A second series attaches them to an overlay with a virtual
address.
"""

import time

from harness.api import running_tasks, service_spec

TITLE = "time until the replicas of a service run, seconds"
ENGINES = ("docker", "tripod")
SIZES = {"docker": (10, 50, 200), "tripod": (10, 50, 200, 500)}


def run(engine, options):
    engine.start()
    engine.load("busybox.tar")
    engine.swarm()
    api = engine.api()
    result = {}
    until_running(api, "warm-up", 2)
    remove(api, "warm-up")
    for size in SIZES[engine.name]:
        if options.quick and size > 50:
            continue
        seconds = until_running(api, f"s{size}", size)
        result[f"running_{size}_s"] = seconds
        result[f"per_replica_{size}_ms"] = seconds * 1000 / size
        result[f"removed_{size}_s"] = remove(api, f"s{size}")
    network = api.post("/networks/create", {"Name": "net", "Driver": "overlay", "CheckDuplicate": True})["Id"]
    result["overlay_50_s"] = until_running(api, "overlay50", 50, [network])
    remove(api, "overlay50")
    return result


def until_running(api, name, size, networks=()):
    """Makes the service and returns the seconds until the engine counts `size` running replicas."""
    began = time.monotonic()
    api.post("/services/create", service_spec(name, size, ["sleep", "1000000"], networks=networks))
    while running_tasks(api, name) < size:
        if time.monotonic() - began > 300:
            raise RuntimeError(f"{name}: {running_tasks(api, name)} of {size} run after 300 s")
        time.sleep(0.01)
    return time.monotonic() - began


def remove(api, name):
    """Removes the service and returns the seconds until none of its containers is left."""
    began = time.monotonic()
    api.delete(f"/services/{name}")
    while api.get("/containers/json", all="1"):
        if time.monotonic() - began > 300:
            raise RuntimeError(f"{name}: containers are left after 300 s")
        time.sleep(0.02)
    return time.monotonic() - began
