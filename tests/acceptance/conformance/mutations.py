"""Objects gone wrong, thrown at every kind: never a 500, never a hang, never a stored change after an error.

TRIPOD_MUTATIONS is how many requests each kind gets (some tens unless it is set), TRIPOD_SEED the seed.
"""

import copy
import json
import os
import random
import time

from _kube import APPLY, JSON, MERGE, PATCH, STRATEGIC, Case, get, read, request

COUNT = int(os.environ.get("TRIPOD_MUTATIONS", "25"))
SEED = int(os.environ.get("TRIPOD_SEED", "1"))
SLOW = 20

TEMPLATE = {"metadata": {"labels": {"a": "b", "x": "y"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}},
            "ports": [{"containerPort": 80, "name": "p"}], "env": [{"name": "A", "value": "b"}], "livenessProbe": {"httpGet": {"path": "/", "port": 80}}}],
            "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}, {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}}]}}
ALWAYS = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Always"}}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}
BACKEND = {"service": {"name": "s", "port": {"number": 80}}}
DEVICES = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "x", "count": 1, "allocationMode": "ExactCount"}}]}}
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]

# A request that `openssl req` made, in base64.
REQUEST = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIR01HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCRU9ZaTNFek9oWU9QZURBR3lxc3RJbjdLM0xKZ2ZwWndoempkZjRJdHdQNjdZcmQ2YUp3dEJ0YmVhcldCeHNTCk9BcGVXRGdPN1h2MkF3ZXZsaW1Eam4rZ0FEQUtCZ2dxaGtqT1BRUURBZ05JQURCRkFpQVNLNjB2QVR2ek9kVVYKSy9IRWxOUis3UjVUajM3TXZDVmoveUcxMkxxOW1RSWhBT2hTZU51KzRQMXl0MGt5UHZVaXMwalY2YitjZGUrMQprcnpVMm0xZnFsTlMKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg=="

# What a kind's objects have beside metadata; kinds that are not here start from nothing.
SAMPLES = {
    "configmaps": {"data": {"a": "b"}, "binaryData": {"c": "AAAA"}},
    "secrets": {"data": {"a": "AAAA"}, "type": "Opaque"},
    "endpoints": {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]},
    "events": {"involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "r", "type": "Normal", "count": 1},
    "limitranges": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}}]}},
    "resourcequotas": {"spec": {"hard": {"pods": "5"}, "scopes": ["BestEffort"]}},
    "pods": {"spec": {**TEMPLATE["spec"], "schedulingGates": [{"name": "x.example.com/y"}], "tolerations": [{"key": "k", "operator": "Exists"}],
             "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]}}}}},
    "podtemplates": {"template": TEMPLATE},
    "services": {"spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"name": "p", "port": 80, "targetPort": "p", "protocol": "TCP"}], "sessionAffinity": "ClientIP"}},
    "serviceaccounts": {"secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "s"}], "automountServiceAccountToken": True},
    "persistentvolumes": {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}, "persistentVolumeReclaimPolicy": "Retain"}},
    "persistentvolumeclaims": {"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}},
    "nodes": {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}], "unschedulable": True}},
    "replicationcontrollers": {"spec": {"replicas": 0, "selector": {"a": "b"}, "template": ALWAYS}},
    "controllerrevisions": {"data": {"x": 1}, "revision": 1},
    "deployments": {"spec": {"replicas": 0, "selector": SELECTOR, "template": ALWAYS, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}},
    "jobs": {"spec": {"suspend": True, "completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": TEMPLATE,
             "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}]}, "successPolicy": {"rules": [{"succeededIndexes": "0-1"}]}}},
    "cronjobs": {"spec": {"suspend": True, "schedule": "*/5 * * * *", "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": TEMPLATE}}}},
    "horizontalpodautoscalers": {"spec": {"scaleTargetRef": TARGET, "minReplicas": 1, "maxReplicas": 3}},
    "leases": {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 3, "renewTime": "2026-01-01T00:00:00.000000Z"}},
    "endpointslices": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}], "ports": [{"name": "p", "port": 80}]},
    "ingresses": {"spec": {"defaultBackend": BACKEND, "rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}]}},
    "ingressclasses": {"spec": {"controller": "a.b/c"}},
    "networkpolicies": {"spec": {"podSelector": SELECTOR, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}], "policyTypes": ["Ingress"]}},
    "servicecidrs": {"spec": {"cidrs": ["10.20.0.0/24"]}},
    "poddisruptionbudgets": {"spec": {"minAvailable": "50%", "selector": SELECTOR}},
    "roles": {"rules": RULES}, "clusterroles": {"rules": RULES, "aggregationRule": {"clusterRoleSelectors": [SELECTOR]}},
    "rolebindings": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]},
    "priorityclasses": {"value": 5, "preemptionPolicy": "Never"},
    "runtimeclasses": {"handler": "runc", "overhead": {"podFixed": {"cpu": "1m"}}},
    "storageclasses": {"provisioner": "p", "parameters": {"a": "b"}, "mountOptions": ["x"]},
    "csidrivers": {"spec": {"attachRequired": True}}, "csinodes": {"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": ["a"]}]}},
    "csistoragecapacities": {"storageClassName": "s", "capacity": "1Gi", "nodeTopology": SELECTOR},
    "volumeattachments": {"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "p"}}},
    "volumeattributesclasses": {"driverName": "d", "parameters": {"a": "b"}},
    "resourceclaims": {"spec": DEVICES}, "resourceclaimtemplates": {"spec": {"spec": DEVICES}}, "deviceclasses": {"spec": {"selectors": [{"cel": {"expression": "true"}}]}},
    "resourceslices": {"spec": {"driver": "d.e", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d"}]}},
    "flowschemas": {"spec": {"matchingPrecedence": 10, "priorityLevelConfiguration": {"name": "x"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "n"}}], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True}]}]}},
    "prioritylevelconfigurations": {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 5}}}}},
    "namespaces": {},
    "certificatesigningrequests": {"spec": {"signerName": "example.com/s", "usages": ["client auth"], "request": REQUEST}},
}
WORKLOAD = {"selector": SELECTOR, "template": ALWAYS}
SAMPLES["replicasets"] = {"spec": {"replicas": 0, **WORKLOAD}}
SAMPLES["statefulsets"] = {"spec": {"replicas": 0, "serviceName": "s", **WORKLOAD, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}}
SAMPLES["daemonsets"] = {"spec": {**WORKLOAD, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}}}
SAMPLES["clusterrolebindings"] = SAMPLES["rolebindings"]

