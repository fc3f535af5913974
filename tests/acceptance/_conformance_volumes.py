"""Volumes of data and of the node: emptyDir, ConfigMaps, Secrets, the downward API, several together, parts of them."""

import base64
import json

from _conformance import has, same, covers

SLEEP = "sleep 3600"
USER = {"securityContext": {"runAsUser": 1001}}


def mount(path="/v", name="v", **more):
    return {"name": name, "mountPath": path, **more}


def shown(t, source, script, phase="Succeeded", **spec):
    """What a script prints that has a volume at /v."""
    return t.output(t.container(script, volumeMounts=[mount()]), volumes=[{"name": "v", **source}], phase=phase, **spec)


def modes(text):
    return dict(line.split(" ", 1)[::-1] for line in text.splitlines())


@covers(*(f"EmptyDir volumes should support ({user},{mode},{medium})" for user in ("root", "non-root")
         for mode in ("0644", "0666", "0777") for medium in ("default", "tmpfs")),
       "EmptyDir volumes volume on default medium should have the correct mode", "EmptyDir volumes volume on tmpfs should have the correct mode")
def empty_dirs(t):
    script = ("stat -c 'dir %a' /v; stat -f -c 'kind %T' /v; for m in 0644 0666 0777; do echo content > /v/$m && chmod $m /v/$m && "
              "stat -c 'file %a %u' /v/$m && cat /v/$m; done")
    for user in ({}, USER):
        for medium in ("", "Memory"):
            text = shown(t, {"emptyDir": {"medium": medium}}, script, **({"securityContext": {"runAsUser": 1001}} if user else {}))
            has(text, "^dir 777$", *(f"^file {m} {1001 if user else 0}$" for m in (644, 666, 777)))
            same(text.count("content"), 3)
            same("kind tmpfs" in text, medium == "Memory", text)


@covers("EmptyDir volumes pod should support shared volumes between containers")
def shared_empty_dir(t):
    name = t.pod(t.container(f"echo hello > /v/file; {SLEEP}", name="a", volumeMounts=[mount()]),
                 t.container(SLEEP, name="b", volumeMounts=[mount("/other")]), volumes=[{"name": "v", "emptyDir": {}}])
    t.ready(name)
    t.until(5, lambda: t.exec(name, "cat /other/file 2>/dev/null || true", container="b") == "hello\n", "the other sees it")


def size_limits(t):
    """Not on the list: a pod is evicted when a volume or its containers outgrow their limits."""
    name = t.pod(t.container(f"dd if=/dev/zero of=/v/file bs=1M count=8; {SLEEP}", volumeMounts=[mount()]),
                 volumes=[{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}])
    pod = t.phase(name, "Failed", seconds=40)
    same(pod["status"]["reason"], "Evicted")
    has(pod["status"]["message"], 'Usage of EmptyDir volume "v" exceeds the limit "2Mi"')
    name = t.pod(t.container(f"dd if=/dev/zero of=/file bs=1M count=8; {SLEEP}", resources={"limits": {"ephemeral-storage": "2Mi"}}))
    pod = t.phase(name, "Failed", seconds=40)
    same(pod["status"]["reason"], "Evicted")
    has(pod["status"]["message"], 'exceeded its local ephemeral storage limit "2Mi"')


covers()(size_limits)

DATA = {"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"}
LISTING = "cd /v; find -L . -type f ! -path './..*' | sort | while read f; do echo \"$(stat -L -c '%a %u %g' $f) $f $(cat $f)\"; done"


def data(t, kind, name="data", values=None):
    values = values or DATA
    body = {"metadata": {"name": name}, **({"data": values} if kind == "configmaps" else {"stringData": values})}
    return t.create(kind, body)


def source(kind, projected, name="data", mode=None, **more):
    """A volume's source of a ConfigMap or Secret, by itself or projected."""
    word = "configMap" if kind == "configmaps" else "secret"
    modes = {} if mode is None else {"defaultMode": mode}
    if projected:
        return {"projected": {"sources": [{word: {"name": name, **more}}], **modes}}
    return {word: {"name" if word == "configMap" else "secretName": name, **modes, **more}}


def titles(base, *rest):
    return [f"{base} {r}" for r in rest]


