"""Pods as objects and as what runs: their life, status, generation, quality of service, streams, debugging, runtime classes."""

import contextlib
import json
import threading
import time

import websocket
from _conformance import PYTHON, condition, has, is_ready, same, covers, state, status_of
from kubernetes.client.rest import ApiException

SLEEP = "sleep 3600"


@covers("Pods should be submitted and removed")
def submitted_and_removed(t):
    seen = t.watching("pods", "time=now")
    name = t.pod(t.container(SLEEP), labels={"time": "now"})
    t.ready(name)
    same(len(t.list("pods", "time=now")), 1)
    t.delete("pods", name, grace=3)
    t.gone("pods", name)
    t.until(10, lambda: seen[-1:] and seen[-1][0] == "DELETED", "the watch tells of its end")
    same(seen[0][0], "ADDED")
    assert seen[-1][1]["metadata"].get("deletionTimestamp"), seen[-1]
    assert any(e[0] == "MODIFIED" and e[1]["metadata"].get("deletionTimestamp") for e in seen), "its deletion is told before its end"


@covers("Pods should be updated", "Pods should get a host IP")
def updated(t):
    name = t.pod(t.container(SLEEP), labels={"time": "1"})
    pod = t.ready(name)
    assert pod["status"]["hostIP"], pod["status"]
    same(pod["status"]["hostIPs"][0]["ip"], pod["status"]["hostIP"])
    t.modify("pods", name, lambda p: p["metadata"]["labels"].update(time="2"))
    same(len(t.list("pods", "time=2")), 1)
    answer = t.refused(422, t.modify, "pods", name, lambda p: p["spec"]["containers"][0].update(command=["x"]))
    has(answer["message"], "pod updates may not change fields other than")


@covers("Pods should allow activeDeadlineSeconds to be updated")
def deadline(t):
    name = t.pod(t.container(SLEEP))
    t.ready(name)
    t.modify("pods", name, lambda p: p["spec"].update(activeDeadlineSeconds=1))
    pod = t.phase(name, "Failed", seconds=15)
    same(pod["status"]["reason"], "DeadlineExceeded")


@covers("Pods should contain environment variables for services")
def variables_of_services(t):
    t.create("services", {"metadata": {"name": "fooservice"}, "spec": {"ports": [{"port": 8765, "targetPort": 8080}], "selector": {"a": "b"}}})
    text = t.output(t.container(["env"]))
    has(text, "^FOOSERVICE_SERVICE_HOST=", "^FOOSERVICE_SERVICE_PORT=8765$", "^FOOSERVICE_PORT=tcp://", "^FOOSERVICE_PORT_8765_TCP_PORT=8765$",
        "^FOOSERVICE_PORT_8765_TCP_PROTO=tcp$", "^FOOSERVICE_PORT_8765_TCP=tcp://", "^FOOSERVICE_PORT_8765_TCP_ADDR=")


@covers("Pods should delete a collection of pods")
def collection(t):
    for name in ("one", "two", "three"):
        t.pod(t.container(SLEEP), name=name, labels={"type": "Testing"})
    same(len(t.list("pods", "type=Testing")), 3)
    t.delete_all("pods", "type=Testing")
    t.until(20, lambda: not t.list("pods", "type=Testing"), "they are gone")


@covers("Pods should patch a pod status")
def patched_status(t):
    name = t.pod(t.container(SLEEP), labels={"a": "b"})
    t.ready(name)
    same(t.get("pods", name, "status")["metadata"]["name"], name)
    pod = t.patch("pods", name, {"status": {"message": "Patched by e2e test", "reason": "E2E"}}, "status")
    same((pod["status"]["message"], pod["status"]["reason"]), ("Patched by e2e test", "E2E"))
    gate = {"type": "Ours", "status": "True", "reason": "x"}
    pod = t.patch("pods", name, {"status": {"conditions": [gate]}}, "status")
    same(condition(pod, "Ours"), "True")
    time.sleep(0.5)
    same(condition(t.get("pods", name), "Ours"), "True", "the node keeps what others write")


