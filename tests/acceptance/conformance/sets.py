"""Stateful sets, daemon sets, disruption budgets."""

import time

from _kube import MERGE, STRATEGIC, Case, change, condition, create, delete, gone, kubectl, ok, patch, pod, read, refused, request, shows, \
    until, workload

READY = "touch /tmp/ready; exec sleep 3600"
PROBE = {"readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}}


class StatefulSets(Case):
    def setUp(self):
        super().setUp()
        self.path = f"{self.apps}/statefulsets/ss"
        create(f"{self.v1}/services", {"metadata": {"name": "test"}, "spec": {"clusterIP": "None", "selector": {"app": "ss"}, "ports": [{"port": 80, "name": "http"}]}})

    def make(self, replicas=3, script=READY, **spec):
        create(f"{self.apps}/statefulsets", workload("StatefulSet", "ss", replicas, script, spec={"serviceName": "test", **spec}, **PROBE))
        return self.path

    def ready(self, n, seconds=60):
        until(lambda: read(self.path)["status"].get("readyReplicas", 0) == n, seconds)

    def names(self):
        return sorted(p["metadata"]["name"] for p in self.pods())

    def revisions(self):
        return {p["metadata"]["name"]: p["metadata"]["labels"]["controller-revision-hash"] for p in self.pods()}

    def template(self, text):
        patch(self.path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "command": ["sh", "-c", text]}]}}}}, STRATEGIC)
        return until(lambda: (s := read(self.path)["status"]).get("observedGeneration") == read(self.path)["metadata"]["generation"] and s["updateRevision"])

    def updated(self, seconds=90):
        until(lambda: (s := read(self.path)["status"])["currentRevision"] == s["updateRevision"] and s.get("readyReplicas") == s["replicas"], seconds)

    def shell(self, name, script, check=True):
        kubectl("exec", "-n", self.ns, name, "--", "sh", "-c", script, check=check)

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of template modifications")
    def test_rolling(self):
        self.make()
        self.ready(3)
        old = read(self.path)["status"]["currentRevision"]
        watch = self.watch(f"{self.v1}/pods", resourceVersion=read(f"{self.v1}/pods")["metadata"]["resourceVersion"])
        new = self.template("touch /tmp/ready; exec sleep 3601")
        self.assertNotEqual(old, new)
        order = []
        while len(order) < 3:
            kind, p = watch.next()
            if kind == "DELETED":
                order.append(p["metadata"]["name"])
        self.assertEqual(order, ["ss-2", "ss-1", "ss-0"])
        self.updated()
        self.assertEqual(set(self.revisions().values()), {new})
        self.assertEqual(self.template(READY), old)
        self.updated()
        self.assertEqual(set(self.revisions().values()), {old})
        self.assertEqual(len(read(f"{self.apps}/controllerrevisions")["items"]), 2)

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications")
    def test_partition(self):
        self.make(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 3}})
        self.ready(3)
        old = read(self.path)["status"]["currentRevision"]
        new = self.template("touch /tmp/ready; exec sleep 3601")
        time.sleep(0.5)
        self.assertEqual(set(self.revisions().values()), {old})
        patch(self.path, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}})
        until(lambda: self.revisions() == {"ss-0": old, "ss-1": old, "ss-2": new})
        self.ready(3)
        for name in ("ss-0", "ss-2"):
            delete(f"{self.v1}/pods/{name}")
        until(lambda: self.revisions() == {"ss-0": old, "ss-1": old, "ss-2": new})
        self.ready(3)
        self.assertEqual(read(self.path)["status"]["currentReplicas"], 2)
        patch(self.path, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
        self.updated()
        self.assertEqual(set(self.revisions().values()), {new})

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow]")
    def test_order(self):
        watch = self.watch(f"{self.v1}/pods", labelSelector="app=ss")
        self.make(1)
        self.ready(1)
        self.shell("ss-0", "rm /tmp/ready")
        self.ready(0)
        patch(f"{self.path}/scale", {"spec": {"replicas": 3}})
        time.sleep(1)
        self.assertEqual(self.names(), ["ss-0"])
        self.shell("ss-0", "touch /tmp/ready")
        self.ready(3)
        added = []
        while len(added) < 3:
            kind, p = watch.next()
            added += [p["metadata"]["name"]] if kind == "ADDED" else []
        self.assertEqual(added, ["ss-0", "ss-1", "ss-2"])
        for name in self.names():
            self.shell(name, "rm /tmp/ready")
        self.ready(0)
        patch(f"{self.path}/scale", {"spec": {"replicas": 0}})
        time.sleep(1)
        self.assertEqual(len(self.names()), 3)
        for name in self.names():
            self.shell(name, "touch /tmp/ready", check=False)  # it may be on its way out already
        until(lambda: not read(f"{self.v1}/pods")["items"])
        removed = []
        while len(removed) < 3:
            kind, p = watch.next()
            removed += [p["metadata"]["name"]] if kind == "DELETED" else []
        self.assertEqual(removed, ["ss-2", "ss-1", "ss-0"])

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with unhealthy pods [Slow]")
    def test_burst(self):
        self.make(1, podManagementPolicy="Parallel")
        self.ready(1)
        self.shell("ss-0", "rm /tmp/ready")
        self.ready(0)
        patch(f"{self.path}/scale", {"spec": {"replicas": 3}})
        self.ready(2)
        self.shell("ss-2", "rm /tmp/ready")
        patch(f"{self.path}/scale", {"spec": {"replicas": 0}})
        until(lambda: not read(f"{self.v1}/pods")["items"])

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource")
    def test_scale(self):
        self.make(1)
        scale = read(f"{self.path}/scale")
        self.assertEqual((scale["spec"]["replicas"], scale["status"]["selector"]), (1, "app=ss"))
        scale["metadata"]["resourceVersion"], scale["spec"]["replicas"] = "", 2
        self.assertEqual(ok(request("PUT", f"{self.path}/scale", scale))["spec"]["replicas"], 2)
        self.assertEqual(patch(f"{self.path}/scale", {"spec": {"replicas": 4}})["spec"]["replicas"], 4)
        self.assertEqual(read(self.path)["spec"]["replicas"], 4)

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets")
    def test_collection(self):
        self.make(1)
        self.ready(1)
        patch(self.path, {"metadata": {"labels": {"of": self.ns}}, "spec": {"replicas": 2, "template": {"spec": {"terminationGracePeriodSeconds": 0}}}}, STRATEGIC)
        self.assertEqual(len(read("/apis/apps/v1/statefulsets", labelSelector=f"of={self.ns}")["items"]), 1)
        ok(request("DELETE", f"{self.apps}/statefulsets", labelSelector=f"of={self.ns}"))
        until(lambda: not read(f"{self.apps}/statefulsets")["items"] and not self.pods())

    @shows("StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints")
    def test_status(self):
        self.make(1)
        self.ready(1)
        entry = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"}
        change(f"{self.path}/status", lambda d: d["status"].update(conditions=[entry]))
        self.assertEqual(condition(read(self.path), "StatusUpdate"), "True")
        patch(f"{self.path}/status", {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}})
        self.assertEqual(condition(read(self.path), "StatusPatched"), "True")


