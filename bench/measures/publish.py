"""What a virtual address or a published port costs: new connections and throughput against the container itself.

Four ways lead to the same server, each against the direct way that is nearest to it:

- `vip`: from a container on the overlay to the service's virtual address; direct: to the own address of another
  service's replica (the same one would meet its own connections that linger in the connection table of this kernel: a
  clash of address pairs that a client meets only when it goes both ways at once);
- `mesh`: from a neighbour host to the port published by the service; direct: as above, from a container;
- `port`: from a neighbour host to a port published by a container on a bridge; direct: from this host to its address;
- `local`: from this host to that published port at this host's address; direct: the same.

Direct and indirect runs alternate; a ratio is of medians.
"""

import io
import json
import re
import shutil
import statistics
import subprocess
import tarfile
import time

from harness.api import run_container, service_spec

TITLE = "published ports and virtual addresses: ratio to the container's own address"
ENGINES = ("tripod",)
HOST = "192.0.2.1"


def run(engine, options):
    engine.start()
    engine.load("quantum-game.tar", "busybox.tar")
    engine.swarm()
    api = engine.api()
    api.call("POST", "/images/create", raw=iperf_image(), fromSrc="-", repo="bench-iperf", tag="latest")
    network = api.post("/networks/create", {"Name": "net", "Driver": "overlay", "Attachable": True})["Id"]
    commands = {"web": ("spkane/quantum-game:latest", None, 8080), "iperf": ("bench-iperf:latest", ["/iperf3", "-s"], 5201)}
    direct, vip = {}, {}
    for name, (image, command, port) in commands.items():
        spec = service_spec(name, 1, command, image, [network], [{"PublishedPort": port + 1000, "TargetPort": port}])
        _, vip[name] = service_addresses(api, spec)
        direct[name], _ = service_addresses(api, service_spec(f"{name}-direct", 1, command, image, [network], []))
    client = run_container(api, "client", ["sleep", "1000000"], NetworkMode="net")
    bridge = {}
    for name, (image, command, port) in commands.items():
        host = {"PortBindings": {f"{port}/tcp": [{"HostPort": str(port + 2000)}]}}
        made = api.post("/containers/create", {
            "Image": image, "HostConfig": host, "ExposedPorts": {f"{port}/tcp": {}}, **({"Cmd": command} if command else {})})
        api.post(f"/containers/{made['Id']}/start")
        bridge[name] = api.get(f"/containers/{made['Id']}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    inside = ["nsenter", "-t", str(api.get(f"/containers/{client}/json")["State"]["Pid"]), "-n"]
    outside = ["ip", "netns", "exec", "outside"]
    ways = {
        "overlay_direct": (inside, direct, 0), "vip": (inside, vip, 0), "mesh": (outside, None, 1000),
        "bridge_direct": ([], bridge, 0), "port": (outside, None, 2000), "local": ([], None, 2000),
    }
    targets = {way: (where, {n: (a[n] if a else HOST, commands[n][2] + shift) for n in commands})
               for way, (where, a, shift) in ways.items()}
    for where, address in targets.values():
        wait_open(where, *address["web"])
        wait_open(where, *address["iperf"])
    seconds, rounds = (2, 1) if options.quick else (4, 3)
    samples = {way: ([], []) for way in targets}
    for _ in range(rounds):
        for way, (where, address) in targets.items():
            samples[way][0].append(connections(where, *address["web"], seconds))
            samples[way][1].append(throughput(where, *address["iperf"], seconds))
    result = {}
    for way, (rates, gbits) in samples.items():
        result[f"{way}_conn_per_s"] = statistics.median(rates)
        result[f"{way}_gbit_s"] = statistics.median(gbits)
    for way, base in (("vip", "overlay_direct"), ("mesh", "overlay_direct"), ("port", "bridge_direct"), ("local", "bridge_direct")):
        for unit in ("conn_per_s", "gbit_s"):
            result[f"{way}_{unit}_ratio"] = result[f"{way}_{unit}"] / result[f"{base}_{unit}"]
    return result


def service_addresses(api, spec):
    """Makes a service of one replica; returns (the replica's address, the virtual address) on its overlay."""
    api.post("/services/create", spec)
    network = spec["TaskTemplate"]["Networks"][0]["Target"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        tasks = api.get("/tasks", filters={"service": [spec["Name"]]})
        if tasks and tasks[0]["Status"]["State"] == "running":
            own = [a["Addresses"][0] for a in tasks[0]["NetworksAttachments"] if a["Network"]["ID"] == network]
            virtual = [v["Addr"] for v in api.get(f"/services/{spec['Name']}")["Endpoint"]["VirtualIPs"] if v["NetworkID"] == network]
            return own[0].split("/")[0], virtual[0].split("/")[0]
        time.sleep(0.05)
    raise RuntimeError(f"{spec['Name']} does not run: {tasks}")


def wait_open(where, address, port):
    """Waits until the port takes connections from there."""
    test = ["timeout", "1", "bash", "-c", f"</dev/tcp/{address}/{port}"]
    for _ in range(100):
        if subprocess.run(where + test, stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{address}:{port} does not answer from {where or 'this host'}")


def connections(where, address, port, seconds):
    """New connections per second, one request on each, by eight clients."""
    done = subprocess.run(
        where + ["wrk", "-t1", "-c8", f"-d{seconds}s", "-H", "Connection: close", f"http://{address}:{port}/"],
        capture_output=True, text=True, check=True)
    failed = re.search(r"Socket errors: (.*)|Non-2xx.*", done.stdout)
    if failed and not re.fullmatch(r"Socket errors: connect 0, read \d+, write 0, timeout 0", failed.group(0)):
        raise RuntimeError(f"{address}:{port}: {failed.group(0)}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout).group(1))


def throughput(where, address, port, seconds):
    """Gbit/s received by the server over one connection."""
    done = subprocess.run(where + ["iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J"],
                          capture_output=True, text=True)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise RuntimeError(f"iperf3 {address}:{port}: {answer['error']}")
    return answer["end"]["sum_received"]["bits_per_second"] / 1e9


def iperf_image():
    """A root file system with iperf3 and the libraries it names, as a tar archive for import."""
    program = shutil.which("iperf3")
    libraries = re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", program], text=True))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        archive.add(program, "iperf3")
        for library in libraries:
            archive.add(library, library.lstrip("/"))
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    return content.getvalue()
