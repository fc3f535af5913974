"""The Kubernetes API and scheduler: from a cold start to a ready node, pods, writes, lists, watches, placement.

Simulated nodes are objects that the API is told are ready; pods bound to them are only bound.
"""

import base64
import http.client
import json
import pathlib
import selectors
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse

from harness import procs
from harness.api import Api

TITLE = "the Kubernetes API, its scheduler and pods"
ENGINES = ("tripod",)
IMAGE = "busybox:latest"


class Kube:
    """The API as its administrator."""

    def __init__(self, config):
        text = config.read_text()
        found = {line.split(": ", 1)[0].strip(): line.split(": ", 1)[1].strip() for line in text.splitlines() if ": " in line}
        self.address = urllib.parse.urlsplit(found["server"])
        self.context = ssl.create_default_context(cadata=base64.b64decode(found["certificate-authority-data"]).decode())
        names = []
        for name in ("client-certificate-data", "client-key-data"):
            file = config.with_name(name)
            file.write_bytes(base64.b64decode(found[name]))
            names.append(str(file))
        self.context.load_cert_chain(*names)
        self.connection = None

    def connect(self):
        return http.client.HTTPSConnection(self.address.hostname, self.address.port, timeout=120, context=self.context)

    def raw(self, method, path, body=None):
        """Status and bytes of an answer."""
        self.connection = self.connection or self.connect()
        text = json.dumps(body) if body is not None else None
        self.connection.request(method, path, text, {"Content-Type": "application/json", "Accept": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def call(self, method, path, body=None):
        status, text = self.raw(method, path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {text[:400]!r}")
        return json.loads(text)

    def socket(self):
        """A connection for requests that are written by hand."""
        plain = socket.create_connection((self.address.hostname, self.address.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(plain, server_hostname=self.address.hostname)


def until(condition, seconds, pause=0.002):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s")
        time.sleep(pause)


def median(values):
    return sorted(values)[len(values) // 2]


def run(engine, options):
    quick = options.quick
    result = {}
    kube = cold_start(engine, result)
    engine.load("busybox.tar")
    result["idle_rss_mb"] = resident(engine)
    pods(kube, result, 10 if quick else 50)
    writes(kube, result, 2 if quick else 6)
    watchers(kube, result, 20 if quick else 100, 200 if quick else 1000)
    many, nodes = (2000, 200) if quick else (10000, 1000)
    simulated(kube, nodes)
    deployment(kube, result, 200 if quick else 1000)
    waiting(kube, result, many)
    listing(engine, kube, result)
    result["loaded_rss_mb"] = resident(engine)
    result["loaded_pods"], result["loaded_nodes"] = many, nodes
    return result


def resident(engine):
    """Megabytes, 10 s after the last request, as in `idle`."""
    time.sleep(10)
    return sum(procs.memory(pid)[0] for pid in engine.pids()) / 1e6


def cold_start(engine, result):
    """From the daemon's start, with an empty data root, until the API is ready, a node is, and a pod can be made."""
    began = time.monotonic()
    engine.start()
    api = Api(engine.socket)
    api.post("/swarm/init", {"ListenAddr": "192.0.2.1:2377", "AdvertiseAddr": "192.0.2.1"})
    config = pathlib.Path(engine.root) / "data/kube/admin.conf"
    until(config.exists, 30)
    kube = Kube(config)

    def ready():
        try:
            return kube.raw("GET", "/readyz")[0] == 200
        except OSError:
            kube.connection = None
            return False
    until(ready, 30)
    result["readyz_ms"] = (time.monotonic() - began) * 1000

    def node():
        conditions = [c for n in kube.call("GET", "/api/v1/nodes")["items"] for c in n.get("status", {}).get("conditions", [])]
        account = kube.raw("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200
        return account and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    until(node, 30)
    result["node_ready_ms"] = (time.monotonic() - began) * 1000
    return kube


def pod(name, **spec):
    return {"metadata": {"name": name, "labels": {"app": "bench"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}], **spec}}


def pods(kube, result, many):
    """Create until Running: one after the other, and many at once."""
    path = "/api/v1/namespaces/default/pods"

    def phase(name):
        return kube.call("GET", f"{path}/{name}").get("status", {}).get("phase")
    took = []
    for i in range(12):
        began = time.monotonic()
        kube.call("POST", path, pod(f"one{i}"))
        until(lambda: phase(f"one{i}") == "Running", 60, 0.005)
        took.append((time.monotonic() - began) * 1000)
    result["pod_running_ms"] = median(took[2:])
    began = time.monotonic()
    for i in range(many):
        kube.call("POST", path, pod(f"many{i}"))

    def all_run():
        items = kube.call("GET", f"{path}?labelSelector=app%3Dbench")["items"]
        return sum(p.get("status", {}).get("phase") == "Running" for p in items) >= many + 12
    until(all_run, 300, 0.05)
    result[f"pods_{many}_running_s"] = time.monotonic() - began
    kube.call("DELETE", path)
    until(lambda: not kube.call("GET", path)["items"], 120, 0.1)


def writes(kube, result, seconds):
    """ConfigMaps made per second over TLS, each answered when it is on disk."""
    for clients in (1, 16):
        result[f"configmaps_{clients}_per_s"] = storm(kube, clients, seconds)


def storm(kube, clients, seconds):
    selector = selectors.DefaultSelector()
    sent = answered = 0

    def request():
        nonlocal sent
        sent += 1
        body = json.dumps({"metadata": {"name": f"c{clients}-{sent}"}, "data": {"k": "v" * 100}}).encode()
        return (f"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    for _ in range(clients):
        connection = kube.socket()
        connection.sendall(request())
        selector.register(connection, selectors.EVENT_READ)
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        for key, _ in selector.select(1):
            answer = key.fileobj.recv(65536)
            if not answer.startswith(b"HTTP/1.1 201 "):
                raise RuntimeError(f"unexpected answer: {answer[:400]!r}")
            while not answer.endswith((b"}\n", b"}")):
                answer += key.fileobj.recv(65536)
            answered += 1
            key.fileobj.sendall(request())
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    kube.call("DELETE", "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%21%3Dkube-root-ca.crt")
    return answered / (now - began)


def watchers(kube, result, watchers_, updates):
    """So many watchers of one object that is changed so often; until the last has seen the last change."""
    kube.call("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "watched", "labels": {"w": "y"}}, "data": {"n": "-1"}})
    path = "/api/v1/namespaces/default/configmaps?watch=1&labelSelector=w%3Dy&resourceVersion=" + kube.call("GET", "/api/v1/namespaces/default/configmaps")["metadata"]["resourceVersion"]
    selector = selectors.DefaultSelector()
    for _ in range(watchers_):
        connection = kube.socket()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode())
        selector.register(connection, selectors.EVENT_READ, [0])
    time.sleep(0.5)
    began = time.monotonic()

    def change():
        own = Kube.__new__(Kube)
        own.__dict__.update(kube.__dict__, connection=None)
        for n in range(updates):
            own.call("PUT", "/api/v1/namespaces/default/configmaps/watched", {"metadata": {"name": "watched", "labels": {"w": "y"}}, "data": {"n": str(n)}})
    writer = threading.Thread(target=change)
    writer.start()
    left = watchers_
    while left:
        for key, _ in selector.select(30) or [(None, None)]:
            if key is None:
                raise RuntimeError(f"{left} watchers wait for events")
            piece = key.fileobj.recv(1 << 20)
            key.data[0] += piece.count(b'"type":"MODIFIED"')
            if key.data[0] >= updates:
                left -= 1
                selector.unregister(key.fileobj)
                key.fileobj.close()
    writer.join()
    result[f"watch_{watchers_}x{updates}_s"] = time.monotonic() - began


def simulated(kube, count):
    amounts = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    for i in range(count):
        name = f"simulated-{i:04}"
        kube.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"simulated": "yes", "kubernetes.io/hostname": name}}, "status": {
            "capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": ""}]}})
    until(lambda: not any(n.get("spec", {}).get("taints") for n in kube.call("GET", "/api/v1/nodes?labelSelector=simulated%3Dyes")["items"]), 60, 0.2)


TEMPLATE = {"nodeSelector": {"simulated": "yes"}, "containers": [{"name": "c", "image": IMAGE, "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}


def bound(kube, label):
    return sum(bool(p["spec"].get("nodeName")) for p in kube.call("GET", f"/api/v1/namespaces/default/pods?labelSelector=app%3D{label}")["items"])


def deployment(kube, result, replicas):
    """A Deployment until all its replicas are bound."""
    body = {"metadata": {"name": "wide"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "wide"}}, "template": {"metadata": {"labels": {"app": "wide"}}, "spec": TEMPLATE}}}
    began = time.monotonic()
    kube.call("POST", "/apis/apps/v1/namespaces/default/deployments", body)
    until(lambda: bound(kube, "wide") == replicas, 120, 0.02)
    result[f"deployment_{replicas}_s"] = time.monotonic() - began
    kube.call("DELETE", "/apis/apps/v1/namespaces/default/deployments/wide")


def waiting(kube, result, many):
    """Pods that wait for a label that no node has; from the first node that gets it until all are bound."""
    path = "/api/v1/namespaces/default/pods"
    body = {"metadata": {"name": "", "labels": {"app": "waits"}}, "spec": {**TEMPLATE, "nodeSelector": {"simulated": "yes", "open": "yes"}}}
    connection = kube.socket()
    for i in range(many):
        body["metadata"]["name"] = f"waits-{i:05}"
        text = json.dumps(body).encode()
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        answer = b""
        while not answer.endswith((b"}\n", b"}")):
            answer += connection.recv(65536)
        if not answer.startswith(b"HTTP/1.1 201 "):
            raise RuntimeError(f"unexpected answer: {answer[:400]!r}")
    connection.close()
    if bound(kube, "waits"):
        raise RuntimeError("pods are bound before there is a node for them")
    names = [n["metadata"]["name"] for n in kube.call("GET", "/api/v1/nodes?labelSelector=simulated%3Dyes")["items"]]
    own = Kube.__new__(Kube)
    own.__dict__.update(kube.__dict__, connection=None)
    began = time.monotonic()
    for name in names:
        label(own, name)
    result["labels_s"] = time.monotonic() - began
    until(lambda: bound(kube, "waits") == many, 300, 0.05)
    result["scheduled_per_s"] = many / (time.monotonic() - began)


def label(kube, name):
    kube.connection = kube.connection or kube.connect()
    kube.connection.request("PATCH", f"/api/v1/nodes/{name}", json.dumps({"metadata": {"labels": {"open": "yes"}}}), {"Content-Type": "application/merge-patch+json"})
    answer = kube.connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{name}: {answer.status}")


def listing(engine, kube, result):
    took = []
    for _ in range(5):
        began = time.monotonic()
        _, text = kube.raw("GET", "/api/v1/pods")
        took.append((time.monotonic() - began) * 1000)
    result["list_ms"], result["list_mb"] = median(took), len(text) / 1e6
    config = str(pathlib.Path(engine.root) / "data/kube/admin.conf")
    took = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(["kubectl", "--kubeconfig", config, "get", "pods", "-A"], check=True, stdout=subprocess.DEVNULL)
        took.append(time.monotonic() - began)
    result["kubectl_get_pods_s"] = median(took)
