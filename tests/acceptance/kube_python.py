"""The Kubernetes API with the Python client: objects, lists in pages, watches, patches, server-side apply, errors."""

import subprocess
import time
import unittest

import _lib
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

daemon = _lib.Daemon(options=("--advertise-addr", "192.0.2.1"))


def setUpModule():
    daemon.start()
    answer = daemon.request("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"})
    assert answer.status == 200, answer.body
    path = _lib.WORK / "kubeconfig"
    for _ in range(100):
        shown = subprocess.run(
            [_lib.os.environ["TRIPOD"], "kubeconfig", "--data-root", str(daemon.root)], capture_output=True
        )
        if shown.returncode == 0:
            break
        time.sleep(0.1)
    path.write_bytes(shown.stdout)
    config.load_kube_config(str(path))
    core = client.CoreV1Api()
    for _ in range(100):
        if any(n.metadata.name == "default" for n in core.list_namespace().items):
            return
        time.sleep(0.1)


def tearDownModule():
    daemon.stop()


class Objects(unittest.TestCase):
    def setUp(self):
        self.core = client.CoreV1Api()

    def fails(self, status, reason, call, *arguments, **options):
        with self.assertRaises(ApiException) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.status, status, caught.exception.body)
        self.assertIn(f'"reason":"{reason}"', caught.exception.body)

    def config_map(self, name, **data):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"of": "tests"}), data=data)
        made = self.core.create_namespaced_config_map("default", body)
        self.addCleanup(self.forget, name)
        return made

    def forget(self, name):
        try:
            self.core.delete_namespaced_config_map(name, "default")
        except ApiException as e:
            self.assertEqual(e.status, 404)

    def test_life(self):
        made = self.config_map("life", a="1")
        self.assertTrue(made.metadata.uid)
        made.data["b"] = "2"
        replaced = self.core.replace_namespaced_config_map("life", "default", made)
        self.assertEqual(replaced.data, {"a": "1", "b": "2"})
        made.data["c"] = "3"
        self.fails(409, "Conflict", self.core.replace_namespaced_config_map, "life", "default", made)
        patched = self.core.patch_namespaced_config_map("life", "default", {"data": {"a": None}})
        self.assertEqual(patched.data, {"b": "2"})
        self.core.delete_namespaced_config_map("life", "default")
        self.fails(404, "NotFound", self.core.read_namespaced_config_map, "life", "default")

    def test_pages(self):
        for i in range(5):
            self.config_map(f"page{i}")
        first = self.core.list_namespaced_config_map("default", label_selector="of=tests", limit=2)
        self.assertEqual(len(first.items), 2)
        names = [i.metadata.name for i in first.items]
        token = first.metadata._continue
        while token:
            page = self.core.list_namespaced_config_map("default", label_selector="of=tests", limit=2, _continue=token)
            names += [i.metadata.name for i in page.items]
            token = page.metadata._continue
        self.assertEqual(names, sorted(names))
        self.assertGreaterEqual(len(names), 5)

    def test_watch(self):
        listed = self.core.list_namespaced_config_map("default")
        self.config_map("watched", k="1")
        self.core.patch_namespaced_config_map("watched", "default", {"data": {"k": "2"}})
        self.core.delete_namespaced_config_map("watched", "default")
        seen = []
        stream = watch.Watch().stream(
            self.core.list_namespaced_config_map,
            "default",
            field_selector="metadata.name=watched",
            resource_version=listed.metadata.resource_version,
            timeout_seconds=10,
        )
        for event in stream:
            seen.append((event["type"], event["object"].data["k"]))
            if event["type"] == "DELETED":
                break
        self.assertEqual(seen, [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")])

    def test_old_watches_are_gone(self):
        with self.assertRaises(ApiException) as caught:
            for _ in watch.Watch().stream(self.core.list_namespaced_config_map, "default", resource_version="999999999", timeout_seconds=5):
                pass
        self.assertEqual(caught.exception.status, 504)

    def test_apply(self):
        api = client.CustomObjectsApi()
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}}}
        apps = client.AppsV1Api()
        self.addCleanup(apps.delete_namespaced_deployment, "applied", "default")

        def apply(manager, replicas, **options):
            body["spec"]["replicas"] = replicas
            return api.api_client.call_api(
                "/apis/apps/v1/namespaces/default/deployments/applied", "PATCH",
                query_params=[("fieldManager", manager), *options.items()],
                header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
                body=body, response_type="object", auth_settings=["BearerToken"], _return_http_data_only=True)

        made = apply("one", 0)
        self.assertEqual(made["spec"]["strategy"]["type"], "RollingUpdate")
        self.assertEqual(made["metadata"]["managedFields"][0]["operation"], "Apply")
        self.fails(409, "Conflict", apply, "two", 1)
        self.assertEqual(apply("two", 1, force="true")["spec"]["replicas"], 1)

    def test_scale(self):
        apps = client.AppsV1Api()
        body = client.V1Deployment(
            metadata=client.V1ObjectMeta(name="scaled"),
            spec=client.V1DeploymentSpec(
                replicas=0,
                selector=client.V1LabelSelector(match_labels={"a": "b"}),
                template=client.V1PodTemplateSpec(
                    metadata=client.V1ObjectMeta(labels={"a": "b"}),
                    spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="busybox")]),
                ),
            ),
        )
        apps.create_namespaced_deployment("default", body)
        self.addCleanup(apps.delete_namespaced_deployment, "scaled", "default")
        scale = apps.read_namespaced_deployment_scale("scaled", "default")
        self.assertEqual(scale.status.selector, "a=b")
        scale.spec.replicas = 2
        # The controller writes too: no precondition.
        scale.metadata.resource_version = None
        self.assertEqual(apps.replace_namespaced_deployment_scale("scaled", "default", scale).spec.replicas, 2)
        self.assertEqual(apps.read_namespaced_deployment("scaled", "default").spec.replicas, 2)

    def test_mistakes(self):
        body = client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=client.V1PodSpec(containers=[]))
        self.fails(422, "Invalid", self.core.create_namespaced_pod, "default", body)
        self.fails(404, "NotFound", self.core.create_namespaced_config_map, "nowhere", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="x")))
        review = client.V1SubjectAccessReview(spec=client.V1SubjectAccessReviewSpec(
            user="nobody", resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods", namespace="default")))
        self.assertFalse(client.AuthorizationV1Api().create_subject_access_review(review).status.allowed)


if __name__ == "__main__":
    unittest.main()