@covers("Pods should run through the lifecycle of Pods and PodStatus")
def life(t):
    seen = t.watching("pods", "test-pod-static=true")
    name = t.pod(t.container(SLEEP), labels={"test-pod": "test", "test-pod-static": "true"})
    t.ready(name)
    t.patch("pods", name, {"metadata": {"labels": {"test-pod": "patched"}}, "spec": {"containers": [{"name": "c", "image": "busybox:latest"}]}})
    t.wait_pod(name, lambda p: p["metadata"]["labels"]["test-pod"] == "patched" and status_of(p).get("restartCount") == 1, "the new image runs")
    status = t.get("pods", name, "status")
    status["status"]["conditions"] = [c | {"status": "False"} if c["type"] == "Ready" else c for c in status["status"]["conditions"]]
    status["metadata"].pop("resourceVersion")
    same(condition(t.replace("pods", status, "status"), "Ready"), "False")
    t.delete_all("pods", "test-pod-static=true")
    t.gone("pods", name)
    t.until(10, lambda: seen[-1:] and seen[-1][0] == "DELETED", "the watch tells of its end")


@covers("Pods should support remote command execution over websockets")
def exec_over_websockets(t):
    name = t.pod(t.container(f"echo container is alive; {SLEEP}"))
    t.ready(name)
    for protocol in ("channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"):
        socket = t.kube.websocket(f"{t.at('pods', name, 'exec')}?stdout=1&stderr=1&container=c&command=echo&command=remote+execution+test", protocol)
        same(socket.subprotocol, protocol)
        out = b""
        with contextlib.closing(socket), contextlib.suppress(websocket.WebSocketConnectionClosedException):
            while b"test" not in out:
                message = socket.recv()
                message = message.encode() if isinstance(message, str) else message
                assert message, "it ended without the output"
                if message[0] == 1:
                    out += message[1:]
        same(out.decode().strip(), "remote execution test")
    same(t.exec(name, "exit 7", status=None)[0], 7)


@covers("Pods should support retrieving logs from the container over websockets")
def logs_over_websockets(t):
    name = t.pod(t.container(f"echo container is alive; {SLEEP}"))
    t.ready(name)
    socket = t.kube.websocket(f"{t.at('pods', name, 'log')}?container=c", "binary.k8s.io")
    out = b""
    with contextlib.closing(socket), contextlib.suppress(websocket.WebSocketConnectionClosedException):
        while message := socket.recv():
            out += message.encode() if isinstance(message, str) else message
    same(out.decode(), "container is alive\n")


@covers("Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu")
def qos(t):
    both = {"cpu": "100m", "memory": "100Mi"}
    name = t.pod(t.container(SLEEP, resources={"requests": both, "limits": both}))
    same(t.get("pods", name)["status"]["qosClass"], "Guaranteed")


@covers("Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update",
       "Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete")
def generation(t):
    body = {"metadata": {"name": "gen", "generation": 100}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [
        t.container(SLEEP, resources={"requests": {"cpu": "10m"}})]}}
    same(t.create("pods", body)["metadata"]["generation"], 1)
    t.ready("gen")
    same(t.patch("pods", "gen", {"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"], 1, "labels do not count")
    same(t.patch("pods", "gen", {"spec": {"activeDeadlineSeconds": 5000}})["metadata"]["generation"], 2)
    t.modify("pods", "gen", lambda p: p["spec"]["tolerations"].append({"key": "k", "operator": "Exists"}))
    same(t.get("pods", "gen")["metadata"]["generation"], 3)
    t.patch("pods", "gen", {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "20m"}}}]}}, "resize")
    same(t.get("pods", "gen")["metadata"]["generation"], 4)
    t.patch("pods", "gen", {"spec": {"ephemeralContainers": [t.container(SLEEP, name="e")]}}, "ephemeralcontainers")
    pod = t.wait_pod("gen", lambda p: p["status"].get("observedGeneration") == 5, "generation 5 is observed")
    same(pod["metadata"]["generation"], 5)
    t.delete("pods", "gen")
    same(t.get("pods", "gen")["metadata"]["generation"], 6, "a graceful deletion counts")
    t.gone("pods", "gen")


@covers("Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge")
def generations(t):
    name = t.pod(t.container(SLEEP))
    t.ready(name)
    for i in range(499):
        t.patch("pods", name, {"spec": {"activeDeadlineSeconds": 10000 - i}})
    pod = t.wait_pod(name, lambda p: p["status"].get("observedGeneration") == 500, "they meet")
    same(pod["metadata"]["generation"], 500)


