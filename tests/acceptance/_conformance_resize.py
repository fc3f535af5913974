"""Requests and limits that change while the pod runs."""

from _conformance import has, same, covers, state, status_of

SLEEP = "sleep 3600"
GROUP = "cat /sys/fs/cgroup/{0}/{1} 2>/dev/null || cat /sys/fs/cgroup/{1}"


def amounts(cpu=None, memory=None):
    return {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}


def box(t, name, requests=None, limits=None, policy=None):
    more = {"resizePolicy": [{"resourceName": r, "restartPolicy": p} for r, p in policy.items()]} if policy else {}
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    return t.container(f"trap 'exit 0' TERM; while true; do sleep 1; done", name=name, resources=resources, **more)


def fixed(t, name, cpu, memory, policy=None):
    return box(t, name, amounts(cpu, memory), amounts(cpu, memory), policy)


def milli(text):
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000


def mebi(text):
    return int(text.removesuffix("Mi")) << 20


def group_of(t, pod, container, v1, v2):
    """What a container reads of its own cgroup, in version 1 or 2; None where the machine shows neither."""
    status, text = t.exec(pod, f"cat /sys/fs/cgroup/{v2} 2>/dev/null || cat /sys/fs/cgroup/{v1}", container=container, status=None)
    return text.strip() if status == 0 else None


