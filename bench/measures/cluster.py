"""Three managers and a worker, each on a host of its own (network namespaces on one switch, one disk).

Durable writes against a three-node etcd on the same hosts and disk, in the same run; the time without writes after the
leader was killed; the memory of an idle manager and an idle worker; and the routing mesh through a node that has no
replica, against a container on that node that asks the replica's own address, over the same VXLAN.

Writes of etcd go through its native HTTP interface (`/v2/keys`) and through the JSON form of its present one
(`/v3/kv/put`); the faster of the two is what Tripod is compared with. All clients ask the leader.
"""

import base64
import http.client
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time

from harness import procs
from harness.api import Api, run_container, service_spec
from harness.engines import PROJECT
from measures.publish import iperf_image, service_addresses, throughput, wait_open
from measures.writes import storm

TITLE = "three managers and a worker"
ENGINES = ("tripod",)


def run(engine, options):
    os.environ["TRIPOD"] = engine.program
    os.environ.setdefault("TRIPOD_IMAGES", str(PROJECT / "target/images"))
    sys.path.insert(0, str(PROJECT / "tests/acceptance"))
    import _cluster  # finds $WORK and the machine that one.py runs on
    hosts = _cluster.cluster(3, 1)
    try:
        return measure(_cluster, hosts, options)
    except BaseException:
        for host in hosts:
            print(f"# {host.name}\n{host.log.read_text()[-1500:]}", file=sys.stderr)
        raise
    finally:
        for host in hosts:
            host.init.kill()


def measure(_cluster, hosts, options):
    seconds = 3 if options.quick else 8
    result = {}
    # Whatever an engine starts with its first container is there and counted.
    for host in hosts:
        api = Api(str(host.socket))
        api.call("POST", "/images/create", raw=iperf_image(), fromSrc="-", repo="bench-iperf", tag="latest")
        made = run_container(api, "first", ["/iperf3", "-v"], image="bench-iperf:latest")
        api.post(f"/containers/{made}/wait")
        api.delete(f"/containers/{made}")
        api.close()
    time.sleep(5 if options.quick else 10)
    follower = next(h for h in hosts[:3] if h.name != hosts[0].leader())
    leader = _cluster.leader_of(hosts[:3])
    for name, host in (("leader", leader), ("manager", follower), ("worker", hosts[3])):
        result[f"{name}_rss_mb"] = memory(host)
    result.update(mesh(hosts, options))
    storm(str(leader.socket), 1, 1, "w")
    for clients in (1, 16):
        result[f"clients_{clients}_per_s"] = storm(str(leader.socket), clients, seconds, f"c{clients}")
    gaps = []
    for _ in range(1 if options.quick else 3):
        leader = _cluster.leader_of(hosts[:3])
        rest = [h for h in hosts[:3] if h is not leader]
        with _cluster.Writers(rest) as writers:
            killed = time.monotonic()
            leader.kill()
            time.sleep(5)
        kept = {c["Spec"]["Name"] for c in rest[0].get("/configs").json}
        if lost := [name for _, name in writers.acknowledged if name not in kept]:
            raise RuntimeError(f"acknowledged writes are lost: {lost[:5]}")
        gaps.append(writers.gap(killed))
        for name in kept:
            if name.startswith("w"):
                rest[0].delete(f"/configs/{name}")
        leader.start()
        time.sleep(2)
    result["failover_gap_s"] = max(gaps)
    for host in hosts:
        host.stop()
    result.update(etcd(hosts[:3], seconds))
    for clients in (1, 16):
        best = max(result[f"etcd_{form}_clients_{clients}_per_s"] for form in ("v2", "v3"))
        result[f"clients_{clients}_of_etcd"] = result[f"clients_{clients}_per_s"] / best
    return result


def memory(host):
    """MB that the host's daemon and keeper have resident."""
    namespace = os.readlink(f"/proc/{host.first}/ns/pid")
    pids = [pid for pid in procs.processes(os.path.basename(os.environ["TRIPOD"])) if os.readlink(f"/proc/{pid}/ns/pid") == namespace]
    return sum(procs.memory(pid)[0] for pid in pids) / 1e6