WRONG = [None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, -(2**63), 10**30, 1e308, "", " ", "a", "A_B", "x" * 300, "-1", "1Gi", "1e400", "NaN", "50%", "-50%", "\u0000", "\ud83d\ude00", "../..", "a/b/c",
         [], {}, [[]], [{}], [None], {"": ""}, {"a": None}, {"$patch": "delete"}, {"$patch": "nonsense"}, ["a", "a"], [1, "a", None], "2026-01-01T00:00:00Z", "0.0.0.0", "::", "10.0.0.0/8",
         {"a" * 400: "b"}, {"matchLabels": {"é": "ü"}}]


def places(value, path=()):
    """All places in a value, as (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(items):
        yield value, key
        yield from places(below, path)


def mutated(rng, value):
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        all_places = list(places(value))
        if not all_places:
            return value
        where, key = rng.choice(all_places)
        what = rng.randrange(8)
        if what == 0 and isinstance(where, dict):
            del where[key]
        elif what == 1 and isinstance(where, dict):
            where[rng.choice(("unknown", "name", "spec", "$setElementOrder/containers", "$retainKeys", ""))] = rng.choice(WRONG)
        elif what == 2 and isinstance(where, list):
            where.append(copy.deepcopy(where[key]))
        elif what == 3:
            nested = "deep"
            for _ in range(rng.choice((3, 50, 150))):
                nested = rng.choice(({"x": nested}, [nested]))
            where[key] = nested
        else:
            where[key] = copy.deepcopy(rng.choice(WRONG))
    return value


class Mutations(Case):
    """Throws things at one kind."""

    subs = {}

    def throw(self, api, resource):
        rng = random.Random(f"{SEED} {api} {resource['name']}")
        path = f"{api}/namespaces/{self.ns}/{resource['name']}" if resource["namespaced"] else f"{api}/{resource['name']}"
        group = api.removeprefix("/apis/").removeprefix("/api/")
        name = f"{self.ns}-m"[-60:].strip("-")
        if resource["name"] == "ipaddresses":
            return
        base = {"apiVersion": group, "kind": resource["kind"], "metadata": {"name": name, "labels": {"of": self.ns}, "annotations": {"a": "b"}}, **SAMPLES.get(resource["name"], {})}
        if group == "events.k8s.io/v1":
            base.update({"reportingController": "a/b", "reportingInstance": "i", "action": "a", "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": base.pop("involvedObject"), "note": base.pop("message")})
            base.pop("count")
        one = f"{path}/{name}"
        request("DELETE", one)
        self.addCleanup(request, "DELETE", path, labelSelector=f"of={self.ns}")
        made = request("POST", path, base)
        self.assertEqual(made.status, 201, made)
        for _ in range(COUNT):
            before = get(one)
            method = rng.choice(("POST", "PUT", "PATCH", "PATCH"))
            kind = JSON
            if method == "POST":
                where, body = path, mutated(rng, {**base, "metadata": {**base["metadata"], "name": f"{name}-2"}})
            elif method == "PUT":
                where, body = one, mutated(rng, before.json if before.status == 200 else base)
            else:
                where, kind = one, rng.choice((MERGE, STRATEGIC, PATCH, APPLY))
                body = mutated(rng, base)
                if kind == PATCH:
                    member = rng.choice(("/spec", "/metadata/labels", "/metadata/name", "/nope/x", "", "/spec/-", "/metadata/annotations/a"))
                    body = mutated(rng, [{"op": rng.choice(("add", "remove", "replace", "test", "copy", "move", "x")), "path": member, "value": rng.choice(WRONG), "from": "/metadata"}])
            if rng.randrange(4) == 0 and "/status" not in where and where == one and f"{resource['name']}/status" in self.subs.get(api, ()):
                where += "/status"
            options = {"fieldManager": "m", "force": "true"} if kind == APPLY else {}
            if rng.randrange(3) == 0:
                options["fieldValidation"] = "Strict"
            text = json.dumps(body)
            if rng.randrange(20) == 0:
                text = text[:rng.randrange(len(text) + 1)]
            began = time.monotonic()
            answer = request(method, where, text, kind, **options)
            said = f"{method} {where} {kind} {options} {text[:2000]} gave {answer}"
            self.assertLess(answer.status, 500, said)
            self.assertLess(time.monotonic() - began, SLOW, said)
            if answer.status >= 400:
                self.assertEqual(answer.json["kind"], "Status", said)
                after = get(one)
                if before.status == 200 and after.status == 200 and method != "POST" and resource["name"] not in LIVELY:
                    self.assertEqual(after.json["metadata"]["resourceVersion"], before.json["metadata"]["resourceVersion"], said)
            if before.status != 200:
                request("POST", path, base)
            request("DELETE", f"{path}/{name}-2", {"gracePeriodSeconds": 0})
        for where in (path, one, f"{path}?watch=1&timeoutSeconds=1"):
            self.assertLess(get(where).status, 500, where)
        patched = request("PATCH", one, {"metadata": {"finalizers": None}}, MERGE)
        self.assertLess(patched.status, 500, patched)


# Kinds whose objects others write meanwhile.
LIVELY = ("namespaces", "nodes", "pods", "deployments", "replicasets", "statefulsets", "daemonsets", "replicationcontrollers", "jobs", "cronjobs", "services", "persistentvolumes", "persistentvolumeclaims",
          "poddisruptionbudgets", "resourcequotas", "horizontalpodautoscalers", "endpoints", "endpointslices", "serviceaccounts")


class Every(Mutations):
    def throw_at(self, part):
        """A quarter of the kinds."""
        apis = ["/api/v1"] + [f"/apis/{v['groupVersion']}" for g in read("/apis")["groups"] for v in g["versions"]]
        kinds = []
        for api in apis:
            resources = read(api)["resources"]
            self.subs[api] = {r["name"] for r in resources}
            kinds += [(api, r) for r in resources if "/" not in r["name"] and {"create", "get", "update"} <= set(r["verbs"])]
        self.assertGreater(len(kinds), 45)
        for api, resource in kinds[part::4]:
            with self.subTest(kind=f"{api}/{resource['name']}"):
                self.throw(api, resource)
        self.assertEqual(get("/readyz").body, b"ok")

    def test_mutations_0(self):
        self.throw_at(0)

    def test_mutations_1(self):
        self.throw_at(1)

    def test_mutations_2(self):
        self.throw_at(2)

    def test_mutations_3(self):
        self.throw_at(3)


__all__ = ["Every"]
