"""Objects that pods are made of or from: ConfigMaps, Secrets, templates, runtime classes."""

import base64

from _conformance import has, same, covers


@covers("ConfigMap should fail to create ConfigMap with empty key", "Secrets should fail to create secret due to empty secret key")
def empty_keys(t):
    for kind, data in (("configmaps", {"": "value"}), ("secrets", {"": "eA=="})):
        answer = t.refused(422, t.create, kind, {"metadata": {"name": "x"}, "data": data})
        has(answer["message"], r'data\[\]: Invalid value: ""')


@covers("ConfigMap should run through a ConfigMap lifecycle", "ConfigMap should update ConfigMap successfully")
def config_maps(t):
    seen = t.watching("configmaps", "test-configmap-static=true")
    t.create("configmaps", {"metadata": {"name": "cm", "labels": {"test-configmap-static": "true"}}, "data": {"valueName": "value"}})
    t.patch("configmaps", "cm", {"metadata": {"labels": {"test-configmap": "patched"}}, "data": {"valueName": "value1"}})
    same(t.get("configmaps", "cm")["data"], {"valueName": "value1"})
    same([o["metadata"]["name"] for o in t.list("configmaps", "test-configmap=patched", everywhere=True)], ["cm"])
    t.modify("configmaps", "cm", lambda o: o["data"].update(data="value"))
    same(t.get("configmaps", "cm")["data"]["data"], "value")
    t.delete_all("configmaps", "test-configmap-static=true")
    t.gone("configmaps", "cm")
    t.until(5, lambda: [e[0] for e in seen] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"], lambda: f"events, not {[e[0] for e in seen]}")


@covers("Secrets should patch a secret")
def secrets(t):
    t.create("secrets", {"metadata": {"name": "s", "labels": {"testsecret-constant": "true"}}, "data": {"key": "dmFsdWU="}})
    patched = base64.b64encode(b"value1").decode()
    t.patch("secrets", "s", {"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": patched}})
    same([o["data"]["key"] for o in t.list("secrets", "testsecret=true", everywhere=True)], [patched])
    t.delete_all("secrets", "testsecret-constant=true")
    t.gone("secrets", "s")


@covers("PodTemplates should run the lifecycle of PodTemplates", "PodTemplates should replace a pod template",
       "PodTemplates should delete a collection of pod templates")
def pod_templates(t):
    make = lambda name, labels: {"metadata": {"name": name, "labels": labels}, "template": {  # noqa: E731
        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}}
    t.create("podtemplates", make("a", {"set": "one"}))
    t.patch("podtemplates", "a", {"metadata": {"labels": {"podtemplate": "patched"}}})
    same(t.get("podtemplates", "a")["metadata"]["labels"]["podtemplate"], "patched")
    same(len(t.list("podtemplates", "podtemplate=patched", everywhere=True)), 1)
    replaced = t.modify("podtemplates", "a", lambda o: o["metadata"].update(annotations={"updated": "true"}))
    same(replaced["metadata"]["annotations"], {"updated": "true"})
    t.delete("podtemplates", "a")
    t.gone("podtemplates", "a")
    for name in ("b", "c", "d"):
        t.create("podtemplates", make(name, {"podtemplate-set": "true"}))
    same(len(t.list("podtemplates", "podtemplate-set=true")), 3)
    t.delete_all("podtemplates", "podtemplate-set=true")
    same(t.list("podtemplates", "podtemplate-set=true"), [])


@covers("RuntimeClass should support RuntimeClasses API operations")
def runtime_classes(t):
    found = t.kube.call("GET", "/apis/node.k8s.io/v1")
    assert any(r["name"] == "runtimeclasses" for r in found["resources"]), found
    make = lambda s: {"metadata": {"name": f"{t.ns}-{s}", "labels": {"test": t.ns}}, "handler": "handler"}  # noqa: E731
    seen = t.watching("runtimeclasses", f"test={t.ns}")
    names = [t.create("runtimeclasses", make(s))["metadata"]["name"] for s in "abc"]
    t.refused(409, t.create, "runtimeclasses", make("a"))
    same(t.get("runtimeclasses", names[0])["handler"], "handler")
    same(len(t.list("runtimeclasses", f"test={t.ns}")), 3)
    t.patch("runtimeclasses", names[0], {"metadata": {"annotations": {"patched": "true"}}}, media="merge-patch")
    t.modify("runtimeclasses", names[0], lambda o: o["metadata"]["annotations"].update(updated="true"))
    t.refused(422, t.modify, "runtimeclasses", names[0], lambda o: o.update(handler="other"))
    t.delete("runtimeclasses", names[0])
    t.delete_all("runtimeclasses", f"test={t.ns}")
    same(t.list("runtimeclasses", f"test={t.ns}"), [])
    t.until(5, lambda: [e[0] for e in seen].count("DELETED") == 3, "the watch tells of all")
