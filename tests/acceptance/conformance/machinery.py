"""API machinery: discovery, garbage collection, namespaces, lists in chunks, tables, watches."""

import json
import time
import urllib.parse

from _kube import APPLY, JSON, MERGE, STRATEGIC, Case, Watch, alone, change, create, delete, get, gone, ok, patch, pod, read, refused, \
    replace, request, shows, until, workload

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Discovery(Case):
    @shows("Discovery should validate PreferredVersion for each APIGroup",
           "Discovery should locate the groupVersion and a resource within each APIGroup")
    def test_groups(self):
        groups = read("/apis")["groups"]
        self.assertTrue(groups)
        for group in groups:
            seen = read(f"/apis/{group['name']}")
            versions = [v["groupVersion"] for v in seen["versions"]]
            self.assertIn(seen["preferredVersion"]["groupVersion"], versions)
            for version in versions:
                resources = read(f"/apis/{version}")
                self.assertEqual(resources["groupVersion"], version)
                self.assertTrue(resources["resources"], version)

    @shows("AggregatedDiscovery should support aggregated discovery interface",
           "AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers")
    def test_aggregated(self):
        for path, wanted in (("/api", ("", "v1")), ("/apis", ("apps", "v1"))):
            answer = get(path, accept=AGGREGATED)
            self.assertIn("apidiscovery.k8s.io", answer.headers["content-type"])
            found = ok(answer)
            self.assertEqual((found["kind"], found["apiVersion"]), ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2"))
            names = {(g["metadata"].get("name", ""), v["version"]) for g in found["items"] for v in g["versions"]}
            self.assertIn(wanted, names)
            self.assertNotIn("APIGroupDiscoveryList", read(path)["kind"])
        groups = {g["metadata"]["name"]: g for g in ok(get("/apis", accept=f"{AGGREGATED},application/json"))["items"]}
        resources = {r["resource"]: r for v in groups["apps"]["versions"] for r in v["resources"]}
        deployments = resources["deployments"]
        self.assertEqual(deployments["responseKind"]["kind"], "Deployment")
        self.assertEqual(deployments["scope"], "Namespaced")
        self.assertIn("watch", deployments["verbs"])
        self.assertEqual({s["subresource"] for s in deployments["subresources"]}, {"status", "scale"})
        for name in ("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "events.k8s.io", "networking.k8s.io",
                     "policy", "rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "resource.k8s.io"):
            if name not in groups:
                self.assertIn(name, ("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"))

    @shows("server version should find the server version")
    def test_version(self):
        version = read("/version")
        self.assertEqual((version["major"], version["minor"]), ("1", "36"))
        self.assertRegex(version["gitVersion"], r"^v1\.36\.")
        self.assertEqual(set(version) >= {"gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"}, True)

    def test_health(self):
        for path in ("/healthz", "/livez", "/readyz", "/livez/ping", "/readyz/etcd"):
            self.assertEqual((get(path).status, get(path).body), (200, b"ok"), path)
        self.assertEqual(get("/readyz/nonsense").status, 404)


class Chunks(Case):
    @shows("Servers with support for API chunking should return chunks of results for list calls")
    def test_chunks(self):
        path = f"{self.v1}/podtemplates"
        for i in range(40):
            create(path, {"metadata": {"name": f"template-{i:04}"}, "template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}})
        seen, token, revision = [], None, None
        while True:
            page = read(path, limit=7, **({"continue": token} if token else {}))
            revision = revision or page["metadata"]["resourceVersion"]
            self.assertEqual(page["metadata"]["resourceVersion"], revision)
            self.assertLessEqual(len(page["items"]), 7)
            seen += [i["metadata"]["name"] for i in page["items"]]
            token = page["metadata"].get("continue")
            if not token:
                self.assertNotIn("remainingItemCount", page["metadata"])
                break
            self.assertEqual(page["metadata"]["remainingItemCount"], 40 - len(seen))
        self.assertEqual(seen, [f"template-{i:04}" for i in range(40)])
        self.assertEqual(len(read(path, limit=0)["items"]), 40)

    def test_exact_revision(self):
        path = f"{self.v1}/configmaps"
        create(path, {"metadata": {"name": "a"}})
        before = read(path)
        revision = before["metadata"]["resourceVersion"]
        create(path, {"metadata": {"name": "b"}})
        patch(f"{path}/a", {"data": {"k": "v"}})
        delete(f"{path}/kube-root-ca.crt")
        then = read(path, resourceVersion=revision, resourceVersionMatch="Exact")
        self.assertEqual(then["metadata"]["resourceVersion"], revision)
        self.assertEqual(then["items"], before["items"])
        first = read(path, resourceVersion=revision, resourceVersionMatch="Exact", limit=1)
        self.assertEqual(first["metadata"]["resourceVersion"], revision)
        rest = read(path, limit=5, **{"continue": first["metadata"]["continue"]})
        self.assertEqual(first["items"] + rest["items"], before["items"])
        # Without a rule, a revision and a limit mean the same.
        self.assertEqual(read(path, resourceVersion=revision, limit=9)["items"], before["items"])
        self.assertGreater(len(read(path, resourceVersion=revision, resourceVersionMatch="NotOlderThan")["items"]), 1)


class Tables(Case):
    @shows("Servers with support for Table transformation should return a 406 for a backend which does not implement metadata")
    def test_reviews_have_no_table(self):
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", "verb": "get"}}}
        answer = request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        refused(answer, 406, "NotAcceptable")

    def test_tables(self):
        create(f"{self.v1}/configmaps", {"metadata": {"name": "one"}, "data": {"a": "1"}})
        table = ok(get(f"{self.v1}/configmaps", accept=TABLE))
        self.assertEqual((table["kind"], table["apiVersion"]), ("Table", "meta.k8s.io/v1"))
        self.assertEqual([c["name"] for c in table["columnDefinitions"]], ["Name", "Data", "Age"])
        rows = {r["cells"][0]: r for r in table["rows"]}
        self.assertEqual(rows["one"]["object"]["kind"], "PartialObjectMetadata")
        table = ok(get(f"{self.v1}/configmaps", accept=TABLE, includeObject="Object", limit=1))
        self.assertEqual(table["rows"][0]["object"]["kind"], "ConfigMap")
        self.assertTrue(table["metadata"]["continue"])
        partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        self.assertEqual(ok(get(f"{self.v1}/configmaps", accept=partial))["kind"], "PartialObjectMetadataList")


class Garbage(Case):
    def owned(self, kind, name, replicas=2):
        """A controller with its pods; its path."""
        path = f"{self.v1}/replicationcontrollers" if kind == "ReplicationController" else f"{self.apps}/deployments"
        create(path, workload(kind, name, replicas))
        until(lambda: len(self.pods(f"app={name}")) == replicas)
        return f"{path}/{name}"

    @shows("Garbage collector should delete pods created by rc when not orphaning")
    def test_background(self):
        path = self.owned("ReplicationController", "rc")
        delete(path, {"propagationPolicy": "Background"})
        until(lambda: gone(path) and not read(f"{self.v1}/pods")["items"])

    @shows("Garbage collector should orphan pods created by rc if delete options say so [Serial]")
    def test_orphan(self):
        path = self.owned("ReplicationController", "rc")
        delete(path, {"propagationPolicy": "Orphan"})
        until(lambda: gone(path))
        until(lambda: all(not p["metadata"].get("ownerReferences") for p in self.pods()))
        time.sleep(0.5)
        self.assertEqual(len(self.pods()), 2)

    @shows("Garbage collector should delete RS created by deployment when not orphaning")
    def test_deployment(self):
        path = self.owned("Deployment", "d")
        delete(path, {"propagationPolicy": "Background"})
        until(lambda: gone(path) and not read(f"{self.apps}/replicasets")["items"] and not read(f"{self.v1}/pods")["items"])

    @shows("Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan")
    def test_orphaned_replica_set(self):
        path = self.owned("Deployment", "d")
        delete(path, {"propagationPolicy": "Orphan"})
        until(lambda: gone(path))
        sets = until(lambda: read(f"{self.apps}/replicasets")["items"])
        until(lambda: not read(f"{self.apps}/replicasets")["items"][0]["metadata"].get("ownerReferences"))
        self.assertEqual(len(sets), 1)
        self.assertEqual(len(self.pods()), 2)

    @shows("Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial]")
    def test_foreground(self):
        path = self.owned("ReplicationController", "rc")
        held = self.pods()[0]["metadata"]["name"]
        patch(f"{self.v1}/pods/{held}", {"metadata": {"finalizers": ["example.com/held"]}})
        delete(path, {"propagationPolicy": "Foreground"})
        until(lambda: len(read(f"{self.v1}/pods")["items"]) == 1)
        seen = read(path)
        self.assertTrue(seen["metadata"]["deletionTimestamp"])
        self.assertIn("foregroundDeletion", seen["metadata"]["finalizers"])
        patch(f"{self.v1}/pods/{held}", {"metadata": {"finalizers": None}})
        until(lambda: gone(path) and not read(f"{self.v1}/pods")["items"])

    @shows("Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial]")
    def test_two_owners(self):
        leaving = self.owned("ReplicationController", "leaving", 2)
        create(f"{self.v1}/replicationcontrollers", workload("ReplicationController", "staying", 0))
        staying = read(f"{self.v1}/replicationcontrollers/staying")
        kept = self.pods("app=leaving")[0]["metadata"]["name"]
        owner = {"apiVersion": "v1", "kind": "ReplicationController", "name": "staying", "uid": staying["metadata"]["uid"]}
        change(f"{self.v1}/pods/{kept}", lambda p: p["metadata"]["ownerReferences"].append(owner))
        delete(leaving, {"propagationPolicy": "Foreground"})
        until(lambda: gone(leaving))
        left = self.pods()
        self.assertEqual([p["metadata"]["name"] for p in left], [kept])
        self.assertEqual([o["name"] for o in left[0]["metadata"]["ownerReferences"]], ["staying"])

    @shows("Garbage collector should not be blocked by dependency circle")
    def test_circle(self):
        made = [create(f"{self.v1}/pods", pod(f"pod{i}")) for i in (1, 2, 3)]
        for i, one in enumerate(made):
            owner = made[i - 1]["metadata"]
            reference = {"apiVersion": "v1", "kind": "Pod", "name": owner["name"], "uid": owner["uid"], "controller": True, "blockOwnerDeletion": True}
            patch(f"{self.v1}/pods/{one['metadata']['name']}", {"metadata": {"ownerReferences": [reference]}})
        delete(f"{self.v1}/pods/pod1", {"propagationPolicy": "Foreground"})
        until(lambda: not read(f"{self.v1}/pods")["items"])


class Namespaces(Case):
    def space(self, name):
        made = create("/api/v1/namespaces", {"metadata": {"name": f"{self.ns}-{name}"[-63:].lstrip("-")}})
        self.addCleanup(request, "DELETE", f"/api/v1/namespaces/{made['metadata']['name']}")
        return made["metadata"]["name"]

    @shows("Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted",
           "Namespaces [Serial] should ensure that all services are removed when a namespace is deleted")
    def test_contents_go(self):
        name = self.space("full")
        base = f"/api/v1/namespaces/{name}"
        until(lambda: get(f"{base}/serviceaccounts/default").status == 200)
        create(f"{base}/pods", pod("p"))
        create(f"{base}/services", {"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
        ok(request("DELETE", base), 200)
        until(lambda: gone(base))
        self.assertEqual(get(f"{base}/pods/p").status, 404)
        create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.assertEqual(read(f"{base}/pods")["items"] + read(f"{base}/services")["items"], [])

    @shows("OrderedNamespaceDeletion namespace deletion should delete pod first")
    def test_pods_go_first(self):
        name = self.space("ordered")
        base = f"/api/v1/namespaces/{name}"
        until(lambda: get(f"{base}/serviceaccounts/default").status == 200)
        create(f"{base}/configmaps", {"metadata": {"name": "held", "finalizers": ["e2e.example.com/held"]}})
        create(f"{base}/pods", pod("held", meta={"finalizers": ["e2e.example.com/held"]}))
        request("DELETE", base)
        until(lambda: read(f"{base}/pods/held")["metadata"].get("deletionTimestamp"))
        time.sleep(0.5)
        self.assertNotIn("deletionTimestamp", read(f"{base}/configmaps/held")["metadata"])
        conditions = {c["type"]: c for c in read(base)["status"]["conditions"]}
        self.assertEqual(conditions["NamespaceContentRemaining"]["status"], "True")
        self.assertEqual(conditions["NamespaceFinalizersRemaining"]["status"], "True")
        patch(f"{base}/pods/held", {"metadata": {"finalizers": None}})
        until(lambda: read(f"{base}/configmaps/held")["metadata"].get("deletionTimestamp"))
        patch(f"{base}/configmaps/held", {"metadata": {"finalizers": None}})
        until(lambda: gone(base))

    @shows("Namespaces [Serial] should patch a Namespace")
    def test_patch(self):
        name = self.space("patched")
        patch(f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"testLabel": "testValue"}}}, STRATEGIC)
        self.assertEqual(read(f"/api/v1/namespaces/{name}")["metadata"]["labels"]["testLabel"], "testValue")

    @shows("Namespaces [Serial] should apply changes to a namespace status")
    def test_status(self):
        path = f"/api/v1/namespaces/{self.space('status')}"
        entry = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "patched"}
        patched = patch(f"{path}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [entry]}})
        self.assertEqual(patched["metadata"]["annotations"]["patchedstatus"], "true")
        self.assertEqual(patched["status"]["conditions"][0]["type"], "StatusPatch")
        patched["status"]["conditions"].append({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "updated"})
        self.assertEqual(len(replace(f"{path}/status", patched)["status"]["conditions"]), 2)

    @shows("Namespaces [Serial] should apply an update to a Namespace")
    def test_update(self):
        path = f"/api/v1/namespaces/{self.space('updated')}"
        change(path, lambda n: n["metadata"]["labels"].update({"new": "label"}))
        self.assertEqual(read(path)["metadata"]["labels"]["new"], "label")

    @shows("Namespaces [Serial] should apply a finalizer to a Namespace")
    def test_finalizer(self):
        name = self.space("finalized")
        path = f"/api/v1/namespaces/{name}"
        thing = read(path)
        thing["spec"]["finalizers"].append("e2e.example.com/fake")
        seen = replace(f"{path}/finalize", thing)
        self.assertIn("e2e.example.com/fake", seen["spec"]["finalizers"])
        request("DELETE", path)
        until(lambda: read(path)["status"]["phase"] == "Terminating")
        refused(request("POST", f"{path}/configmaps", {"metadata": {"name": "late"}}), 403, "Forbidden", "is being terminated")

        def released():
            # The controller writes to the namespace too: a stale copy is read anew.
            thing = read(path)
            thing["spec"]["finalizers"] = [f for f in thing["spec"]["finalizers"] if f != "e2e.example.com/fake"]
            return request("PUT", f"{path}/finalize", thing).status != 409

        until(released)
        until(lambda: gone(path))


class Watchers(Case):
    def config_map(self, name, labels, **data):
        return create(f"{self.v1}/configmaps", {"metadata": {"name": name, "labels": labels}, "data": data})

    @shows("Watchers should observe add, update, and delete watch notifications on configmaps")
    def test_notifications(self):
        path = f"{self.v1}/configmaps"
        a, b = (self.watch(path, labelSelector=f"w={v}") for v in "ab")
        both = self.watch(path, labelSelector="w in (a,b)")
        self.config_map("ca", {"w": "a"})
        patch(f"{path}/ca", {"data": {"mutation": "1"}})
        delete(f"{path}/ca")
        self.config_map("cb", {"w": "b"})
        for watch in (a, both):
            self.assertEqual([watch.next()[0] for _ in range(3)], ["ADDED", "MODIFIED", "DELETED"])
        for watch in (b, both):
            kind, thing = watch.next()
            self.assertEqual((kind, thing["metadata"]["name"]), ("ADDED", "cb"))
        a.silent(0.3)

    @shows("Watchers should be able to start watching from a specific resource version",
           "Watchers should be able to restart watching from the last resource version observed by the previous watch")
    def test_resume(self):
        path = f"{self.v1}/configmaps"
        made = self.config_map("c", {"w": "x"})
        first = patch(f"{path}/c", {"data": {"n": "1"}})
        patch(f"{path}/c", {"data": {"n": "2"}})
        delete(f"{path}/c")
        watch = self.watch(path, labelSelector="w=x", resourceVersion=first["metadata"]["resourceVersion"])
        kind, thing = watch.next()
        self.assertEqual((kind, thing["data"]["n"]), ("MODIFIED", "2"))
        again = self.watch(path, labelSelector="w=x", resourceVersion=thing["metadata"]["resourceVersion"])
        self.assertEqual(again.next()[0], "DELETED")
        self.assertTrue(made["metadata"]["uid"])

    @shows("Watchers should observe an object deletion if it stops meeting the requirements of the selector")
    def test_selector(self):
        path = f"{self.v1}/configmaps"
        watch = self.watch(path, labelSelector="w=in")
        self.config_map("c", {"w": "in"})
        patch(f"{path}/c", {"data": {"n": "1"}})
        patch(f"{path}/c", {"metadata": {"labels": {"w": "out"}}})
        patch(f"{path}/c", {"data": {"n": "2"}})
        back = patch(f"{path}/c", {"metadata": {"labels": {"w": "in"}}})
        delete(f"{path}/c")
        seen = [watch.next() for _ in range(5)]
        self.assertEqual([k for k, _ in seen], ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"])
        self.assertEqual(seen[2][1]["data"]["n"], "1")
        self.assertEqual(seen[3][1]["metadata"]["resourceVersion"], back["metadata"]["resourceVersion"])

    @shows("Watchers should receive events on concurrent watches in same order")
    def test_order(self):
        path = f"{self.v1}/configmaps"
        start = read(path)["metadata"]["resourceVersion"]
        revisions = [self.config_map(f"c{i}", {})["metadata"]["resourceVersion"] for i in range(20)]
        for watch in [Watch(path, resourceVersion=r) for r in [start, *revisions[:-1:4]]]:
            seen = [watch.next()[1]["metadata"]["resourceVersion"] for _ in range(20 if watch is None else 1)]
            self.addCleanup(watch.close)
            while seen[-1] != revisions[-1]:
                seen.append(watch.next()[1]["metadata"]["resourceVersion"])
            self.assertEqual(seen, revisions[-len(seen):])

    def test_bookmarks_and_initial_events(self):
        path = f"{self.v1}/configmaps"
        self.config_map("c", {"w": "z"})
        watch = self.watch(path, labelSelector="w=z", sendInitialEvents="true", allowWatchBookmarks="true", resourceVersionMatch="NotOlderThan")
        self.assertEqual(watch.next()[0], "ADDED")
        kind, thing = watch.next()
        self.assertEqual(kind, "BOOKMARK")
        self.assertEqual(thing["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})


class Fields(Case):
    """Field validation and server-side apply."""

    def deployment(self, name):
        return workload("Deployment", name, 0)

    @shows("FieldValidation should detect unknown and duplicate fields of a typed object",
           "FieldValidation should detect unknown metadata fields of a typed object")
    def test_validation(self):
        path = f"{self.apps}/deployments"
        bad = json.dumps(self.deployment("d")).replace('"replicas": 0', '"replicas": 0, "replicas": 1, "unknownField": 1')
        refused(request("POST", path, bad, fieldValidation="Strict"), 400, "BadRequest", "strict decoding error", 'unknown field "spec.unknownField"', 'duplicate field "spec.replicas"')
        answer = request("POST", path, bad, fieldValidation="Warn")
        self.assertEqual(ok(answer, 201)["spec"]["replicas"], 1)
        self.assertIn('unknown field \\"spec.unknownField\\"', answer.headers["warning"])
        self.assertNotIn("warning", request("PUT", f"{path}/d", bad, fieldValidation="Ignore").headers)
        meta = self.deployment("m")
        meta["metadata"]["unknownMeta"] = "x"
        meta["spec"]["template"]["metadata"]["unknownMeta"] = "x"
        refused(request("POST", path, meta, fieldValidation="Strict"), 400, "BadRequest", 'unknown field "metadata.unknownMeta"', 'unknown field "spec.template.metadata.unknownMeta"')
        for kind in (MERGE, STRATEGIC):
            refused(request("PATCH", f"{path}/d", {"spec": {"foo": 1}}, kind, fieldValidation="Strict"), 400, "BadRequest", 'unknown field "spec.foo"')
        refused(request("PATCH", f"{path}/d", {**self.deployment("d"), "foo": 1}, APPLY, fieldManager="m", fieldValidation="Strict"), 400, "BadRequest", "foo")
        refused(request("POST", path, self.deployment("x"), fieldValidation="Nonsense"), 422, "Invalid", "fieldValidation")

    def test_apply(self):
        path = f"{self.apps}/deployments/applied"
        body = self.deployment("applied")
        made = ok(request("PATCH", path, body, APPLY, fieldManager="one"), 201)
        self.assertEqual(made["metadata"]["managedFields"][0]["manager"], "one")
        body["spec"]["replicas"] = 1
        seen = refused(request("PATCH", path, body, APPLY, fieldManager="two"), 409, "Conflict", 'conflict with "one"', ".spec.replicas")
        self.assertEqual(seen["details"]["causes"][0]["reason"], "FieldManagerConflict")
        self.assertEqual(ok(request("PATCH", path, body, APPLY, fieldManager="two", force="true"))["spec"]["replicas"], 1)
        refused(request("PATCH", path, body, APPLY), 422, "Invalid", "fieldManager")

    def test_dry_run(self):
        path = f"{self.v1}/configmaps"
        self.assertEqual(create(path, {"metadata": {"generateName": "x-"}}, dryRun="All")["kind"], "ConfigMap")
        self.assertEqual([c["metadata"]["name"] for c in read(path)["items"] if c["metadata"]["name"].startswith("x-")], [])
        refused(request("POST", path, {"metadata": {"name": "x"}}, dryRun="Some"), 422, "Invalid", "dryRun")


__all__ = ["Chunks", "Discovery", "Fields", "Garbage", "Namespaces", "Tables", "Watchers"]