def data_volumes(t, kind, projected):
    data(t, kind)
    of = lambda **more: source(kind, projected, **more)  # noqa: E731
    every = [f"^644 0 0 ./{k} {v}$" for k, v in DATA.items()]
    has(shown(t, of(), LISTING), *every)
    has(shown(t, of(mode=0o400), LISTING), "^400 0 0 ./data-1 value-1$")
    items = [{"key": "data-2", "path": "path/to/data-2"}]
    text = shown(t, of(items=items), LISTING)
    has(text, "^644 0 0 ./path/to/data-2 value-2$")
    assert "data-1" not in text, text
    has(shown(t, of(items=[{**items[0], "mode": 0o400}]), LISTING), "^400 0 0 ./path/to/data-2 value-2$")
    has(shown(t, of(), LISTING, **USER), *every)
    has(shown(t, of(items=items), LISTING, **USER), "^644 0 0 ./path/to/data-2 value-2$")
    group = {"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}
    has(shown(t, of(mode=0o440), LISTING, **group), "^440 0 1001 ./data-1 value-1$")
    name = "both"
    text = t.output(t.container("cat /v/data-1 /w/data-1", volumeMounts=[mount(), mount("/w", "w")]), name=name,
                    volumes=[{"name": n, **of()} for n in "vw"])
    same(text, "value-1value-1")


DATA_TITLES = ("should be consumable from pods in volume", "should be consumable from pods in volume with defaultMode set",
               "should be consumable from pods in volume with mappings")


@covers(*titles("ConfigMap", *DATA_TITLES, "should be consumable from pods in volume as non-root",
               "should be consumable from pods in volume with mappings and Item mode set", "should be consumable in multiple volumes in the same pod",
               "should be consumable from pods in volume with mappings as non-root"))
def config_map_volumes(t):
    data_volumes(t, "configmaps", False)


@covers(*titles("Projected configMap", *DATA_TITLES, "should be consumable from pods in volume as non-root",
               "should be consumable from pods in volume with mappings and Item mode set", "should be consumable in multiple volumes in the same pod",
               "should be consumable from pods in volume with mappings as non-root"))
def projected_config_map_volumes(t):
    data_volumes(t, "configmaps", True)


SECRET_TITLES = (*DATA_TITLES, "should be consumable from pods in volume as non-root with defaultMode and fsGroup set",
                 "should be consumable from pods in volume with mappings and Item Mode set", "should be consumable in multiple volumes in a pod")


@covers(*titles("Secrets", *SECRET_TITLES))
def secret_volumes(t):
    data_volumes(t, "secrets", False)


@covers(*titles("Projected secret", *SECRET_TITLES))
def projected_secret_volumes(t):
    data_volumes(t, "secrets", True)


@covers("Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace")
def secrets_of_other_spaces(t):
    other = t.space()
    data(t, "secrets")
    t.create("secrets", {"metadata": {"name": "data"}, "stringData": {"data-1": "other"}}, ns=other)
    same(shown(t, source("secrets", False), "cat /v/data-1"), "value-1")


@covers("ConfigMap binary data should be reflected in volume")
def binary(t):
    t.create("configmaps", {"metadata": {"name": "data"}, "data": {"data-1": "value-1"},
                            "binaryData": {"dump.bin": base64.b64encode(bytes([0xde, 0xca, 0xfe, 0xba, 0xd0, 0xfe, 0xff])).decode()}})
    has(shown(t, source("configmaps", False), "hexdump -C /v/dump.bin; cat /v/data-1"), "de ca fe ba d0 fe ff", "value-1")


def follows(t, kind, projected):
    """Changes, optional sources that come and go."""
    for name in ("upd", "del"):
        data(t, kind, name, {"data-1": "value-1"})
    names = ("upd", "del", "create")
    name = t.pod(t.container(SLEEP, volumeMounts=[mount(f"/{n}", n) for n in names]),
                 volumes=[{"name": n, **source(kind, projected, name=n, optional=True)} for n in names])
    t.ready(name)
    word = "data" if kind == "configmaps" else "stringData"
    same(t.exec(name, "cat", "/upd/data-1"), "value-1")
    t.patch(kind, "upd", {word: {"data-1": "value-2", "data-3": "value-3"}})
    t.delete(kind, "del")
    data(t, kind, "create", {"data-1": "value-1"})
    for path, wanted in (("/upd/data-1", "value-2"), ("/upd/data-3", "value-3"), ("/create/data-1", "value-1"), ("/del/data-1", "")):
        t.until(15, lambda p=path, w=wanted: t.exec(name, f"cat {p} 2>/dev/null || true") == w, f"{path} is {wanted!r}")


@covers("ConfigMap updates should be reflected in volume", "ConfigMap optional updates should be reflected in volume")
def config_map_updates(t):
    follows(t, "configmaps", False)


@covers("Projected configMap updates should be reflected in volume", "Projected configMap optional updates should be reflected in volume")
def projected_config_map_updates(t):
    follows(t, "configmaps", True)


@covers("Secrets optional updates should be reflected in volume")
def secret_updates(t):
    follows(t, "secrets", False)


@covers("Projected secret optional updates should be reflected in volume")
def projected_secret_updates(t):
    follows(t, "secrets", True)


@covers("ConfigMap should be immutable if `immutable` field is set", "Secrets should be immutable if `immutable` field is set")
def immutable(t):
    for kind in ("configmaps", "secrets"):
        data(t, kind)
        change = {"stringData": {"data-1": "other"}} if kind == "secrets" else {"data": {"data-1": "other"}}
        t.patch(kind, "data", change)
        t.patch(kind, "data", {"immutable": True})
        has(t.refused(422, t.patch, kind, "data", {"immutable": False})["message"], "field is immutable when `immutable` is set")
        t.refused(422, t.patch, kind, "data", change | {"data": {"x": "eA=="}})
        t.patch(kind, "data", {"metadata": {"labels": {"a": "b"}}})
        t.delete(kind, "data")


def resource_file(path, name, divisor=None, container="c"):
    return {"path": path, "resourceFieldRef": {"containerName": container, "resource": name, **({"divisor": divisor} if divisor else {})}}


def downward(t, wrap):
    name_file = {"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}
    name = t.pod(t.container(LISTING, volumeMounts=[mount()]), volumes=[{"name": "v", **wrap({"items": [name_file]})}])
    t.phase(name, "Succeeded")
    has(t.log(name), f"^644 0 0 ./podname {name}$")
    has(shown(t, wrap({"items": [name_file]}, 0o400), LISTING), "^400 0 0 ./podname")
    has(shown(t, wrap({"items": [{**name_file, "mode": 0o400}]}), LISTING), "^400 0 0 ./podname")
    files = [resource_file(f"{k}-{r}", f"{k}.{r}", "1m" if r == "cpu" else "1Mi") for k in ("limits", "requests") for r in ("cpu", "memory")]
    text = t.output(t.container(LISTING, volumeMounts=[mount()], resources={
        "requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}),
        volumes=[{"name": "v", **wrap({"items": files})}])
    has(text, "limits-cpu 1250$", "limits-memory 64$", "requests-cpu 250$", "requests-memory 32$")
    has(shown(t, wrap({"items": files[:2]}), LISTING), "limits-cpu [1-9][0-9]*$", "limits-memory [1-9][0-9]*$")
    items = [{"path": p, "fieldRef": {"fieldPath": f"metadata.{p}"}} for p in ("labels", "annotations")]
    name = t.pod(t.container(SLEEP, volumeMounts=[mount()]), labels={"key1": "value1"}, annotations={"builder": "bar"},
                 volumes=[{"name": "v", **wrap({"items": items})}])
    t.ready(name)
    same(t.exec(name, "cat", "/v/labels"), 'key1="value1"')
    t.patch("pods", name, {"metadata": {"labels": {"key3": "value3"}, "annotations": {"builder": "foo"}}})
    t.until(10, lambda: 'key3="value3"\n' in t.exec(name, "cat", "/v/labels") + "\n", "labels follow")
    t.until(10, lambda: 'builder="foo"' in t.exec(name, "cat", "/v/annotations"), "annotations follow")


DOWNWARD_TITLES = ("should provide podname only", "should set DefaultMode on files", "should set mode on item file", "should provide container's cpu limit",
                   "should provide container's memory limit", "should provide container's cpu request", "should provide container's memory request",
                   "should provide node allocatable (cpu) as default cpu limit if the limit is not set",
                   "should provide node allocatable (memory) as default memory limit if the limit is not set",
                   "should update labels on modification", "should update annotations on modification")


@covers(*titles("Downward API volume", *DOWNWARD_TITLES))
def downward_volumes(t):
    downward(t, lambda s, mode=None: {"downwardAPI": s | ({"defaultMode": mode} if mode else {})})


@covers(*titles("Projected downwardAPI", *DOWNWARD_TITLES))
def projected_downward_volumes(t):
    downward(t, lambda s, mode=None: {"projected": {"sources": [{"downwardAPI": s}], **({"defaultMode": mode} if mode else {})}})


@covers("Projected combined should project all components that make up the projection API")
def combined(t):
    data(t, "configmaps", "cm", {"configmap-data": "configmap-value-1"})
    data(t, "secrets", "s", {"secret-data": "secret-value-1"})
    text = shown(t, {"projected": {"sources": [
        {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"secret": {"name": "s", "items": [{"key": "secret-data", "path": "secret"}]}},
        {"configMap": {"name": "cm", "items": [{"key": "configmap-data", "path": "cm"}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}},
        "cat /v/podname /v/secret /v/cm; cut -d. -f2 /v/token", name="combined")
    has(text, "combinedsecret-value-1configmap-value-1")
    claims = text.split("configmap-value-1")[1].strip()
    claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    same((claims["exp"] - claims["iat"], claims["kubernetes.io"]["pod"]["name"]), (3600, "combined"))


@covers("EmptyDir wrapper volumes should not conflict")
def wrappers(t):
    data(t, "secrets", "s")
    data(t, "configmaps", "cm")
    name = t.pod(t.container(SLEEP, volumeMounts=[mount("/etc/secret-volume", "s"), mount("/etc/configmap-volume", "cm")]),
                 volumes=[{"name": "s", "secret": {"secretName": "s"}}, {"name": "cm", "configMap": {"name": "cm"}}])
    t.ready(name)


@covers("EmptyDir wrapper volumes should not cause race condition when used for configmaps")
def races(t):
    names = [f"racey-{i}" for i in range(50)]
    for name in names:
        data(t, "configmaps", name, {"data-1": "value-1"})
    pods = [t.pod(t.container(SLEEP, volumeMounts=[mount(f"/etc/{n}", n) for n in names]),
                  volumes=[{"name": n, "configMap": {"name": n, "items": [{"key": "data-1", "path": "data-1"}]}} for n in names]) for _ in range(5)]
    for name in pods:
        t.ready(name)


@covers(*(f"Subpath Atomic writer volumes should support subpaths with {k} pod" for k in ("configmap", "secret", "downward", "projected")),
       "Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file")
def subpaths(t):
    for kind, name in (("configmaps", "cm"), ("secrets", "s")):
        t.create(kind, {"metadata": {"name": name}, **({"data": {"key": "value"}} if kind == "configmaps" else {"stringData": {"key": "value"}})})
    item = {"path": "key", "fieldRef": {"fieldPath": "metadata.name"}}
    for volume, wanted in (({"configMap": {"name": "cm"}}, "value"), ({"secret": {"secretName": "s"}}, "value"),
                           ({"downwardAPI": {"items": [item]}}, None), ({"projected": {"sources": [{"configMap": {"name": "cm"}}]}}, "value")):
        name = t.pod(t.container("cat /etc/passwd; cat /probe; sleep 1; cat /probe", volumeMounts=[mount("/probe", subPath="key"), mount("/etc/passwd", subPath="key")]),
                     volumes=[{"name": "v", **volume}])
        t.phase(name, "Succeeded")
        same(t.log(name), (wanted or name) * 3)
    # A part that is missing is made; one that leads out of the volume is refused.
    name = t.pod(t.container("touch /v/x && ls /all/new", volumeMounts=[mount(subPath="new/part"), mount("/all")]), volumes=[{"name": "v", "emptyDir": {}}])
    t.phase(name, "Succeeded")
    same(t.log(name), "part\n")
    t.refused(422, t.pod, t.container(SLEEP, volumeMounts=[mount(subPath="../x")]), volumes=[{"name": "v", "emptyDir": {}}])
