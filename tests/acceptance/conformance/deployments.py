"""Deployments, replica sets, replication controllers."""

import time

from _kube import MERGE, PATCH, STRATEGIC, Case, change, condition, create, delete, get, gone, ok, patch, pod, read, replace, request, shows, until, workload

OLD, NEW = "exec sleep 3601", "exec sleep 3602"


class Deployments(Case):
    def make(self, name="d", replicas=1, script=None, **spec):
        create(f"{self.apps}/deployments", workload("Deployment", name, replicas, script, spec=spec))
        return f"{self.apps}/deployments/{name}"

    def complete(self, path, replicas, seconds=60):
        def done():
            d = read(path)
            s = d["status"]
            fine = s.get("observedGeneration") == d["metadata"]["generation"] and (s.get("updatedReplicas", 0), s.get("replicas", 0), s.get("availableReplicas", 0)) == (replicas,) * 3
            assert fine, s
            return d
        return until(done, seconds)

    def sets(self):
        return sorted(read(f"{self.apps}/replicasets")["items"], key=lambda r: int(r["metadata"]["annotations"].get("deployment.kubernetes.io/revision", 0)))

    def script(self, path, text):
        patch(path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "command": ["sh", "-c", text]}]}}}}, STRATEGIC)

    @shows("Deployment RollingUpdateDeployment should delete old pods and create new ones")
    def test_rolling(self):
        labels = {"name": "sample"}
        set_ = workload("ReplicaSet", "old", 1, OLD, labels=labels)
        set_["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "3546343826724305832"}
        create(f"{self.apps}/replicasets", set_)
        until(lambda: read(f"{self.apps}/replicasets/old")["status"].get("readyReplicas") == 1)
        create(f"{self.apps}/deployments", workload("Deployment", "d", 1, NEW, labels=labels))
        seen = self.complete(f"{self.apps}/deployments/d", 1)
        self.assertEqual(seen["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3546343826724305833")
        old = read(f"{self.apps}/replicasets/old")
        self.assertEqual(old["spec"]["replicas"], 0)
        self.assertEqual(old["metadata"]["ownerReferences"][0]["name"], "d")
        self.assertEqual(len(self.sets()), 2)

    @shows("Deployment RecreateDeployment should delete old pods and create new ones")
    def test_recreate(self):
        path = self.make(strategy={"type": "Recreate"}, script=OLD)
        self.complete(path, 1)
        watch = self.watch(f"{self.v1}/pods", resourceVersion=read(f"{self.v1}/pods")["metadata"]["resourceVersion"])
        old = self.pods()[0]["metadata"]["name"]
        self.script(path, NEW)
        gone_, fresh = False, False
        while not fresh:
            kind, p = watch.next()
            gone_ |= kind == "DELETED" and p["metadata"]["name"] == old
            if kind == "ADDED":
                self.assertTrue(gone_ or read(path) is None, "the new pod came before the old one was gone")
                fresh = True
        self.complete(path, 1)

    @shows("Deployment deployment should delete old replica sets")
    def test_history(self):
        path = self.make(script=OLD, revisionHistoryLimit=0)
        self.complete(path, 1)
        self.script(path, NEW)
        self.complete(path, 1)
        until(lambda: len(self.sets()) == 1)

    @shows("Deployment deployment should support rollover")
    def test_rollover(self):
        path = self.make(script=OLD, minReadySeconds=0, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        self.complete(path, 1)
        patch(path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nowhere.invalid/none:1"}]}}}}, STRATEGIC)
        # The status of before says one, too: the set itself is what shows that the controller saw the change.
        until(lambda: len(self.sets()) == 2 and read(path)["status"].get("updatedReplicas") == 1)
        patch(path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "busybox:latest", "command": ["sh", "-c", NEW]}]}}}}, STRATEGIC)
        self.complete(path, 1)
        until(lambda: sorted(s["spec"]["replicas"] for s in self.sets()) == [0, 0, 1])

    @shows("Deployment deployment should support proportional scaling")
    def test_proportional(self):
        path = self.make(replicas=10, script=OLD, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
        self.complete(path, 10)
        patch(path, {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "webserver:404"}]}}}}, STRATEGIC)
        until(lambda: [s["spec"]["replicas"] for s in self.sets()] == [8, 5])
        until(lambda: [s["status"].get("availableReplicas", 0) for s in self.sets()] == [8, 0])
        patch(path, {"spec": {"replicas": 30}})
        until(lambda: [s["spec"]["replicas"] for s in self.sets()] == [20, 13])

    @shows("Deployment Deployment should have a working scale subresource")
    def test_scale(self):
        path = self.make()
        self.complete(path, 1)
        scale = read(f"{path}/scale")
        self.assertEqual((scale["kind"], scale["apiVersion"], scale["status"]["selector"]), ("Scale", "autoscaling/v1", "app=d"))
        scale["metadata"]["resourceVersion"] = ""
        scale["spec"]["replicas"] = 2
        self.assertEqual(replace(f"{path}/scale", scale)["spec"]["replicas"], 2)
        self.assertEqual(read(path)["spec"]["replicas"], 2)
        self.assertEqual(patch(f"{path}/scale", {"spec": {"replicas": 4}})["spec"]["replicas"], 4)
        self.complete(path, 4)

    @shows("Deployment should run the lifecycle of a Deployment")
    def test_life(self):
        watch = self.watch(f"{self.apps}/deployments", labelSelector="app=d")
        path = self.make()
        watch.until("ADDED")
        watch.until("MODIFIED", lambda d: d["status"].get("readyReplicas") == 1)
        patch(path, {"metadata": {"labels": {"test": "patched"}}, "spec": {"replicas": 2, "template": {"spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "command": ["sh", "-c", NEW]}]}}}}, STRATEGIC)
        watch.until("MODIFIED", lambda d: d["status"].get("readyReplicas") == 2)
        self.assertEqual([d["metadata"]["name"] for d in read("/apis/apps/v1/deployments", labelSelector="test=patched")["items"]], ["d"])
        patch(f"{path}/status", {"metadata": {"labels": {"test": "status"}}, "status": {"readyReplicas": 0}})
        watch.until("MODIFIED", lambda d: d["metadata"]["labels"].get("test") == "status")
        change(f"{path}/status", lambda d: d["metadata"].setdefault("annotations", {}).update(a="b"))
        watch.until("MODIFIED", lambda d: d["status"].get("readyReplicas") == 2)
        ok(request("DELETE", f"{self.apps}/deployments", labelSelector="app=d"))
        watch.until("DELETED")

    @shows("Deployment should validate Deployment Status endpoints")
    def test_status(self):
        path = self.make()
        self.complete(path, 1)
        read(f"{path}/status")
        entry = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"}
        change(f"{path}/status", lambda d: d["status"]["conditions"].append(entry))
        self.assertEqual(condition(read(path), "StatusUpdate", "reason"), "E2E")
        patch(f"{path}/status", {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}})
        self.assertEqual(condition(read(path), "StatusPatched"), "True")

    def test_pause_and_undo(self):
        path = self.make(script=OLD)
        self.complete(path, 1)
        patch(path, {"spec": {"paused": True}})
        self.script(path, NEW)
        time.sleep(0.5)
        self.assertEqual(len(self.sets()), 1)
        until(lambda: condition(read(path), "Progressing", "reason") == "DeploymentPaused")
        patch(path, {"spec": {"paused": False}})
        self.complete(path, 1)
        self.assertEqual(read(path)["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2")

    def test_deadline(self):
        path = self.make(progressDeadlineSeconds=1)
        patch(path, {"spec": {"template": {"spec": {"nodeSelector": {"no": "such"}}}}})
        until(lambda: condition(read(path), "Progressing", "reason") == "ProgressDeadlineExceeded")


class Replicas(Case):
    """Replica sets, and replication controllers, which are the same but for their selector."""

    def setUp(self):
        super().setUp()
        self.kinds = {"ReplicaSet": f"{self.apps}/replicasets", "ReplicationController": f"{self.v1}/replicationcontrollers"}

    @shows("ReplicaSet should serve a basic image on each replica with a public image",
           "ReplicationController should serve a basic image on each replica with a public image")
    def test_serve(self):
        for kind, path in self.kinds.items():
            name = kind.lower()
            create(path, workload(kind, name, 2, "hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"))
            until(lambda: read(f"{path}/{name}")["status"].get("readyReplicas") == 2)
            for p in self.pods(f"app={name}"):
                pod_name = p["metadata"]["name"]
                until(lambda: get(f"{self.v1}/pods/{pod_name}:8080/proxy/").body.decode().strip() == pod_name)

    @shows("ReplicaSet should adopt matching pods on creation and release no longer matching pods",
           "ReplicationController should adopt matching pods on creation",
           "ReplicationController should release no longer matching pods")
    def test_adoption(self):
        for kind, path in self.kinds.items():
            labels = {"name": kind.lower()}
            p = f"{self.v1}/pods/orphan-{kind.lower()}"
            create(f"{self.v1}/pods", pod(f"orphan-{kind.lower()}", labels=labels))
            create(path, workload(kind, "adopter", 1, labels=labels))
            until(lambda: [o["name"] for o in read(p)["metadata"].get("ownerReferences", [])] == ["adopter"])
            self.assertEqual(len(self.pods(f"name={kind.lower()}")), 1)
            patch(p, {"metadata": {"labels": {"name": "other"}}})
            until(lambda: not read(p)["metadata"].get("ownerReferences"))
            until(lambda: len(self.pods(f"name={kind.lower()}")) == 1)
            delete(f"{path}/adopter")

    @shows("ReplicaSet Replicaset should have a working scale subresource",
           "ReplicationController should get and update a ReplicationController scale")
    def test_scale(self):
        for kind, path in self.kinds.items():
            create(path, workload(kind, "s", 1, labels={"of": kind.lower()}))
            scale = read(f"{path}/s/scale")
            self.assertEqual(scale["spec"]["replicas"], 1)
            scale["metadata"]["resourceVersion"], scale["spec"]["replicas"] = "", 2
            self.assertEqual(replace(f"{path}/s/scale", scale)["spec"]["replicas"], 2)
            self.assertEqual(patch(f"{path}/s/scale", {"spec": {"replicas": 3}})["spec"]["replicas"], 3)
            until(lambda: read(f"{path}/s")["status"].get("replicas") == 3)

    @shows("ReplicaSet should list and delete a collection of ReplicaSets")
    def test_collection(self):
        path = self.kinds["ReplicaSet"]
        create(path, workload("ReplicaSet", "a", 2))
        until(lambda: len(self.pods()) == 2)
        self.assertEqual(len(read("/apis/apps/v1/replicasets", labelSelector="app=a", fieldSelector=f"metadata.namespace={self.ns}")["items"]), 1)
        ok(request("DELETE", path, labelSelector="app=a"))
        until(lambda: not read(path)["items"] and not self.pods())

    @shows("ReplicaSet Replace and Patch tests")
    def test_replace(self):
        path = f"{self.kinds['ReplicaSet']}/r"
        create(self.kinds["ReplicaSet"], workload("ReplicaSet", "r", 1))
        until(lambda: read(path)["status"].get("readyReplicas") == 1)
        change(path, lambda r: r["spec"].update(replicas=2))
        until(lambda: read(path)["status"].get("readyReplicas") == 2)
        patch(path, {"metadata": {"labels": {"test": "patched"}}, "spec": {"replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 0}}}}, STRATEGIC)
        until(lambda: read(path)["status"].get("readyReplicas") == 3 and read(path)["metadata"]["labels"]["test"] == "patched")

    @shows("ReplicaSet should validate Replicaset Status endpoints")
    def test_status(self):
        path = f"{self.kinds['ReplicaSet']}/r"
        create(self.kinds["ReplicaSet"], workload("ReplicaSet", "r", 1))
        until(lambda: read(path)["status"].get("readyReplicas") == 1)
        entry = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"}
        change(f"{path}/status", lambda d: d["status"].update(conditions=[entry]))
        self.assertEqual(condition(read(path), "StatusUpdate"), "True")
        patch(f"{path}/status", {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}})
        self.assertEqual(condition(read(path), "StatusPatched"), "True")

    @shows("ReplicationController should surface a failure condition on a common issue like exceeded quota")
    def test_quota(self):
        create(f"{self.v1}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}})
        until(lambda: read(f"{self.v1}/resourcequotas/q").get("status", {}).get("hard"))
        for kind, path in self.kinds.items():
            create(path, workload(kind, "q", 3, labels={"of": kind.lower()}))
            until(lambda: condition(read(f"{path}/q"), "ReplicaFailure") == "True")
            self.assertIn("exceeded quota: q", condition(read(f"{path}/q"), "ReplicaFailure", "message"))
            patch(f"{path}/q", {"spec": {"replicas": 2}})
            until(lambda: condition(read(f"{path}/q"), "ReplicaFailure") is None)
            delete(f"{path}/q")
            until(lambda: not read(f"{self.v1}/pods")["items"])

    @shows("ReplicationController should test the lifecycle of a ReplicationController")
    def test_life(self):
        path = self.kinds["ReplicationController"]
        watch = self.watch(path, labelSelector="test-rc-static=true")
        create(path, workload("ReplicationController", "r", 1, labels={"test-rc-static": "true"}))
        watch.until("ADDED")
        watch.until("MODIFIED", lambda r: r["status"].get("readyReplicas") == 1)
        patch(f"{path}/r", {"metadata": {"labels": {"test-rc": "patched"}}}, STRATEGIC)
        watch.until("MODIFIED", lambda r: r["metadata"]["labels"].get("test-rc") == "patched")
        patch(f"{path}/r/status", {"status": {"readyReplicas": 0, "availableReplicas": 0}})
        watch.until("MODIFIED", lambda r: r["status"].get("readyReplicas", 0) == 0)
        watch.until("MODIFIED", lambda r: r["status"].get("readyReplicas", 0) == 1)
        patch(f"{path}/r/scale", {"spec": {"replicas": 2}})
        watch.until("MODIFIED", lambda r: r["status"].get("readyReplicas", 0) == 2)
        self.assertEqual(len([r for r in read("/api/v1/replicationcontrollers", labelSelector="test-rc-static=true")["items"] if r["metadata"]["namespace"] == self.ns]), 1)
        ok(request("DELETE", path, labelSelector="test-rc-static=true"))
        watch.until("DELETED")
        self.assertTrue(gone(f"{path}/r"))


__all__ = ["Deployments", "Replicas"]
