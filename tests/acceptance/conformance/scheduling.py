"""The scheduler: what it respects, and whom it moves out of the way."""

import re

from _kube import MERGE, Case, alone, change, condition, create, delete, get, gone, ok, patch, pod, pod_spec, read, refused, request, shows, until, workload

KEY = "example.com/fakecpu"


def node():
    return read("/api/v1/nodes")["items"][0]


class Predicates(Case):
    def setUp(self):
        super().setUp()
        self.node = node()["metadata"]["name"]

    def unschedulable(self, name, *parts):
        message = until(lambda: condition(read(f"{self.v1}/pods/{name}"), "PodScheduled", "message"))
        self.assertEqual(condition(read(f"{self.v1}/pods/{name}"), "PodScheduled", "reason"), "Unschedulable")
        for part in parts:
            self.assertIn(part, message)
        until(lambda: [e for e in read(f"{self.v1}/events", fieldSelector=f"involvedObject.name={name},reason=FailedScheduling")["items"]])

    def extended(self, amount):
        """Gives the node a resource that only these tests know."""
        path = f"/api/v1/nodes/{self.node}/status"
        escaped = KEY.replace("/", "~1")
        ok(request("PATCH", path, [{"op": "add", "path": f"/status/capacity/{escaped}", "value": str(amount)}, {"op": "add", "path": f"/status/allocatable/{escaped}", "value": str(amount)}],
                   "application/json-patch+json"))
        self.addCleanup(request, "PATCH", path, [{"op": "remove", "path": f"/status/capacity/{escaped}"}, {"op": "remove", "path": f"/status/allocatable/{escaped}"}], "application/json-patch+json")

    @shows("SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run")
    @alone
    def test_resources(self):
        found = node()["status"]["allocatable"]["cpu"]
        whole = int(found[:-1]) if found.endswith("m") else int(float(found) * 1000)
        used = 0
        for p in read("/api/v1/pods")["items"]:
            if p["spec"].get("nodeName") and p["status"].get("phase") not in ("Succeeded", "Failed"):
                for c in p["spec"].get("containers", []):
                    text = c.get("resources", {}).get("requests", {}).get("cpu", "0")
                    used += int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)
        share = (whole - used) * 7 // 10
        create(f"{self.v1}/pods", pod("filler", resources={"requests": {"cpu": f"{share}m"}, "limits": {"cpu": f"{share}m"}}))
        self.running("filler")
        create(f"{self.v1}/pods", pod("extra", resources={"requests": {"cpu": f"{whole - used - share + 100}m"}}))
        self.unschedulable("extra", "0/1 nodes are available", "Insufficient cpu")
        delete(f"{self.v1}/pods/filler")
        self.running("extra")

    @shows("SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching",
           "SchedulerPredicates [Serial] validates that NodeSelector is respected if matching")
    def test_selector(self):
        key = f"kubernetes.io/e2e-{self.ns}"
        create(f"{self.v1}/pods", pod("p", spec={"nodeSelector": {key: "42"}}))
        self.unschedulable("p", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector")
        self.addCleanup(request, "PATCH", f"/api/v1/nodes/{self.node}", {"metadata": {"labels": {key: None}}}, MERGE)
        patch(f"/api/v1/nodes/{self.node}", {"metadata": {"labels": {key: "42"}}})
        self.assertEqual(self.running("p")["spec"]["nodeName"], self.node)

    @shows("SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP")
    def test_host_ports(self):
        def wants(name, **port):
            return pod(name, ports=[{"containerPort": 8080, "hostPort": 54322, "protocol": "TCP", **port}])
        create(f"{self.v1}/pods", wants("any"))
        self.running("any")
        create(f"{self.v1}/pods", wants("one", hostIP="127.0.0.1"))
        self.unschedulable("one", "didn't have free ports for the requested pod ports")
        create(f"{self.v1}/pods", wants("udp", protocol="UDP"))
        self.running("udp")

    def priority(self, name, value):
        create("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": value})
        self.addCleanup(request, "DELETE", f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}")

    def asks(self, name, amount, **more):
        resources = {"requests": {KEY: str(amount)}, "limits": {KEY: str(amount)}}
        return pod(name, resources=resources, **more)

    @shows("SchedulerPreemption [Serial] validates basic preemption works",
           "SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod",
           "SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod")
    @alone
    def test_preemption(self):
        self.extended(5)
        for name, value in (("low", 1), ("middle", 100), ("high", 1000)):
            self.priority(f"{self.ns}-{name}", value)
        create(f"{self.v1}/pods", self.asks("low", 2, spec={"priorityClassName": f"{self.ns}-low"}, meta={"finalizers": ["example.com/test-finalizer"]}))
        create(f"{self.v1}/pods", self.asks("middle", 2, spec={"priorityClassName": f"{self.ns}-middle"}))
        self.running("low")
        self.running("middle")
        create(f"{self.v1}/pods", self.asks("high", 3, spec={"priorityClassName": f"{self.ns}-high"}))
        victim = until(lambda: (p := read(f"{self.v1}/pods/low")) and p["metadata"].get("deletionTimestamp") and p)
        self.assertEqual(condition(victim, "DisruptionTarget", "reason"), "PreemptionByScheduler")
        until(lambda: condition(read(f"{self.v1}/pods/low"), "Ready") != "True")
        patch(f"{self.v1}/pods/low", {"metadata": {"finalizers": None}})
        self.running("high")
        self.assertNotIn("deletionTimestamp", read(f"{self.v1}/pods/middle")["metadata"])
        # A critical pod may be in kube-system only, unless a quota allows it elsewhere; it takes the next lowest.
        critical = {**self.asks("critical", 2, spec={"priorityClassName": "system-cluster-critical"})}
        create("/api/v1/namespaces/kube-system/pods", critical)
        self.addCleanup(request, "DELETE", "/api/v1/namespaces/kube-system/pods/critical")
        until(lambda: gone(f"{self.v1}/pods/middle"))
        until(lambda: read("/api/v1/namespaces/kube-system/pods/critical")["spec"].get("nodeName"))

    @shows("SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path")
    @alone
    def test_preempting_sets(self):
        self.extended(10)
        for i in range(1, 5):
            self.priority(f"{self.ns}-p{i}", i)
        for i, replicas, amount in ((1, 5, 1), (2, 1, 2), (3, 1, 3)):
            create(f"{self.apps}/replicasets", workload("ReplicaSet", f"s{i}", replicas, pod={"priorityClassName": f"{self.ns}-p{i}"}, resources={"requests": {KEY: str(amount)}, "limits": {KEY: str(amount)}}))
            until(lambda: read(f"{self.apps}/replicasets/s{i}")["status"].get("readyReplicas") == replicas)
        create(f"{self.v1}/pods", self.asks("top", 2, spec={"priorityClassName": f"{self.ns}-p4"}))
        self.running("top")
        until(lambda: [read(f"{self.apps}/replicasets/s{i}")["status"].get("readyReplicas", 0) for i in (1, 2, 3)] == [3, 1, 1])

    def test_gates_and_binding(self):
        create(f"{self.v1}/pods", pod("gated", spec={"schedulingGates": [{"name": "example.com/wait"}]}))
        until(lambda: condition(read(f"{self.v1}/pods/gated"), "PodScheduled", "reason") == "SchedulingGated")
        change(f"{self.v1}/pods/gated", lambda p: p["spec"].update(schedulingGates=[]))
        self.running("gated")
        create(f"{self.v1}/pods", pod("other", spec={"schedulerName": "someone-else"}))
        ok(request("POST", f"{self.v1}/pods/other/binding", {"metadata": {"name": "other"}, "target": {"kind": "Node", "name": self.node}}), 201)
        self.running("other")
        refused(request("POST", f"{self.v1}/pods/other/binding", {"metadata": {"name": "other"}, "target": {"kind": "Node", "name": "elsewhere"}}), 409, "Conflict", "already assigned to node")