def mesh(hosts, options):
    """Throughput to a replica on the worker: through the first host's published port, and from a container there."""
    api = Api(str(hosts[0].socket))
    network = api.post("/networks/create", {"Name": "net", "Driver": "overlay", "Attachable": True})["Id"]
    spec = service_spec("iperf", 1, ["/iperf3", "-s"], "bench-iperf:latest", [network], [{"PublishedPort": 6201, "TargetPort": 5201}])
    spec["TaskTemplate"]["Placement"] = {"Constraints": ["node.hostname==h4"]}
    own, _ = service_addresses(api, spec)
    client = run_container(api, "client", ["/iperf3", "-s", "-p", "1"], image="bench-iperf:latest", NetworkMode="net")
    pid = api.get(f"/containers/{client}/json")["State"]["Pid"]
    inside = hosts[0].command("nsenter", "-t", pid, "-n")
    ways = {"direct": (inside, own, 5201), "mesh": ([], hosts[0].address, 6201)}
    for where, address, port in ways.values():
        wait_open(where, address, port)
    samples = {way: [] for way in ways}
    for _ in range(1 if options.quick else 5):
        for way, (where, address, port) in ways.items():
            samples[way].append(throughput(where, address, port, 2 if options.quick else 4))
    api.delete("/services/iperf")
    api.delete(f"/containers/{client}", force="1")
    api.close()
    result = {f"mesh_{way}_gbit_s": statistics.median(values) for way, values in samples.items()}
    result["mesh_ratio"] = result["mesh_mesh_gbit_s"] / result["mesh_direct_gbit_s"]
    return result


def etcd(hosts, seconds):
    """Puts of 1 KiB per second, to etcd's leader."""
    peers = ",".join(f"{h.name}=http://{h.address}:2380" for h in hosts)
    servers = []
    try:
        for host in hosts:
            url = f"http://{host.address}"
            command = ["etcd", "--name", host.name, "--data-dir", host.folder / "etcd", "--listen-peer-urls", f"{url}:2380",
                       "--initial-advertise-peer-urls", f"{url}:2380", "--listen-client-urls", f"{url}:2379",
                       "--advertise-client-urls", f"{url}:2379", "--initial-cluster", peers, "--enable-v2=true", "--logger=zap"]
            log = open(host.folder / "etcd.log", "wb")
            servers.append(subprocess.Popen(host.command(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        leader = etcd_leader(hosts)
        result = {}
        for form in ("v2", "v3"):
            puts(leader, form, 1, 1)
            for clients in (1, 16):
                result[f"etcd_{form}_clients_{clients}_per_s"] = puts(leader, form, clients, seconds)
        return result
    finally:
        for server in servers:
            server.kill()


def etcd_leader(hosts):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for host in hosts:
            try:
                connection = http.client.HTTPConnection(host.address, 2379, timeout=2)
                connection.request("GET", "/v2/stats/self")
                if json.loads(connection.getresponse().read())["state"] == "StateLeader":
                    return host.address
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                continue
        time.sleep(0.2)
    raise RuntimeError("etcd elects no leader:\n" + (hosts[0].folder / "etcd.log").read_text()[-2000:])


def puts(address, form, clients, seconds):
    """Answered puts per second by clients that each wait for the answer; see `writes.storm`."""
    content = os.urandom(1024)
    selector = selectors.DefaultSelector()
    sent = answered = 0

    def request():
        nonlocal sent
        sent += 1
        if form == "v3":
            key = base64.b64encode(f"{clients}-{sent}".encode()).decode()
            body = json.dumps({"key": key, "value": base64.b64encode(content).decode()}).encode()
            head = "POST /v3/kv/put HTTP/1.1\r\nContent-Type: application/json"
        else:
            body = b"value=" + base64.urlsafe_b64encode(content).rstrip(b"=")
            head = f"PUT /v2/keys/{clients}-{sent} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded"
        return f"{head}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    for _ in range(clients):
        client = socket.create_connection((address, 2379))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(request())
        selector.register(client, selectors.EVENT_READ)
    began = time.monotonic()
    end = began + seconds
    while (now := time.monotonic()) < end:
        for key, _ in selector.select(1):
            answer = key.fileobj.recv(65536)
            if not answer.startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 200 ")):
                raise RuntimeError(f"unexpected answer: {answer[:400]!r}")
            while not answer.rstrip().endswith((b"}", b"0")):
                answer += key.fileobj.recv(65536)
            answered += 1
            key.fileobj.sendall(request())
    rate = answered / (now - began)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return rate