class DaemonSets(Case):
    def setUp(self):
        super().setUp()
        self.path = f"{self.apps}/daemonsets/ds"
        self.node = read("/api/v1/nodes")["items"][0]["metadata"]["name"]

    def make(self, script=None, pod=None, **spec):
        create(f"{self.apps}/daemonsets", workload("DaemonSet", "ds", script=script, pod=pod, spec=spec))

    def up(self, n=1):
        until(lambda: (s := read(self.path)["status"]).get("numberAvailable", 0) == n and s["desiredNumberScheduled"] == n)

    @shows("Daemon set [Serial] should run and stop simple daemon", "Daemon set [Serial] should retry creating failed daemon pods")
    def test_simple(self):
        self.make()
        self.up()
        first = self.pods()[0]
        self.assertEqual(first["spec"]["nodeName"], self.node)
        tolerated = {t["key"] for t in first["spec"]["tolerations"]}
        self.assertLessEqual({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/disk-pressure", "node.kubernetes.io/unschedulable"}, tolerated)
        delete(f"{self.v1}/pods/{first['metadata']['name']}")
        until(lambda: (p := self.pods()) and p[0]["metadata"]["uid"] != first["metadata"]["uid"])
        self.up()
        second = self.pods()[0]["metadata"]["name"]
        patch(f"{self.v1}/pods/{second}/status", {"status": {"phase": "Failed"}})
        until(lambda: gone(f"{self.v1}/pods/{second}"))
        self.up()
        delete(self.path)
        until(lambda: not self.pods())

    @shows("Daemon set [Serial] should run and stop complex daemon")
    def test_selector(self):
        key = f"colour-{self.ns}"
        self.addCleanup(request, "PATCH", f"/api/v1/nodes/{self.node}", {"metadata": {"labels": {key: None}}}, MERGE)
        self.make(pod={"nodeSelector": {key: "blue"}})
        until(lambda: read(self.path)["status"].get("observedGeneration") == 1)
        self.assertEqual(self.pods(), [])
        patch(f"/api/v1/nodes/{self.node}", {"metadata": {"labels": {key: "blue"}}})
        self.up()
        patch(f"/api/v1/nodes/{self.node}", {"metadata": {"labels": {key: "green"}}})
        until(lambda: not self.pods())
        patch(self.path, {"spec": {"template": {"spec": {"nodeSelector": {key: "green"}}}, "updateStrategy": {"type": "RollingUpdate"}}})
        self.up()

    @shows("Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate")
    def test_update(self):
        self.make()
        self.up()
        before = self.pods()[0]["metadata"]["labels"]["controller-revision-hash"]
        patch(self.path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "command": ["sleep", "3601"]}]}}}}, STRATEGIC)
        until(lambda: (p := self.pods()) and p[0]["metadata"]["labels"]["controller-revision-hash"] != before and condition(p[0], "Ready") == "True")
        self.assertEqual(sorted(r["revision"] for r in read(f"{self.apps}/controllerrevisions")["items"]), [1, 2])
        until(lambda: read(self.path)["status"]["updatedNumberScheduled"] == 1)

    @shows("Daemon set [Serial] should rollback without unnecessary restarts")
    def test_rollback(self):
        self.make()
        self.up()
        first = self.pods()[0]["metadata"]["uid"]
        old = read(self.path)["spec"]["template"]
        # The new pod cannot start, and with so many unavailable the old one is not touched.
        patch(self.path, {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}})
        patch(self.path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "foo:non-existent"}]}}}}, STRATEGIC)
        until(lambda: any(p["spec"]["containers"][0]["image"].endswith("non-existent") for p in self.pods()))
        change(self.path, lambda d: d["spec"].update(template=old))
        until(lambda: [p["metadata"]["uid"] for p in self.pods()] == [first])
        self.up()

    @shows("Daemon set [Serial] should list and delete a collection of DaemonSets", "Daemon set [Serial] should verify changes to a daemon set status")
    def test_collection_and_status(self):
        self.make()
        self.up()
        entry = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"}
        change(f"{self.path}/status", lambda d: d["status"].update(conditions=[entry]))
        self.assertEqual(condition(read(self.path), "StatusUpdate"), "True")
        patch(f"{self.path}/status", {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}})
        self.assertEqual(condition(read(self.path), "StatusPatched"), "True")
        patch(self.path, {"metadata": {"labels": {"of": self.ns}}})
        self.assertEqual(len(read("/apis/apps/v1/daemonsets", labelSelector=f"of={self.ns}")["items"]), 1)
        ok(request("DELETE", f"{self.apps}/daemonsets", labelSelector=f"of={self.ns}"))
        until(lambda: not read(f"{self.apps}/daemonsets")["items"] and not self.pods())


