"""Volumes as objects: claims and what they are bound to, classes, drivers, attachments; provisioned volumes as they are used."""

from _conformance import has, same, covers, state

SLEEP = "sleep 3600"
SIZE = {"requests": {"storage": "2Gi"}}


def lifecycle(t, kind, make, change=None):
    """Create, read, patch, list, replace, delete, and delete a collection."""
    labels = {"e2e": t.ns}
    first = t.create(kind, make("a", labels))["metadata"]["name"]
    same(t.get(kind, first)["metadata"]["name"], first)
    t.patch(kind, first, {"metadata": {"labels": {"patched": "yes"}}})
    same([o["metadata"]["name"] for o in t.list(kind, f"patched=yes,e2e={t.ns}")], [first])
    t.modify(kind, first, lambda o: (o["metadata"]["labels"].update(updated="yes"), (change or (lambda o: 0))(o)))
    same(len(t.list(kind, f"updated=yes,e2e={t.ns}")), 1)
    t.delete(kind, first)
    t.gone(kind, first)
    second = t.create(kind, make("b", labels))["metadata"]["name"]
    t.delete_all(kind, f"e2e={t.ns}")
    t.gone(kind, second)


def unbound(t, suffix, labels):
    return {"metadata": {"name": f"{t.ns}-{suffix}", "labels": labels}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": t.ns,
        "csi": {"driver": "e2e-driver", "volumeHandle": f"{t.ns}-{suffix}"}}}