@covers("Ephemeral Containers will start an ephemeral container in an existing pod",
       "Ephemeral Containers should update the ephemeral containers in an existing pod")
def ephemeral(t):
    name = t.pod(t.container(SLEEP))
    t.ready(name)
    debugger = t.container(f"while true; do echo polo; sleep 2; done", name="debugger", stdin=True, tty=True)
    t.patch("pods", name, {"spec": {"ephemeralContainers": [debugger]}}, "ephemeralcontainers")
    runs = lambda which: lambda p: state(p, "running", which, "ephemeralContainerStatuses")  # noqa: E731
    t.wait_pod(name, runs("debugger"), "the debugger runs")
    t.until(10, lambda: "polo" in t.log(name, "debugger"), "it says something")
    has(t.exec(name, "echo", "marco", container="debugger"), "marco")
    pod = t.get("pods", name)
    pod["spec"]["ephemeralContainers"].append(t.container(SLEEP, name="debugger2"))
    t.replace("pods", pod, "ephemeralcontainers")
    pod = t.wait_pod(name, runs("debugger2"), "the second runs")
    same([c["name"] for c in pod["spec"]["ephemeralContainers"]], ["debugger", "debugger2"])
    pod["spec"]["ephemeralContainers"].pop()
    t.refused(422, t.replace, "pods", pod, "ephemeralcontainers")


HOOKED = """
import http.server, sys
class Server(http.server.BaseHTTPRequestHandler):
    seen = []
    def do_GET(self):
        if self.path.startswith('/echo'):
            Server.seen.append(self.path)
        body = ' '.join(Server.seen).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 8080), Server).serve_forever()
"""


@covers(*(f"Container Lifecycle Hook when create a pod with lifecycle hook should execute {when} {how} hook properly"
         for when in ("poststart", "prestop") for how in ("exec", "http")), "PreStop should call prestop when killing a pod")
def hooks(t):
    server = t.pod(t.container(["python3", "-c", HOOKED], PYTHON, readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1}))
    address = t.ready(server)["status"]["podIP"]
    for when in ("postStart", "preStop"):
        for how in ("exec", "http"):
            mark = f"{when}-{how}"
            hook = ({"exec": {"command": ["wget", "-qO-", f"http://{address}:8080/echo?{mark}"]}} if how == "exec" else
                    {"httpGet": {"host": address, "port": 8080, "path": f"/echo?{mark}"}})
            name = t.pod(t.container(SLEEP, lifecycle={when: hook}), terminationGracePeriodSeconds=10)
            t.ready(name)
            seen = lambda m=mark: m in t.exec(server, f"python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8080/\").read())'")  # noqa: E731
            if when == "preStop":
                assert not seen()
                t.delete("pods", name, grace=5)
            t.until(10, seen, mark)


@covers("RuntimeClass should reject a Pod requesting a non-existent RuntimeClass", "RuntimeClass should reject a Pod requesting a deleted RuntimeClass",
       "RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead",
       "RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead")
def runtime_classes(t):
    answer = t.refused(403, t.pod, t.container(SLEEP), runtimeClassName=f"{t.ns}-none")
    has(answer["message"], "RuntimeClass .*not found")
    name = f"{t.ns}-gone"
    t.create("runtimeclasses", {"metadata": {"name": name}, "handler": "runc"})
    t.delete("runtimeclasses", name)
    t.gone("runtimeclasses", name)
    t.refused(403, t.pod, t.container(SLEEP), runtimeClassName=name)
    overhead = {"cpu": "10m", "memory": "1Mi"}
    for suffix, fixed in (("plain", None), ("heavy", overhead)):
        name = f"{t.ns}-{suffix}"
        t.create("runtimeclasses", {"metadata": {"name": name}, "handler": "tripod", **({"overhead": {"podFixed": fixed}} if fixed else {})})
        pod = t.get("pods", t.pod(t.container(SLEEP), runtimeClassName=name))
        same(pod["spec"].get("overhead"), fixed)
        t.ready(pod["metadata"]["name"])