def resized(t, name, wanted, restarts=()):
    """Waits until the status tells of these resources, and looks at the cgroups."""
    def done(pod):
        for container, resources in wanted.items():
            s = status_of(pod, container)
            found = s.get("resources") or {}
            if any((found.get(k) or {}) != resources.get(k, {}) for k in ("requests", "limits")):
                return False
            if (s.get("allocatedResources") or {}) != resources.get("requests", {}) or not state(pod, "running", container):
                return False
            if s["restartCount"] != (1 if container in restarts else 0):
                return False
        return not any(c["type"] in ("PodResizePending", "PodResizeInProgress") for c in pod["status"]["conditions"])
    pod = t.wait_pod(name, done, f"resources {wanted}")
    same(pod["status"]["observedGeneration"], pod["metadata"]["generation"])
    for container, resources in wanted.items():
        limits = resources.get("limits", {})
        if "memory" in limits:
            text = group_of(t, name, container, "memory/memory.limit_in_bytes", "memory.max")
            same(text, str(mebi(limits["memory"])), container)
        if "cpu" in limits:
            text = group_of(t, name, container, "cpu/cpu.cfs_quota_us", "cpu.max")
            same(int(text.split()[0]), max(milli(limits["cpu"]) * 100, 1000), container)
        if "cpu" in resources.get("requests", {}):
            text = group_of(t, name, container, "cpu/cpu.shares", "cpu.weight")
            if (text or "").isdigit() and int(text) != 0 and "cpu" in limits:
                assert int(text) in (max(2, milli(resources["requests"]["cpu"]) * 1024 // 1000), 1 + (max(2, milli(
                    resources["requests"]["cpu"]) * 1024 // 1000) - 2) * 9999 // 262142), (container, text)
    return pod


def change(**containers):
    return {"spec": {"containers": [{"name": n, "resources": r} for n, r in containers.items()]}}


def equal(cpu, memory):
    return {"requests": amounts(cpu, memory), "limits": amounts(cpu, memory)}


SETS = {
    "3 containers - increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase":
        dict(c1=("30m", "30Mi"), c2=("40m", "40Mi"), c3=("15m", "15Mi")),
    "3 containers - increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease":
        dict(c1=("30m", "30Mi"), c2=("10m", "15Mi"), c3=("15m", "15Mi")),
    "3 containers - increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2)":
        dict(c1=("30m", "20Mi"), c2=("10m", "40Mi"), c3=("40m", "40Mi")),
}


@covers(*(f"Pod InPlace Resize Container guaranteed pods with multiple containers {s}" for s in SETS))
def guaranteed(t):
    for sizes in SETS.values():
        name = t.pod(*(fixed(t, c, "20m", "20Mi") for c in sizes), restartPolicy="Always")
        t.ready(name)
        wanted = {c: equal(*s) for c, s in sizes.items()}
        t.patch("pods", name, change(**wanted), "resize")
        pod = resized(t, name, wanted)
        same(pod["status"]["qosClass"], "Guaranteed")


@covers("Pod InPlace Resize Container burstable pods - extended 6 containers - various operations performed (including adding limits and requests)")
def burstable(t):
    name = t.pod(box(t, "c1", amounts("20m", "20Mi"), amounts("30m", "30Mi")), box(t, "c2", amounts("20m", "20Mi")), box(t, "c3"),
                 box(t, "c4", amounts("20m"), amounts("30m")), box(t, "c5", amounts(None, "20Mi"), amounts(None, "30Mi")),
                 box(t, "c6", amounts("20m", "20Mi"), amounts("30m", "30Mi")), restartPolicy="Always")
    t.ready(name)
    wanted = dict(
        c1={"requests": amounts("25m", "25Mi"), "limits": amounts("35m", "35Mi")},
        c2={"requests": amounts("20m", "20Mi"), "limits": amounts("30m", "30Mi")},
        c3={"requests": amounts("20m", "20Mi"), "limits": amounts("30m", "30Mi")},
        c4={"requests": amounts("15m"), "limits": amounts("25m")},
        c5={"requests": amounts(None, "15Mi"), "limits": amounts(None, "25Mi")},
        c6={"requests": amounts("15m", "15Mi"), "limits": amounts("25m", "25Mi")})
    t.patch("pods", name, change(**wanted), "resize")
    resized(t, name, wanted)


@covers("Pod InPlace Resize Container burstable pods - extended resize with equivalents")
def equivalents(t):
    name = t.pod(box(t, "c1", amounts("2m"), amounts("10m")), restartPolicy="Always")
    t.ready(name)
    wanted = {"c1": {"requests": amounts("1m"), "limits": amounts("5m")}}
    t.patch("pods", name, change(**wanted), "resize")
    resized(t, name, wanted)


@covers("Pod InPlace Resize Container resize pod via the replace endpoint")
def replaced(t):
    name = t.pod(box(t, "c1", amounts("20m", "20Mi"), amounts("30m", "30Mi")), restartPolicy="Always")
    t.ready(name)
    wanted = {"c1": {"requests": amounts("30m", "30Mi"), "limits": amounts("40m", "40Mi")}}
    t.modify("pods", name, lambda p: p["spec"]["containers"][0].update(resources=wanted["c1"]), "resize")
    resized(t, name, wanted)
    same(t.get("pods", name, "resize")["spec"], t.get("pods", name)["spec"])


def policies(t):
    """Not on the list: a container restarts for what its policy says, and what cannot be is refused or waits."""
    name = t.pod(fixed(t, "c1", "20m", "20Mi", {"cpu": "NotRequired", "memory": "RestartContainer"}), fixed(t, "c2", "20m", "20Mi"), restartPolicy="Always")
    t.ready(name)
    t.patch("pods", name, change(c1=equal("30m", "20Mi")), "resize")
    resized(t, name, {"c1": equal("30m", "20Mi")})
    t.patch("pods", name, change(c1=equal("30m", "30Mi")), "resize")
    resized(t, name, {"c1": equal("30m", "30Mi"), "c2": equal("20m", "20Mi")}, restarts=("c1",))
    has(t.refused(422, t.patch, "pods", name, change(c1={"requests": amounts("10m", "30Mi"), "limits": amounts("30m", "30Mi")}), "resize")["message"],
        "QOS Class may not change|Pod QoS is immutable|Pod QOS Class may not change")
    t.refused(422, t.patch, "pods", name, change(c2=equal("30m", "30Mi")))
    t.patch("pods", name, change(c2=equal("900", "20Mi")), "resize")
    pod = t.wait_pod(name, lambda p: any(c["type"] == "PodResizePending" for c in p["status"]["conditions"]), "it waits")
    found = next(c for c in pod["status"]["conditions"] if c["type"] == "PodResizePending")
    same((found["status"], found["reason"]), ("True", "Infeasible"))
    same(status_of(pod, "c2")["allocatedResources"], amounts("20m", "20Mi"))


covers()(policies)
