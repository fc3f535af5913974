"""Every kind alike: create, get, list, watch, patch, update, status, apply, delete, deletecollection."""

from _kube import APPLY, MERGE, PATCH, STRATEGIC, Case, Watch, change, create, delete, get, gone, ok, patch, pod_spec, read, replace, request, \
    shows, until

LABEL = "special=label"


class Operations(Case):
    def whole(self, path, thing, every=None, status=None, spec=None, after=None):
        """Takes objects of a kind through their life. `path`: the collection; `every`: that of all namespaces; `status`:
        a status to write; `spec`: a merge patch of what is no metadata, and `after` whether it is seen."""
        self.assertIn(path.rsplit("/", 1)[1], [r["name"] for r in read(self.version(path))["resources"]])
        base = thing["metadata"].get("name", "")
        labels = {"special": "label", "of": self.ns}
        mark = f"of={self.ns}"

        def new(name=None):
            made = {**thing, "metadata": {**thing["metadata"], "labels": {**thing["metadata"].get("labels", {}), **labels}}}
            if base:
                made["metadata"]["name"] = name or base
            return made

        names = [base + suffix for suffix in ("", "-2", "-3")]
        for prior in names:  # of an earlier run
            request("DELETE", f"{path}/{prior}")
        made = [create(path, new(n)) for n in names]
        one = f"{path}/{names[0]}"
        seen = read(one)
        self.assertEqual(seen["metadata"]["uid"], made[0]["metadata"]["uid"])
        for where in [path] + ([every] if every else []):
            listed = read(where, labelSelector=mark)
            self.assertEqual(sorted(i["metadata"]["name"] for i in listed["items"]), sorted(names), where)
            self.assertNotIn("kind", listed["items"][0].keys() - {"kind"})
        watch = Watch(path, labelSelector=mark, resourceVersion=listed["metadata"]["resourceVersion"])
        self.addCleanup(watch.close)
        for kind in (MERGE, STRATEGIC):
            patched = patch(one, {"metadata": {"annotations": {"patched": kind}}}, kind)
            self.assertEqual(patched["metadata"]["annotations"]["patched"], kind)
        patched = patch(one, [{"op": "add", "path": "/metadata/annotations/json", "value": "yes"}], PATCH)
        self.assertEqual(patched["metadata"]["annotations"]["json"], "yes")
        watch.until("MODIFIED", lambda o: o["metadata"].get("annotations", {}).get("json") == "yes")
        change(one, lambda o: o["metadata"].setdefault("annotations", {}).update(updated="true"))
        watch.until("MODIFIED", lambda o: o["metadata"]["annotations"].get("updated") == "true")
        full = {**new(), "apiVersion": seen["apiVersion"], "kind": seen["kind"]}
        full["metadata"].setdefault("annotations", {})["applied"] = "true"
        applied = ok(request("PATCH", one, full, APPLY, fieldManager="tests", force="true"))
        self.assertEqual(applied["metadata"]["annotations"]["applied"], "true")
        if spec:
            generation = read(one)["metadata"].get("generation")
            changed = patch(one, spec)
            self.assertTrue(after(changed), changed)
            if generation:
                self.assertGreater(changed["metadata"]["generation"], generation)
        if status:
            self.status(one, status)
        delete(one)
        until(lambda: gone(one), 10)
        watch.until("DELETED", lambda o: o["metadata"]["name"] == names[0])
        ok(request("DELETE", path, labelSelector=mark))
        until(lambda: not read(path, labelSelector=mark)["items"], 10)

    def status(self, one, status):
        field, value = next(iter(status.items()))
        read(f"{one}/status")
        before = read(one)["metadata"].get("generation")
        patched = patch(f"{one}/status", {"metadata": {"annotations": {"status": "patched"}}, "status": status})
        self.assertEqual(patched["metadata"]["annotations"]["status"], "patched")
        self.assertEqual(patched["status"][field], value)
        change(f"{one}/status", lambda o: o["metadata"]["annotations"].update(status="updated"))
        seen = read(one)
        self.assertEqual(seen["metadata"]["annotations"]["status"], "updated")
        self.assertEqual(seen["metadata"].get("generation"), before)
        # The status is no part of the object's own update.
        other = {**seen, "status": {}}
        other["metadata"].pop("resourceVersion")
        self.assertEqual(replace(one, other)["status"].get(field), value)

    def version(self, path):
        parts = path.strip("/").split("/")
        return "/" + "/".join(parts[:2] if parts[0] == "api" else parts[:3])

    @shows("Ingress API should support creating Ingress API operations")
    def test_ingress(self):
        thing = {"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}
        self.whole(f"{self.group('networking.k8s.io/v1')}/ingresses", thing, "/apis/networking.k8s.io/v1/ingresses",
                   {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}},
                   {"spec": {"rules": [{"host": "host.bar.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "x", "port": {"number": 1}}}}]}}]}},
                   lambda o: o["spec"]["rules"][0]["host"] == "host.bar.com")

    @shows("IngressClass API should support creating IngressClass API operations")
    def test_ingress_class(self):
        self.whole("/apis/networking.k8s.io/v1/ingressclasses", {"metadata": {"name": f"{self.ns}-c"}, "spec": {"controller": "example.com/controller"}})

    def test_network_policy(self):
        self.whole(f"{self.group('networking.k8s.io/v1')}/networkpolicies", {"metadata": {"name": "n"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}},
                   "/apis/networking.k8s.io/v1/networkpolicies")

    @shows("EndpointSlice should support creating EndpointSlice API operations")
    def test_endpoint_slice(self):
        self.whole(f"{self.group('discovery.k8s.io/v1')}/endpointslices", {"metadata": {"name": "e"}, "addressType": "IPv4",
                   "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}]}, "/apis/discovery.k8s.io/v1/endpointslices",
                   None, {"ports": [{"name": "http", "port": 80}]}, lambda o: o["ports"][0]["protocol"] == "TCP")

    @shows("RuntimeClass should support RuntimeClasses API operations")
    def test_runtime_class(self):
        self.whole("/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": f"{self.ns}-r"}, "handler": "runc"})

    @shows("PodTemplates should run the lifecycle of PodTemplates", "PodTemplates should delete a collection of pod templates",
           "PodTemplates should replace a pod template")
    def test_pod_template(self):
        self.whole(f"{self.v1}/podtemplates", {"metadata": {"name": "t"}, "template": {"spec": pod_spec()}}, "/api/v1/podtemplates",
                   None, {"template": {"metadata": {"labels": {"x": "y"}}}}, lambda o: o["template"]["metadata"]["labels"]["x"] == "y")

    @shows("Lease lease API should be available")
    def test_lease(self):
        self.whole(f"{self.group('coordination.k8s.io/v1')}/leases", {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 30,
                   "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:05.123456Z", "leaseTransitions": 0}},
                   "/apis/coordination.k8s.io/v1/leases", None, {"spec": {"leaseTransitions": 1}}, lambda o: o["spec"]["renewTime"].endswith(".123456Z"))

    @shows("CSIInlineVolumes should run through the lifecycle of a CSIDriver")
    def test_csi_driver(self):
        self.whole("/apis/storage.k8s.io/v1/csidrivers", {"metadata": {"name": f"{self.ns}-d"}, "spec": {"attachRequired": False, "volumeLifecycleModes": ["Ephemeral"]}})

    @shows("CSINodes CSI Conformance should run through the lifecycle of a csinode")
    def test_csi_node(self):
        self.whole("/apis/storage.k8s.io/v1/csinodes", {"metadata": {"name": f"{self.ns}-n"}, "spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": []}]}})

    @shows("CSIStorageCapacity should support CSIStorageCapacities API operations")
    def test_csi_storage_capacity(self):
        self.whole(f"{self.group('storage.k8s.io/v1')}/csistoragecapacities", {"metadata": {"name": "c"}, "storageClassName": "standard", "capacity": "10Gi"},
                   "/apis/storage.k8s.io/v1/csistoragecapacities", None, {"capacity": "20Gi"}, lambda o: o["capacity"] == "20Gi")

    @shows("StorageClasses CSI Conformance should run through the lifecycle of a StorageClass")
    def test_storage_class(self):
        self.whole("/apis/storage.k8s.io/v1/storageclasses", {"metadata": {"name": f"{self.ns}-s"}, "provisioner": "example.com/none"})

    @shows("VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment",
           "VolumeAttachment Conformance should apply changes to a volumeattachment status")
    def test_volume_attachment(self):
        self.whole("/apis/storage.k8s.io/v1/volumeattachments", {"metadata": {"name": f"{self.ns}-v"}, "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}},
                   None, {"attached": True})

    @shows("VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass")
    def test_volume_attributes_class(self):
        self.whole("/apis/storage.k8s.io/v1/volumeattributesclasses", {"metadata": {"name": f"{self.ns}-v"}, "driverName": "d", "parameters": {"a": "b"}})

    @shows("SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods")
    def test_priority_class(self):
        path = "/apis/scheduling.k8s.io/v1/priorityclasses"
        self.whole(path, {"metadata": {"name": f"{self.ns}-p"}, "value": 7}, None, None, {"description": "changed"}, lambda o: o["description"] == "changed")
        create(path, {"metadata": {"name": f"{self.ns}-x"}, "value": 1})
        answer = request("PATCH", f"{path}/{self.ns}-x", {"value": 5}, MERGE)
        self.assertEqual(answer.status, 422, answer)
        delete(f"{path}/{self.ns}-x")

    @shows("[DRA] CRUD Tests resource.k8s.io/v1 DeviceClass")
    def test_device_class(self):
        self.whole("/apis/resource.k8s.io/v1/deviceclasses", {"metadata": {"name": f"{self.ns}-d"}, "spec": {}}, None, None,
                   {"spec": {"selectors": [{"cel": {"expression": "true"}}]}}, lambda o: o["spec"]["selectors"][0]["cel"]["expression"] == "true")

    @shows("[DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim")
    def test_resource_claim(self):
        self.whole(f"{self.group('resource.k8s.io/v1')}/resourceclaims",
                   {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "x"}}]}}}, "/apis/resource.k8s.io/v1/resourceclaims",
                   {"allocation": {"devices": {"results": [{"request": "r", "driver": "d.example.com", "pool": "p", "device": "dev"}]}}})

    @shows("[DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate")
    def test_resource_claim_template(self):
        self.whole(f"{self.group('resource.k8s.io/v1')}/resourceclaimtemplates",
                   {"metadata": {"name": "c"}, "spec": {"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "x"}}]}}}}, "/apis/resource.k8s.io/v1/resourceclaimtemplates")

    @shows("[DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice")
    def test_resource_slice(self):
        self.whole("/apis/resource.k8s.io/v1/resourceslices", {"metadata": {"name": f"{self.ns}-s"}, "spec": {"driver": "d.example.com", "nodeName": "n",
                   "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "dev"}]}},
                   None, None, {"spec": {"pool": {"generation": 2}}}, lambda o: o["spec"]["pool"]["generation"] == 2)

    @shows("API priority and fairness should support FlowSchema API operations")
    def test_flow_schema(self):
        thing = {"metadata": {"name": f"{self.ns}-f"}, "spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
                 "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "nobody"}}],
                 "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}}
        self.whole("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", thing, None, {"conditions": [{"type": "PatchStatusFailed", "status": "False", "reason": "R", "message": "m"}]},
                   {"spec": {"matchingPrecedence": 9999}}, lambda o: o["spec"]["matchingPrecedence"] == 9999)

    @shows("API priority and fairness should support PriorityLevelConfiguration API operations")
    def test_priority_level(self):
        thing = {"metadata": {"name": f"{self.ns}-p"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}
        self.whole("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", thing, None, {"conditions": [{"type": "Dangling", "status": "False", "reason": "R", "message": "m"}]},
                   {"spec": {"limited": {"nominalConcurrencyShares": 4}}}, lambda o: o["spec"]["limited"]["nominalConcurrencyShares"] == 4)

    @shows("ServiceCIDR and IPAddress API should support ServiceCIDR API operations")
    def test_service_cidr(self):
        path = "/apis/networking.k8s.io/v1/servicecidrs"
        self.assertEqual(read(f"{path}/kubernetes")["spec"]["cidrs"], ["10.96.0.0/16"])
        self.whole(path, {"metadata": {"name": f"{self.ns}-c"}, "spec": {"cidrs": ["10.20.30.0/24"]}}, None,
                   {"conditions": [{"type": "Other", "status": "False", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})

    @shows("ServiceCIDR and IPAddress API should support IPAddress API operations")
    def test_ip_address(self):
        path = "/apis/networking.k8s.io/v1/ipaddresses"
        number = int(self.ns[1:].split('-')[0])
        thing = {"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "n"}}, "metadata": {"labels": {"of": self.ns}}}
        names = [f"10.97.{number}.{i}" for i in (5, 6)]
        for name in names:
            create(path, {**thing, "metadata": {"name": name, "labels": {"of": self.ns}}})
        self.assertEqual(len(read(path, labelSelector=f"of={self.ns}")["items"]), 2)
        self.assertEqual(patch(f"{path}/{names[0]}", {"metadata": {"annotations": {"a": "b"}}})["metadata"]["annotations"]["a"], "b")
        change(f"{path}/{names[0]}", lambda o: o["metadata"]["annotations"].update(c="d"))
        delete(f"{path}/{names[0]}")
        ok(request("DELETE", path, labelSelector=f"of={self.ns}"))
        until(lambda: not read(path, labelSelector=f"of={self.ns}")["items"])
        self.assertEqual(request("POST", path, {**thing, "metadata": {"name": "no-address"}}).status, 422)

    @shows("ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision")
    def test_controller_revision(self):
        self.whole(f"{self.apps}/controllerrevisions", {"metadata": {"name": "c"}, "data": {"a": 1}, "revision": 1}, "/apis/apps/v1/controllerrevisions",
                   None, {"revision": 3}, lambda o: o["revision"] == 3)

    @shows("ConfigMap should run through a ConfigMap lifecycle")
    def test_config_map(self):
        self.whole(f"{self.v1}/configmaps", {"metadata": {"name": "c"}, "data": {"a": "b"}}, "/api/v1/configmaps", None, {"data": {"c": "d"}}, lambda o: o["data"] == {"a": "b", "c": "d"})

    @shows("Secrets should patch a secret")
    def test_secret(self):
        self.whole(f"{self.v1}/secrets", {"metadata": {"name": "s"}, "stringData": {"key": "value"}}, "/api/v1/secrets", None, {"stringData": {"new": "v"}},
                   lambda o: o["data"] == {"key": "dmFsdWU=", "new": "dg=="} and "stringData" not in o)

    @shows("LimitRange should list, patch and delete a LimitRange by collection")
    def test_limit_range(self):
        self.whole(f"{self.v1}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "4"}}]}}, "/api/v1/limitranges",
                   None, {"spec": {"limits": [{"type": "Pod", "max": {"cpu": "3"}}]}}, lambda o: o["spec"]["limits"][0]["max"]["cpu"] == "3")

    @shows("Services should delete a collection of services")
    def test_service(self):
        self.whole(f"{self.v1}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}, "/api/v1/services",
                   {"conditions": [{"type": "T", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})

    @shows("Services should complete a service status lifecycle")
    def test_service_status(self):
        path = f"{self.v1}/services/s"
        watch = self.watch(f"{self.v1}/services", labelSelector="of=status")
        create(f"{self.v1}/services", {"metadata": {"name": "s", "labels": {"of": "status"}}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "name": "http"}]}})
        watch.until("ADDED")
        patch(f"{path}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}})
        seen = watch.until("MODIFIED", lambda o: o["metadata"].get("annotations", {}).get("patchedstatus") and o["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1")
        self.assertTrue(seen)
        entry = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        change(f"{path}/status", lambda o: o["status"].update(conditions=[entry]))
        watch.until("MODIFIED", lambda o: o["status"].get("conditions"))
        patch(path, {"metadata": {"labels": {"x": "y"}}})
        watch.until("MODIFIED", lambda o: o["metadata"]["labels"].get("x") == "y")
        delete(path)
        watch.until("DELETED")

    @shows("Endpoints should test the lifecycle of an Endpoint")
    def test_endpoints(self):
        self.whole(f"{self.v1}/endpoints", {"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"port": 80, "name": "http"}]}]}, "/api/v1/endpoints")

    def test_rbac(self):
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
        group = "rbac.authorization.k8s.io/v1"
        self.whole(f"{self.group(group)}/roles", {"metadata": {"name": "r"}, "rules": rules}, f"/apis/{group}/roles")
        self.whole(f"/apis/{group}/clusterroles", {"metadata": {"name": f"{self.ns}-r"}, "rules": rules})
        bound = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}]}
        self.whole(f"{self.group(group)}/rolebindings", {"metadata": {"name": "b"}, **bound}, f"/apis/{group}/rolebindings")
        self.whole(f"/apis/{group}/clusterrolebindings", {"metadata": {"name": f"{self.ns}-b"}, **bound})

    def test_autoscaler_in_both_versions(self):
        two, one = (f"{self.group('autoscaling/' + v)}/horizontalpodautoscalers" for v in ("v2", "v1"))
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        create(two, {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}}]}})
        seen = read(f"{one}/h")
        self.assertEqual((seen["apiVersion"], seen["spec"]["targetCPUUtilizationPercentage"], seen["spec"]["minReplicas"]), ("autoscaling/v1", 60, 1))
        self.assertIn("memory", seen["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"])
        self.assertNotIn("metrics", seen["spec"])
        patch(f"{one}/h", {"spec": {"targetCPUUtilizationPercentage": 50}})
        metrics = read(f"{two}/h")["spec"]["metrics"]
        self.assertEqual({m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in metrics}, {"cpu": 50, "memory": 70})
        create(one, {"metadata": {"name": "old"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 40}})
        self.assertEqual(read(f"{two}/old")["spec"]["metrics"][0]["resource"]["target"], {"type": "Utilization", "averageUtilization": 40})
        self.assertEqual(read(one)["items"][0]["apiVersion"], "autoscaling/v1")
        self.assertEqual(request("POST", one, {"metadata": {"name": "bad"}, "spec": {"scaleTargetRef": target, "maxReplicas": 0}}).status, 422)
        delete(f"{one}/h")
        self.assertTrue(gone(f"{two}/h"))


class Events(Case):
    @shows("Events should manage the lifecycle of an event", "Events should delete a collection of events")
    def test_core(self):
        thing = {"metadata": {"name": "e", "namespace": self.ns}, "involvedObject": {"kind": "Pod", "namespace": self.ns, "name": "p"}, "message": "m", "reason": "Test", "type": "Normal",
                 "source": {"component": "tests"}, "firstTimestamp": "2026-01-01T00:00:00Z", "count": 1}
        path = f"{self.v1}/events"
        for name in ("e", "e2", "e3"):
            thing["metadata"] = {"name": name, "labels": {"testevent": name[:1]}}
            create(path, thing)
        self.assertEqual(len(read("/api/v1/events", labelSelector="testevent=e")["items"]), 3)
        patched = patch(f"{path}/e", {"message": "patched"}, STRATEGIC)
        self.assertEqual((patched["message"], patched["reason"]), ("patched", "Test"))
        patched["series"] = {"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}
        replace(f"{path}/e", patched)
        self.assertEqual(read(f"{path}/e")["series"]["count"], 100)
        self.assertEqual(len(read(path, fieldSelector="involvedObject.name=p,reason=Test,type=Normal")["items"]), 3)
        delete(f"{path}/e")
        ok(request("DELETE", path, labelSelector="testevent=e"))
        self.assertEqual(read(path, labelSelector="testevent=e")["items"], [])

    @shows("Events API should ensure that an event can be fetched, patched, deleted, and listed",
           "Events API should delete a collection of events")
    def test_events_group(self):
        path = f"{self.group('events.k8s.io/v1')}/events"

        def thing(name):
            return {"metadata": {"name": name, "labels": {"testevent": "x"}}, "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "test-controller", "reportingInstance": "i",
                    "action": "Do", "reason": "Test", "type": "Normal", "note": "a note", "regarding": {"kind": "Pod", "namespace": self.ns, "name": "p"},
                    "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000001Z"}}
        made = create(path, thing("e"))
        self.assertEqual(made["eventTime"], "2026-01-01T00:00:00.000001Z")
        for where in (path, "/apis/events.k8s.io/v1/events"):
            self.assertIn("e", [i["metadata"]["name"] for i in read(where, labelSelector="testevent=x")["items"] if i["metadata"]["namespace"] == self.ns])
        self.assertEqual(read(f"{self.v1}/events/e")["message"], "a note")
        patched = patch(f"{path}/e", {"series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:09.000001Z"}}, STRATEGIC)
        self.assertEqual(patched["series"]["count"], 3)
        patched["series"]["count"] = 100
        self.assertEqual(replace(f"{path}/e", patched)["series"]["count"], 100)
        delete(f"{path}/e")
        self.assertTrue(gone(f"{path}/e"))
        for name in ("a", "b", "c"):
            create(path, thing(name))
        ok(request("DELETE", path, labelSelector="testevent=x"))
        self.assertEqual(read(path, labelSelector="testevent=x")["items"], [])


__all__ = ["Events", "Operations"]