def claim(t, suffix, labels):
    return {"metadata": {"name": suffix, "labels": labels}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": SIZE, "storageClassName": f"{t.ns}-none"}}


@covers("PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC")
def volumes_and_claims(t):
    lifecycle(t, "persistentvolumes", lambda *a: unbound(t, *a))
    lifecycle(t, "persistentvolumeclaims", lambda *a: claim(t, *a))


@covers("PersistentVolumes CSI Conformance should apply changes to a pv/pvc status")
def volume_statuses(t):
    t.create("persistentvolumes", unbound(t, "s", {}))
    t.create("persistentvolumeclaims", claim(t, "s", {}))
    for kind, name in (("persistentvolumes", f"{t.ns}-s"), ("persistentvolumeclaims", "s")):
        assert t.get(kind, name, "status")["status"]["phase"]
        ours = {"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "m"}
        body = {"message": "Set from an e2e test", "reason": "E2E"} if kind == "persistentvolumes" else {"conditions": [ours]}
        patched = t.patch(kind, name, {"status": body}, "status")["status"]
        for key, value in body.items():
            found = patched[key]
            same(found if isinstance(found, str) else found[0]["type"], value if isinstance(value, str) else "StatusPatched")
        key = "reason" if kind == "persistentvolumes" else "conditions"
        value = "Updated" if kind == "persistentvolumes" else [ours | {"type": "StatusUpdated"}]
        updated = t.modify(kind, name, lambda o, k=key, v=value: o["status"].update({k: v}), "status")
        same(updated["status"][key] if key == "reason" else updated["status"][key][0]["type"], "Updated" if key == "reason" else "StatusUpdated")


@covers("StorageClasses CSI Conformance should run through the lifecycle of a StorageClass")
def storage_classes(t):
    lifecycle(t, "storageclasses", lambda s, labels: {
        "metadata": {"name": f"{t.ns}-{s}", "labels": labels}, "provisioner": "e2e-fake-provisioner", "reclaimPolicy": "Delete"})


@covers("CSINodes CSI Conformance should run through the lifecycle of a csinode")
def csi_nodes(t):
    lifecycle(t, "csinodes", lambda s, labels: {"metadata": {"name": f"{t.ns}-{s}", "labels": labels}, "spec": {"drivers": []}})


@covers("CSIInlineVolumes should run through the lifecycle of a CSIDriver")
def csi_drivers(t):
    lifecycle(t, "csidrivers", lambda s, labels: {
        "metadata": {"name": f"{t.ns}-{s}", "labels": labels}, "spec": {"volumeLifecycleModes": ["Ephemeral"]}})


@covers("CSIInlineVolumes should support CSIVolumeSource in Pod API")
def csi_volumes(t):
    name = t.pod(t.container(SLEEP, volumeMounts=[{"name": "v", "mountPath": "/v"}]), labels={"csi": "yes"},
                 volumes=[{"name": "v", "csi": {"driver": "none.example", "volumeAttributes": {"a": "b"}}}])
    same(t.get("pods", name)["spec"]["volumes"][0]["csi"]["driver"], "none.example")
    t.patch("pods", name, {"metadata": {"labels": {"patched": "yes"}}})
    same(len(t.list("pods", "patched=yes")), 1)
    t.until(10, lambda: any(r == "FailedMount" for r, _ in t.events(name)), "an event says why it waits")
    t.delete("pods", name)
    t.gone("pods", name)


@covers("CSIStorageCapacity should support CSIStorageCapacities API operations")
def csi_capacities(t):
    lifecycle(t, "csistoragecapacities", lambda s, labels: {
        "metadata": {"name": s, "labels": labels}, "storageClassName": "c", "capacity": "100Mi", "nodeTopology": {"matchLabels": {"a": "b"}}})
    t.create("csistoragecapacities", {"metadata": {"name": "w"}, "storageClassName": "c"})
    assert any(o["metadata"]["name"] == "w" for o in t.list("csistoragecapacities", everywhere=True))


def attachment(t, suffix, labels):
    return {"metadata": {"name": f"{t.ns}-{suffix}", "labels": labels}, "spec": {
        "attacher": "e2e-attacher", "nodeName": "none", "source": {"persistentVolumeName": f"{t.ns}-x"}}}


@covers("VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment",
       "VolumeAttachment Conformance should apply changes to a volumeattachment status")
def attachments(t):
    lifecycle(t, "volumeattachments", lambda *a: attachment(t, *a))
    name = t.create("volumeattachments", attachment(t, "s", {}))["metadata"]["name"]
    same(t.patch("volumeattachments", name, {"status": {"attached": True}}, "status")["status"]["attached"], True)
    same(t.modify("volumeattachments", name, lambda o: o["status"].update(attached=False), "status")["status"]["attached"], False)


@covers("VolumeAttributesClass should run through the lifecycle of a VolumeAttributesClass")
def attributes_classes(t):
    lifecycle(t, "volumeattributesclasses", lambda s, labels: {
        "metadata": {"name": f"{t.ns}-{s}", "labels": labels}, "driverName": "e2e-driver", "parameters": {"k": "v"}})


def provisioned(t):
    """Not on the list: a claim of the class `standard` gets a volume that survives its pod; its directory goes with the claim."""
    t.create("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": SIZE}})
    use = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    t.phase(t.pod(t.container("echo kept > /v/file", **mounts), **use), "Succeeded")
    same(t.output(t.container("cat /v/file", **mounts), **use), "kept\n")
    bound = t.get("persistentvolumeclaims", "c")
    volume = t.get("persistentvolumes", bound["spec"]["volumeName"])
    same((bound["status"]["phase"], volume["status"]["phase"]), ("Bound", "Bound"))
    path = (volume["spec"].get("local") or volume["spec"].get("hostPath"))["path"]
    import pathlib
    assert (pathlib.Path(path) / "file").exists(), path
    name = t.pod(t.container(SLEEP, **mounts), **use)
    t.ready(name)
    t.delete("persistentvolumeclaims", "c")
    assert t.find("persistentvolumeclaims", "c"), "a claim that is in use stays"
    for pod in t.list("pods"):
        t.delete("pods", pod["metadata"]["name"])
    t.gone("persistentvolumeclaims", "c")
    t.gone("persistentvolumes", volume["metadata"]["name"])
    t.until(10, lambda: not pathlib.Path(path).exists(), "its directory is gone")


def host_paths(t):
    """Not on the list: directories of the node, made or asked for."""
    import _lib
    at = _lib.WORK / t.ns
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volume = lambda kind: {"volumes": [{"name": "v", "hostPath": {"path": str(at), "type": kind}}]}  # noqa: E731
    name = t.pod(t.container(SLEEP, **mounts), **volume("Directory"))
    t.until(10, lambda: any("hostPath type check failed" in m for _, m in t.events(name)), "the check fails")
    t.phase(t.pod(t.container("echo x > /v/file", **mounts), **volume("DirectoryOrCreate")), "Succeeded")
    assert (at / "file").exists()
    t.ready(name, seconds=20)
    assert not state(t.get("pods", name), "waiting")


for own in (provisioned, host_paths):
    covers()(own)
_ = has
