"""One container from create to remove, through the API on one kept connection, with and without a network.

For orientation the same program is run by bare `runc` and `crun`: no image, no snapshot, no log, no network.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

from harness.engines import PROJECT, WORK

TITLE = "create + start + wait + remove of a container, milliseconds (median)"
ENGINES = ("docker", "tripod", "bare")


def run(engine, options):
    if engine is None:
        return bare(options.rounds)
    engine.start()
    engine.load("busybox.tar")
    result = {}
    for label, network in (("no_network", "none"), ("network", "bridge")):
        times = cycles(engine.api(), network, options.rounds)
        steps = [statistics.median(step) for step in zip(*times)]
        result[f"{label}_ms"] = statistics.median(sum(t) for t in times)
        result[f"{label}_p90_ms"] = statistics.quantiles([sum(t) for t in times], n=10)[-1]
        for step, value in zip(("create", "start", "wait", "remove"), steps):
            result[f"{label}_{step}_ms"] = value
    return result


def cycles(api, network, rounds):
    """The times of the four steps, in milliseconds, of each round after five for warming up."""
    times = []
    for n in range(rounds + 5):
        marks = [time.perf_counter()]
        made = api.post("/containers/create", {
            "Image": "busybox:latest", "Cmd": ["true"], "HostConfig": {"NetworkMode": network}}, name=f"c-{network}-{n}")
        marks.append(time.perf_counter())
        api.post(f"/containers/{made['Id']}/start")
        marks.append(time.perf_counter())
        ended = api.post(f"/containers/{made['Id']}/wait")
        marks.append(time.perf_counter())
        api.delete(f"/containers/{made['Id']}")
        marks.append(time.perf_counter())
        if ended["StatusCode"] != 0:
            raise RuntimeError(f"the container ended with {ended}")
        times.append([(b - a) * 1000 for a, b in zip(marks, marks[1:])])
    return times[5:]


def bare(rounds):
    """`runc run` and `crun run` of the same file system. crun refuses a version 2 hierarchy beside version 1, so a
    mount namespace without it is made for it."""
    bundle = WORK / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    archive = PROJECT / "target/images/busybox.tar"
    image = json.loads(subprocess.check_output(["tar", "-xOf", archive, "manifest.json"]))[0]
    for layer in image["Layers"]:
        content = subprocess.check_output(["tar", "-xOf", archive, layer])
        subprocess.run(["tar", "-xz" if content[:2] == b"\x1f\x8b" else "-x", "-C", bundle / "rootfs"],
                       input=content, check=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"]["args"], spec["process"]["terminal"] = ["true"], False
    (bundle / "config.json").write_text(json.dumps(spec))
    result = {}
    for program in ("runc", "crun"):
        script = pathlib.Path(__file__).resolve()
        hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\""
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, script, program, bundle, str(rounds)],
            capture_output=True, text=True, env={"PYTHONPATH": str(script.parents[1]), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        if done.returncode == 0:
            result[f"{program}_ms"] = float(done.stdout)
        else:
            print(f"bare {program}: {done.stderr.strip()[-300:]}", file=sys.stderr)
    return result


def _bare_rounds(program, bundle, rounds):
    times = []
    for n in range(rounds + 5):
        began = time.perf_counter()
        subprocess.run([program, "run", "--bundle", bundle, f"bare-{n}"], check=True, stdin=subprocess.DEVNULL)
        times.append((time.perf_counter() - began) * 1000)
    print(statistics.median(times[5:]))


if __name__ == "__main__":
    _bare_rounds(sys.argv[1], sys.argv[2], int(sys.argv[3]))