class Disruption(Case):
    def setUp(self):
        super().setUp()
        self.budgets = f"{self.group('policy/v1')}/poddisruptionbudgets"
        self.selector = {"matchLabels": {"foo": "bar"}}

    def budget(self, name="foo", **spec):
        create(self.budgets, {"metadata": {"name": name}, "spec": {"selector": self.selector, **spec}})
        until(lambda: read(f"{self.budgets}/{name}").get("status", {}).get("observedGeneration") == 1)
        return f"{self.budgets}/{name}"

    @shows("DisruptionController should create a PodDisruptionBudget")
    def test_create(self):
        path = self.budget(minAvailable="1%")
        self.assertEqual(read(path)["spec"]["minAvailable"], "1%")
        change(path, lambda b: b["spec"].update(minAvailable="2%"))
        patch(path, {"spec": {"minAvailable": "3%"}}, STRATEGIC)
        self.assertEqual(read(path)["spec"]["minAvailable"], "3%")
        delete(path)
        self.assertTrue(gone(path))

    @shows("DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets")
    def test_collection(self):
        for i in range(3):
            create(self.budgets, {"metadata": {"name": f"b{i}", "labels": {"of": self.ns}}, "spec": {"minAvailable": 1, "selector": self.selector}})
        self.assertEqual(len(read("/apis/policy/v1/poddisruptionbudgets", labelSelector=f"of={self.ns}")["items"]), 3)
        ok(request("DELETE", self.budgets, labelSelector=f"of={self.ns}"))
        self.assertEqual(read(self.budgets)["items"], [])

    @shows("DisruptionController should observe PodDisruptionBudget status updated")
    def test_status(self):
        path = self.budget(minAvailable=1)
        for i in range(3):
            create(f"{self.v1}/pods", pod(f"p{i}", labels={"foo": "bar"}))
        until(lambda: read(path)["status"]["disruptionsAllowed"] == 2 and read(path)["status"]["currentHealthy"] == 3)
        self.assertEqual(condition(read(path), "DisruptionAllowed"), "True")

    @shows("DisruptionController should update/patch PodDisruptionBudget status")
    def test_status_writes(self):
        path = self.budget(minAvailable=1)
        create(f"{self.v1}/pods", pod("p", labels={"foo": "bar"}))
        until(lambda: read(path)["status"]["currentHealthy"] == 1)
        stamp = "2026-01-01T00:00:00Z"
        change(f"{path}/status", lambda b: b["status"].update(disruptedPods={"p": stamp}))
        patch(f"{path}/status", {"status": {"disruptedPods": {"q": stamp}}})
        read(f"{path}/status")

    @shows("DisruptionController should block an eviction until the PDB is updated to allow it")
    def test_eviction(self):
        names = ["p0", "p1", "p2"]
        for name in names:
            create(f"{self.v1}/pods", pod(name, labels={"foo": "bar"}))
        path = self.budget(minAvailable=3)
        until(lambda: read(path)["status"]["currentHealthy"] == 3)

        def evict(name, **more):
            return request("POST", f"{self.v1}/pods/{name}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, **more})
        value = refused(evict("p0"), 429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
        self.assertEqual(value["details"]["causes"][0]["reason"], "DisruptionBudget")
        self.assertIn("needs 3 healthy pods and has 3 currently", value["details"]["causes"][0]["message"])
        ok(evict("p1", deleteOptions={"dryRun": ["All"]}), 429)
        patch(path, {"spec": {"minAvailable": 2}})
        until(lambda: read(path)["status"]["disruptionsAllowed"] == 1)
        ok(evict("p0", deleteOptions={"dryRun": ["All"]}), 201)
        self.assertEqual(read(path)["status"]["disruptionsAllowed"], 1)
        ok(evict("p0"), 201)
        until(lambda: gone(f"{self.v1}/pods/p0"))
        refused(evict("p1"), 429, "TooManyRequests")
        create(self.budgets, {"metadata": {"name": "second"}, "spec": {"selector": self.selector, "maxUnavailable": 0}})
        refused(evict("p1"), 500, "InternalError", "more than one PodDisruptionBudget")
        refused(evict("nope"), 404, "NotFound")


__all__ = ["DaemonSets", "Disruption", "StatefulSets"]