class Nodes(Case):
    @shows("Node Lifecycle should run through the lifecycle of a node")
    def test_life(self):
        name = f"e2e-fake-{self.ns}"
        path = f"/api/v1/nodes/{name}"
        self.addCleanup(request, "DELETE", path)
        create("/api/v1/nodes", {"metadata": {"name": name, "labels": {"e2e": self.ns}}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "reason": "E2E", "message": "m"}]}})
        patch(path, {"metadata": {"labels": {"patched": "true"}}})
        change(path, lambda n: n["metadata"]["labels"].update(updated="true"))
        self.assertEqual(len(read("/api/v1/nodes", labelSelector="updated=true")["items"]), 1)
        patch(f"{path}/status", {"status": {"capacity": {"example.com/x": "3"}}})
        self.assertEqual(read(path)["status"]["capacity"]["example.com/x"], "3")
        ok(request("DELETE", "/api/v1/nodes", labelSelector="updated=true"))
        until(lambda: gone(path))

    def test_lease(self):
        name = node()["metadata"]["name"]
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
        lease = until(lambda: read(path))
        self.assertEqual((lease["spec"]["holderIdentity"], lease["spec"]["leaseDurationSeconds"]), (name, 40))
        self.assertEqual(lease["metadata"]["ownerReferences"][0]["name"], name)
        until(lambda: read(path)["spec"]["renewTime"] > lease["spec"]["renewTime"], 20)

    def test_node_proxy(self):
        name = node()["metadata"]["name"]
        create(f"{self.v1}/pods", pod("p", "echo hello; exec sleep 3600"))
        self.running("p")
        base = f"/api/v1/nodes/{name}/proxy"
        self.assertEqual(get(f"{base}/healthz").body, b"ok")
        self.assertIn("p", [i["podRef"]["name"] for i in read(f"{base}/stats/summary")["pods"]])
        self.assertIn("p", [i["metadata"]["name"] for i in read(f"{base}/pods")["items"]])
        self.assertEqual(get(f"{base}/containerLogs/{self.ns}/p/c").body, b"hello\n")
        self.assertIn(b"container_memory_working_set_bytes", get(f"{base}/metrics/resource").body)
        self.assertIn(b"kubelet_running_pods", get(f"{base}/metrics").body)
        self.assertEqual(read(f"{base}/configz")["kubeletconfig"]["kind"], "KubeletConfiguration")
        self.assertEqual(get(f"/api/v1/nodes/{name}:10250/proxy/healthz").body, b"ok")
        self.assertEqual(get(f"{base}/nonsense").status, 404)


__all__ = ["Nodes", "Predicates"]