@covers("ImageVolume should succeed with pod and pull policy of Always")
def image_volumes(t):
    mount = {"name": "v", "mountPath": "/volume"}
    for policy, image in (("Always", "busybox"), ("IfNotPresent", "kennethreitz/httpbin")):
        name = t.pod(t.container(SLEEP, volumeMounts=[mount, {**mount, "mountPath": "/part", "subPath": "etc"}]),
                     volumes=[{"name": "v", "image": {"reference": image, "pullPolicy": policy}}])
        t.ready(name)
        has(t.exec(name, "cat", "/volume/etc/passwd"), "^root:")
        has(t.exec(name, "cat", "/part/group"), "^root:")
        has(t.exec(name, "touch /volume/x", status=1), "Read-only")
    name = t.pod(t.container(SLEEP, volumeMounts=[mount]), volumes=[{"name": "v", "image": {"reference": "nobody/nothing:1", "pullPolicy": "Never"}}])
    t.wait_pod(name, lambda p: state(p, "waiting").get("reason") == "ErrImageNeverPull", "it says what is missing")


@covers("Node Lifecycle should run through the lifecycle of a node")
def nodes(t):
    name = f"{t.ns}-fake"
    t.create("nodes", {"metadata": {"name": name, "labels": {"fake": name}}})
    t.patch("nodes", name, {"metadata": {"labels": {name: "patched"}}})
    same([n["metadata"]["name"] for n in t.list("nodes", f"{name}=patched")], [name])
    t.modify("nodes", name, lambda n: n["metadata"]["labels"].update({name: "updated"}))
    same(len(t.list("nodes", f"{name}=updated")), 1)
    t.delete("nodes", name)
    t.gone("nodes", name)


@covers("NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction", "NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds",
       alone=True)
def taints(t):
    node = t.list("nodes")[0]["metadata"]["name"]
    taint = {"key": "kubernetes.io/e2e-evict", "value": "v", "effect": "NoExecute"}

    def tolerant(seconds):
        return t.pod(t.container(SLEEP), tolerations=[{**taint, "operator": "Equal", "tolerationSeconds": seconds}])
    pods = [tolerant(s) for s in (2, 4, 100)]
    for name in pods:
        t.ready(name)
    set_taints = lambda taints: t.modify("nodes", node, lambda n: n["spec"].update(taints=taints))  # noqa: E731
    set_taints([taint])
    try:
        t.gone("pods", pods[0], 8)
        assert t.find("pods", pods[1]), "the second stays as long as it may"
        t.gone("pods", pods[1], 8)
        single = tolerant(3)
        t.ready(single)
    finally:
        set_taints([])
    time.sleep(4)
    for name in (pods[2], single):
        assert is_ready(t.get("pods", name)), f"{name} was evicted"


@covers("Lease lease API should be available")
def leases(t):
    made = t.create("leases", {"metadata": {"name": "lease"}, "spec": {
        "holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": "2025-01-02T03:04:05.000006Z",
        "renewTime": "2025-01-02T03:04:06.000007Z", "leaseTransitions": 0}})
    same(t.get("leases", "lease")["spec"], made["spec"])
    t.modify("leases", "lease", lambda o: o["spec"].update(holderIdentity="holder2", leaseDurationSeconds=60, leaseTransitions=1))
    t.patch("leases", "lease", {"spec": {"leaseDurationSeconds": 42}})
    same(t.get("leases", "lease")["spec"]["leaseDurationSeconds"], 42)
    t.create("leases", {"metadata": {"name": "lease2", "labels": {"deletecollection": "true"}}})
    same(len(t.list("leases")), 2)
    t.delete_all("leases", "deletecollection=true")
    same([o["metadata"]["name"] for o in t.list("leases")], ["lease"])
    t.delete("leases", "lease")
    t.gone("leases", "lease")


def shared(t):
    """Not on the list: the processes of a pod see each other, and outlive the container that came first."""
    name = t.pod(t.container("sleep 1", name="first"), t.container(SLEEP, name="second"), shareProcessNamespace=True, restartPolicy="Always")
    t.ready(name)
    pod = t.wait_pod(name, lambda p: status_of(p, "first").get("restartCount", 0) > 0 and is_ready(p), "the first runs again")
    same(status_of(pod, "second")["restartCount"], 0)
    has(t.exec(name, "ps", container="second"), "sleep 1")


covers()(shared)
_ = (json, threading, ApiException)
