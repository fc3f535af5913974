"""Resource quotas and limit ranges."""

import concurrent.futures

from _kube import MERGE, Case, change, create, delete, get, gone, ok, patch, pod, read, refused, request, shows, until, workload

RESOURCES = {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "200m", "memory": "200Mi"}}


class Quota(Case):
    def setUp(self):
        super().setUp()
        self.quotas = f"{self.v1}/resourcequotas"

    def quota(self, name="q", hard=None, **spec):
        create(self.quotas, {"metadata": {"name": name}, "spec": {"hard": hard or {}, **spec}})
        until(lambda: read(f"{self.quotas}/{name}").get("status", {}).get("hard") is not None)

    def used(self, name="q", **amounts):
        """Waits until so much is used, by names in which `__` is a dot and `_` a slash."""
        wanted = {k.replace("__", ".").replace("_", "/"): v for k, v in amounts.items()}

        def agrees():
            seen = read(f"{self.quotas}/{name}")["status"]["used"]
            return all(seen.get(k) == v for k, v in wanted.items()) or self.fail(f"{seen} is not {wanted}")
        until(agrees, 10)

    @shows("ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated.")
    def test_status(self):
        self.quota(hard={"pods": "5", "services": "10", "cpu": "1"})
        self.used(pods="0", services="0", cpu="0")
        self.assertEqual(read(f"{self.quotas}/q")["status"]["hard"], {"pods": "5", "services": "10", "cpu": "1"})

    @shows("ResourceQuota should create a ResourceQuota and capture the life of a service.")
    def test_service(self):
        self.quota(hard={"services": "3", "services.nodeports": "1", "services.loadbalancers": "1", "count/services": "9"})
        path = f"{self.v1}/services"

        def service(name, kind, **more):
            return {"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}], **more}}
        create(path, service("a", "ClusterIP"))
        create(path, service("b", "NodePort"))
        refused(request("POST", path, service("c", "LoadBalancer")), 403, "Forbidden", "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1")
        self.used(services="2", services__nodeports="1", services__loadbalancers="0")
        refused(request("PATCH", f"{path}/a", {"spec": {"type": "NodePort"}}, MERGE), 403, "Forbidden", "exceeded quota")
        delete(f"{path}/b")
        self.used(services="1", services__nodeports="0")
        delete(f"{path}/a")
        self.used(services="0")

    @shows("ResourceQuota should create a ResourceQuota and capture the life of a secret.",
           "ResourceQuota should create a ResourceQuota and capture the life of a configMap.")
    def test_secrets_and_config_maps(self):
        before = {k: len(read(f"{self.v1}/{k}")["items"]) for k in ("secrets", "configmaps")}
        self.quota(hard={"secrets": str(before["secrets"] + 1), "configmaps": str(before["configmaps"] + 1)})
        self.used(**{k: str(n) for k, n in before.items()})
        for kind, n in before.items():
            create(f"{self.v1}/{kind}", {"metadata": {"name": "one"}})
            refused(request("POST", f"{self.v1}/{kind}", {"metadata": {"name": "two"}}), 403, "Forbidden", "exceeded quota")
            self.used(**{kind: str(n + 1)})
            delete(f"{self.v1}/{kind}/one")
            self.used(**{kind: str(n)})

    @shows("ResourceQuota should create a ResourceQuota and capture the life of a pod.")
    def test_pod(self):
        self.quota(hard={"pods": "5", "cpu": "1", "memory": "500Mi", "limits.cpu": "2", "requests.ephemeral-storage": "50Gi", "requests.example.com/dongle": "3"})

        def asks(name, cpu, **more):
            resources = {"requests": {"cpu": cpu, "memory": "252Mi", "ephemeral-storage": "1Gi", **more}, "limits": {"cpu": cpu, **more}}
            return pod(name, resources=resources, spec={"nodeName": ""})
        path = f"{self.v1}/pods"
        create(path, asks("p", "500m", **{"example.com/dongle": "2"}))
        self.used(pods="1", cpu="500m", memory="252Mi", limits__cpu="500m")
        self.assertEqual(read(f"{self.quotas}/q")["status"]["used"]["requests.example.com/dongle"], "2")
        refused(request("POST", path, asks("big", "600m")), 403, "Forbidden", "exceeded quota: q", "requested: cpu=600m", "used: cpu=500m", "limited: cpu=1")
        refused(request("POST", path, asks("two", "1m", **{"example.com/dongle": "2"})), 403, "Forbidden", "requests.example.com/dongle=2")
        refused(request("POST", path, pod("none")), 403, "Forbidden", "failed quota: q: must specify cpu for: c; limits.cpu for: c; memory for: c")
        refused(request("PATCH", f"{path}/p/resize", {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}]}}, "application/strategic-merge-patch+json"),
                403, "Forbidden", "exceeded quota")
        self.used(pods="1", cpu="500m")
        delete(f"{path}/p")
        self.used(pods="0", cpu="0")

    @shows("ResourceQuota should create a ResourceQuota and capture the life of a replication controller.",
           "ResourceQuota should create a ResourceQuota and capture the life of a replica set.")
    def test_controllers(self):
        self.quota(hard={"replicationcontrollers": "1", "count/replicasets.apps": "1", "count/deployments.apps": "0"})
        self.used(replicationcontrollers="0")
        create(f"{self.v1}/replicationcontrollers", workload("ReplicationController", "r", 0))
        create(f"{self.apps}/replicasets", workload("ReplicaSet", "r", 0))
        refused(request("POST", f"{self.apps}/replicasets", workload("ReplicaSet", "s", 0)), 403, "Forbidden", "count/replicasets.apps=1")
        refused(request("POST", f"{self.apps}/deployments", workload("Deployment", "s", 0)), 403, "Forbidden", "count/deployments.apps=1")
        self.used(replicationcontrollers="1", count_replicasets__apps="1")
        delete(f"{self.v1}/replicationcontrollers/r")
        delete(f"{self.apps}/replicasets/r")
        self.used(replicationcontrollers="0", count_replicasets__apps="0")

    def test_claim(self):
        self.quota(hard={"persistentvolumeclaims": "1", "requests.storage": "1Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"})
        claim = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}
        create(f"{self.v1}/persistentvolumeclaims", claim)
        self.used(persistentvolumeclaims="1", requests__storage="1Gi")
        claim["metadata"]["name"] = "d"
        refused(request("POST", f"{self.v1}/persistentvolumeclaims", claim), 403, "Forbidden", "exceeded quota")

    @shows("ResourceQuota should verify ResourceQuota with terminating scopes.")
    def test_terminating(self):
        self.quota("ends", {"pods": "5"}, scopes=["Terminating"])
        self.quota("stays", {"pods": "5"}, scopes=["NotTerminating"])
        create(f"{self.v1}/pods", pod("p", resources=RESOURCES))
        self.used("stays", pods="1")
        self.used("ends", pods="0")
        delete(f"{self.v1}/pods/p")
        self.used("stays", pods="0")
        create(f"{self.v1}/pods", pod("q", resources=RESOURCES, spec={"activeDeadlineSeconds": 3600}))
        self.used("ends", pods="1")
        self.used("stays", pods="0")

    @shows("ResourceQuota should verify ResourceQuota with best effort scope.")
    def test_best_effort(self):
        self.quota("best", {"pods": "5"}, scopes=["BestEffort"])
        self.quota("other", {"pods": "5"}, scopes=["NotBestEffort"])
        create(f"{self.v1}/pods", pod("p"))
        self.used("best", pods="1")
        self.used("other", pods="0")
        create(f"{self.v1}/pods", pod("q", resources=RESOURCES))
        self.used("other", pods="1")
        self.used("best", pods="1")
        refused(request("POST", self.quotas, {"metadata": {"name": "x"}, "spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}}), 422, "Invalid", "conflicting scopes")
        refused(request("POST", self.quotas, {"metadata": {"name": "x"}, "spec": {"hard": {"services": "1"}, "scopes": ["BestEffort"]}}), 422, "Invalid", "unsupported scope applied to resource")

    @shows("ResourceQuota should be able to update and delete ResourceQuota.")
    def test_update(self):
        self.quota(hard={"cpu": "1", "memory": "500Mi"})
        change(f"{self.quotas}/q", lambda q: q["spec"]["hard"].update(cpu="2", memory="1Gi"))
        until(lambda: read(f"{self.quotas}/q")["status"]["hard"] == {"cpu": "2", "memory": "1Gi"})
        delete(f"{self.quotas}/q")
        self.assertTrue(gone(f"{self.quotas}/q"))

    @shows("ResourceQuota should manage the lifecycle of a ResourceQuota")
    def test_life(self):
        self.quota(hard={"cpu": "1", "memory": "500Mi"})
        patch(f"{self.quotas}/q", {"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}}, "application/strategic-merge-patch+json")
        self.assertEqual(len(read("/api/v1/resourcequotas", labelSelector="q=patched")["items"]), 1)
        ok(request("DELETE", self.quotas, labelSelector="q=patched"))
        self.assertEqual(read(self.quotas)["items"], [])

    @shows("ResourceQuota should apply changes to a resourcequota status")
    def test_status_writes(self):
        self.quota(hard={"cpu": "500m", "memory": "500Mi"})
        watch = self.watch(self.quotas)
        watch.until("ADDED")
        seen = patch(f"{self.quotas}/q/status", {"status": {"hard": {"cpu": "1", "memory": "1Gi"}}})
        self.assertEqual(seen["status"]["hard"], {"cpu": "1", "memory": "1Gi"})
        self.assertEqual(seen["spec"]["hard"]["cpu"], "500m")
        # The controller puts it right.
        until(lambda: read(f"{self.quotas}/q")["status"]["hard"]["cpu"] == "500m")
        change(f"{self.quotas}/q/status", lambda q: q["status"].update(hard={"cpu": "2", "memory": "2Gi"}))
        watch.until("MODIFIED", lambda q: q["status"]["hard"]["cpu"] == "2")

    def test_writers_at_once(self):
        """However many create at once, no more get in than there is room."""
        self.quota(hard={"count/configmaps": "6", "pods": "3"})
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda i: request("POST", f"{self.v1}/configmaps", {"metadata": {"name": f"c{i}"}}).status, range(24)))
            pods = list(pool.map(lambda i: request("POST", f"{self.v1}/pods", pod(f"p{i}")).status, range(16)))
        self.assertEqual(len(read(f"{self.v1}/configmaps")["items"]), 6, statuses)
        self.assertEqual(set(statuses), {201, 403})
        self.assertEqual((pods.count(201), pods.count(403)), (3, 13))


class Limits(Case):
    @shows("LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.")
    def test_defaults(self):
        limit = {"type": "Container", "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
                 "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"}, "maxLimitRequestRatio": {}}
        create(f"{self.v1}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
        made = create(f"{self.v1}/pods", pod("p"))
        self.assertEqual(made["spec"]["containers"][0]["resources"], {"limits": {"cpu": "500m", "memory": "500Mi"}, "requests": {"cpu": "100m", "memory": "200Mi"}})
        part = create(f"{self.v1}/pods", pod("part", resources={"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}}))
        self.assertEqual(part["spec"]["containers"][0]["resources"], {"limits": {"cpu": "300m", "memory": "500Mi"}, "requests": {"cpu": "300m", "memory": "150Mi"}})
        refused(request("POST", f"{self.v1}/pods", pod("small", resources={"requests": {"cpu": "10m"}})), 403, "Forbidden", "minimum cpu usage per Container is 50m, but request is 10m")
        refused(request("POST", f"{self.v1}/pods", pod("large", resources={"limits": {"cpu": "600m"}})), 403, "Forbidden", "maximum cpu usage per Container is 500m, but limit is 600m")
        patch(f"{self.v1}/limitranges/l", [{"op": "replace", "path": "/spec/limits/0/min/cpu", "value": "5m"}], "application/json-patch+json")
        create(f"{self.v1}/pods", pod("small", resources={"requests": {"cpu": "10m"}}))
        refused(request("POST", f"{self.v1}/limitranges", {"metadata": {"name": "x"}, "spec": {"limits": [{**limit, "min": {"cpu": "2"}}]}}), 422, "Invalid", "spec.limits[0].")
        delete(f"{self.v1}/limitranges/l")
        self.assertNotIn("limits", create(f"{self.v1}/pods", pod("free"))["spec"]["containers"][0].get("resources", {}))
        self.assertEqual(get(f"{self.v1}/limitranges/l").status, 404)


__all__ = ["Limits", "Quota"]
