"""Environment, commands, users and rights of containers, init containers, how containers end."""

from _conformance import has, same, covers, state, status_of

PREFIXES = ("p_", "p-", "1-", "p.", "~!@#$%^&*()_", "a b")


def field(name, path):
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def resource(name, path):
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": path}}}


@covers("ConfigMap should be consumable via environment variable", "ConfigMap should be consumable via the environment",
       "ConfigMap should be consumable as environment variable names with various prefixes")
def environment_of_config_map(t):
    t.create("configmaps", {"metadata": {"name": "cm"}, "data": {"data-1": "value-1", "data_2": "value-2"}})
    text = t.output(t.container(["env"], env=[{"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "data-1"}}}],
                                envFrom=[{"prefix": p, "configMapRef": {"name": "cm"}} for p in ("", *PREFIXES)]
                                + [{"prefix": "none", "configMapRef": {"name": "other", "optional": True}}]))
    lines = text.splitlines()
    for wanted in ("ONE=value-1", *(f"{p}{k}" for p in ("", *PREFIXES) for k in ("data-1=value-1", "data_2=value-2"))):
        assert wanted in lines, (wanted, text)


@covers("Secrets should be consumable from pods in env vars", "Secrets should be consumable via the environment",
       "Secrets should be consumable as environment variable names variable names with various prefixes")
def environment_of_secret(t):
    t.create("secrets", {"metadata": {"name": "s"}, "stringData": {"data-1": "value-1", "data_2": "value-2"}})
    text = t.output(t.container(["env"], env=[{"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "data-1"}}}],
                                envFrom=[{"prefix": p, "secretRef": {"name": "s"}} for p in ("", *PREFIXES)]))
    lines = text.splitlines()
    for wanted in ("ONE=value-1", *(f"{p}{k}" for p in ("", *PREFIXES) for k in ("data-1=value-1", "data_2=value-2"))):
        assert wanted in lines, (wanted, text)


@covers("Downward API should provide pod name, namespace and IP address as env vars", "Downward API should provide host IP as an env var",
       "Downward API should provide hostIPs as an env var", "Downward API should provide pod UID as env vars")
def environment_of_the_pod(t):
    name = t.pod(t.container("env; sleep 3600", env=[
        field("N", "metadata.name"), field("NS", "metadata.namespace"), field("IP", "status.podIP"), field("HIP", "status.hostIP"),
        field("HIPS", "status.hostIPs"), field("ID", "metadata.uid"), field("NODE", "spec.nodeName")]))
    pod = t.ready(name)
    text = t.log(name)
    status = pod["status"]
    has(text, f"^N={name}$", f"^NS={t.ns}$", f"^IP={status['podIP']}$", f"^HIP={status['hostIP']}$",
        f"^HIPS={status['hostIPs'][0]['ip']}$", f"^ID={pod['metadata']['uid']}$", f"^NODE={pod['spec']['nodeName']}$")


@covers("Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars",
       "Downward API should provide default limits.cpu/memory from node allocatable")
def environment_of_resources(t):
    names = {"CL": "limits.cpu", "ML": "limits.memory", "CR": "requests.cpu", "MR": "requests.memory"}
    env = [resource(n, p) for n, p in names.items()]
    text = t.output(t.container(["env"], env=env, resources={
        "requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}))
    has(text, "^CL=2$", "^ML=67108864$", "^CR=1$", "^MR=33554432$")
    text = t.output(t.container(["env"], env=env[:2]))
    has(text, "^CL=[1-9][0-9]*$", "^ML=[1-9][0-9]*$")


@covers("Variable Expansion should allow composing env vars into new env vars",
       "Variable Expansion should allow substituting values in a container's command",
       "Variable Expansion should allow substituting values in a container's args")
def expansion(t):
    env = [{"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "bar-value"}, {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"}]
    text = t.output(t.container("env; echo command $(FOO) $$(FOO)", env=env))
    has(text, "^FOOBAR=foo-value;;bar-value$", "^command foo-value")
    has(t.output(t.container(["sh", "-c"], args=["echo arg $(BAR) '$(NONE)'"], env=env)), r"^arg bar-value \$\(NONE\)$")


def subpath_pod(t, expression, annotation="mypath", script="sleep 3600", mounts=(), **more):
    return t.pod(t.container(script, env=[field("POD_NAME", "metadata.name"), {"name": "BAD", "value": expression},
                                          field("ANNOTATION", "metadata.annotations['mysubpath']")],
                             volumeMounts=[{"name": "work", "mountPath": "/volume_mount", "subPathExpr": "$(BAD)" if expression else
                                            "$(ANNOTATION)"}, *mounts]),
                 volumes=[{"name": "work", "emptyDir": {}}], annotations={"mysubpath": annotation}, **more)


@covers("Variable Expansion should allow substituting values in a volume subpath", "Variable Expansion should succeed in writing subpaths in container")
def expansion_in_paths(t):
    both = [{"name": "work", "mountPath": "/all"}]
    name = subpath_pod(t, "", script="echo here > /volume_mount/test.log; sleep 3600", mounts=both)
    t.ready(name)
    same(t.exec(name, "cat", "/all/mypath/test.log"), "here\n")
    name = t.pod(t.container("touch /own/$POD_NAME; test -f /all/$POD_NAME/$POD_NAME", env=[field("POD_NAME", "metadata.name")],
                             volumeMounts=[{"name": "work", "mountPath": "/own", "subPathExpr": "$(POD_NAME)"}, *both]),
                 volumes=[{"name": "work", "emptyDir": {}}])
    t.phase(name, "Succeeded")


@covers("Variable Expansion should fail substituting values in a volume subpath with backticks",
       "Variable Expansion should fail substituting values in a volume subpath with absolute path")
def expansion_of_bad_paths(t):
    for bad in ("..", "/tmp"):
        name = subpath_pod(t, bad)
        t.wait_pod(name, lambda p: state(p, "waiting").get("reason") == "CreateContainerConfigError", bad)


@covers("Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container")
def expansion_that_gets_good(t):
    name = subpath_pod(t, "", annotation="/absolute")
    t.wait_pod(name, lambda p: state(p, "waiting"), "waits")
    t.until(10, lambda: state(t.get("pods", name), "waiting").get("reason") == "CreateContainerConfigError", "the reason")
    t.patch("pods", name, {"metadata": {"annotations": {"mysubpath": "mypath"}}})
    t.ready(name)


@covers("Containers should use the image defaults if command and args are blank",
       "Containers should be able to override the image's default arguments (container cmd)",
       "Containers should be able to override the image's default command (container entrypoint)",
       "Containers should be able to override the image's default command and arguments")
def commands(t):
    # The image's own command is sh, which ends at the end of its input.
    t.phase(t.pod(t.container()), "Succeeded")
    has(t.output(t.container(args=["echo", "override", "arguments"])), "^override arguments$")
    has(t.output(t.container(["echo", "override"])), "^override$")
    has(t.output(t.container(["echo"], args=["command", "and", "args"])), "^command and args$")


@covers("Security Context When creating a container with runAsUser should run the container with uid 65534",
       "Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup",
       "Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup")
def users(t):
    same(t.output(t.container(["id", "-u"], securityContext={"runAsUser": 65534})).strip(), "65534")
    has(t.output(t.container(["id"], securityContext={"runAsUser": 1001, "runAsGroup": 2002})), "uid=1001 gid=2002")
    has(t.output(t.container(["id"]), securityContext={"runAsUser": 1001, "runAsGroup": 2002, "supplementalGroups": [3003]}),
        "uid=1001 gid=2002 groups=2002,3003")
    name = t.pod(t.container(["id"]), securityContext={"runAsNonRoot": True})
    t.wait_pod(name, lambda p: state(p, "waiting").get("reason") == "CreateContainerConfigError", "root is refused")


@covers("Security Context When creating a pod with privileged should run the container as unprivileged when false")
def unprivileged(t):
    script = "ip link add dummy0 type dummy || true; ip link show dummy0 && exit 1; ip link del lo 2>&1 || true; ip addr add 10.9.9.9/32 dev lo"
    name = t.pod(t.container(script, securityContext={"privileged": False}))
    t.phase(name, "Failed")
    has(t.log(name), "not permitted")
    t.phase(t.pod(t.container("ip addr add 10.9.9.9/32 dev lo", securityContext={"privileged": True})), "Succeeded")


@covers("Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false",
       "Kubelet when scheduling a read only busybox container should not write to root filesystem")
def roots(t):
    t.phase(t.pod(t.container("touch /checkfile", securityContext={"readOnlyRootFilesystem": False})), "Succeeded")
    name = t.pod(t.container("echo test > /file; sleep 1", securityContext={"readOnlyRootFilesystem": True}))
    t.phase(name, "Succeeded")
    has(t.log(name), "Read-only file system")


@covers("Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false")
def escalation(t):
    for allowed, wanted in ((False, "1"), (True, "0"), (None, "0")):
        context = {"runAsUser": 1000} | ({} if allowed is None else {"allowPrivilegeEscalation": allowed})
        has(t.output(t.container(["cat", "/proc/self/status"], securityContext=context)), f"^NoNewPrivs:\t{wanted}$")


@covers("Sysctls should support sysctls", "Sysctls should reject invalid sysctls")
def sysctls(t):
    def context(*pairs):
        return {"sysctls": [{"name": n, "value": v} for n, v in pairs]}
    text = t.output(t.container(["sysctl", "kernel.shm_rmid_forced"]), securityContext=context(("kernel.shm_rmid_forced", "1")))
    has(text, "kernel.shm_rmid_forced = 1")
    bad = context(("foo-", "bar"), ("kernel.shmmax", "100000000"), ("safe-and-unsafe", "1"), ("bar..", "42"))
    answer = t.refused(422, t.pod, t.container(["true"]), securityContext=bad)
    has(answer["message"], r'sysctls\[0\].name: Invalid value: "foo-"', r'sysctls\[3\].name: Invalid value: "bar.."')
    assert "kernel.shmmax" not in answer["message"], answer["message"]


def inits(*results):
    return [{"name": f"init{i}", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": [r]} for i, r in enumerate(results, 1)]


@covers("InitContainer should invoke init containers on a RestartNever pod", "InitContainer should invoke init containers on a RestartAlways pod")
def init_containers(t):
    def initialised(pod):
        init = pod["status"]["initContainerStatuses"]
        same([(s["ready"], s["state"]["terminated"]["exitCode"]) for s in init], [(True, 0), (True, 0)])
        condition = next(c for c in pod["status"]["conditions"] if c["type"] == "Initialized")
        same(condition["status"], "True")
    never = t.pod(t.container(["true"]), initContainers=inits("true", "true"))
    always = t.pod(t.container("sleep 3600"), initContainers=inits("true", "true"), restartPolicy="Always")
    initialised(t.phase(never, "Succeeded"))
    initialised(t.phase(always, "Running"))


@covers("InitContainer should not start app containers if init containers fail on a RestartAlways pod")
def failing_init_containers(t):
    name = t.pod(t.container(["true"]), initContainers=inits("false", "true"), restartPolicy="Always")

    def retried(pod):
        first, second = pod["status"].get("initContainerStatuses", [{}, {}])
        return first.get("restartCount", 0) >= 2 and second["state"].get("waiting")
    pod = t.wait_pod(name, retried, "the first is tried again", 40)
    same(pod["status"]["phase"], "Pending")
    same(status_of(pod)["state"]["waiting"]["reason"], "PodInitializing")
    has(str(pod["status"]["conditions"]), "containers with incomplete status: .init1 init2.")


@covers("InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod")
def failing_init_container_that_fails_its_pod(t):
    pod = t.phase(t.pod(t.container(["true"]), initContainers=inits("true", "false")), "Failed")
    same([s["state"].get("terminated", {}).get("exitCode") for s in pod["status"]["initContainerStatuses"]], [0, 1])
    same(status_of(pod)["state"]["waiting"]["reason"], "PodInitializing")


@covers("Container Runtime blackbox test when starting a container that exits should run with the expected status")
def exits(t):
    script = "f=/restart/count; n=$(cat $f 2>/dev/null | wc -l); echo x >> $f; {}"
    cases = [("Always", "[ $n -ge 1 ] && sleep 3600; exit 1", "Running", 1, True),
             ("OnFailure", "[ $n -ge 1 ] && exit 0; exit 1", "Succeeded", 1, False),
             ("Never", "exit 1", "Failed", 0, False)]
    for policy, ending, phase, restarts, ready in cases:
        name = t.pod(t.container(script.format(ending), volumeMounts=[{"name": "v", "mountPath": "/restart"}]), restartPolicy=policy,
                     volumes=[{"name": "v", "emptyDir": {}}])
        pod = t.wait_pod(name, lambda p, w=(phase, restarts): (p["status"].get("phase"), status_of(p).get("restartCount")) == w, f"{policy}")
        same(status_of(pod)["ready"], ready)


@covers("Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set",
       "Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
       "Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
       "Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path")
def termination_messages(t):
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    for script, more, phase, wanted in [
        ("printf DONE; exit 1", fallback, "Failed", "DONE"),
        ("printf DONE; exit 0", fallback, "Succeeded", None),
        ("printf OK > /dev/termination-log; printf DONE; exit 0", fallback, "Succeeded", "OK"),
        ("printf DONE > /dev/termination-custom-log", {"terminationMessagePath": "/dev/termination-custom-log",
                                                      "securityContext": {"runAsUser": 1000}}, "Succeeded", "DONE"),
        ("printf DONE > /dev/termination-log", {}, "Succeeded", "DONE"),
    ]:
        pod = t.phase(t.pod(t.container(script, **more)), phase)
        same(status_of(pod)["state"]["terminated"].get("message"), wanted, script)


@covers("Kubelet when scheduling a busybox command in a pod should print the output to logs",
       "Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason",
       "Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete")
def kubelet(t):
    same(t.output(t.container("echo 'Hello World'")), "Hello World\n")
    name = t.pod(t.container(["false"]))
    pod = t.wait_pod(name, lambda p: state(p, "terminated"), "it ends")
    same(status_of(pod)["state"]["terminated"]["reason"], "Error")
    assert status_of(pod)["state"]["terminated"]["exitCode"] == 1
    t.delete("pods", t.pod(t.container(["false"]), restartPolicy="Always"))
    t.gone("pods", "pod3")


@covers("Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts")
def host_aliases(t):
    text = t.output(t.container(["cat", "/etc/hosts"]), hostAliases=[{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}])
    has(text, "^# Kubernetes-managed hosts file.$", "^123.45.67.89\tfoo\tbar$")


@covers("KubeletManagedEtcHosts should test kubelet managed /etc/hosts file")
def hosts_files(t):
    managed = "# Kubernetes-managed hosts file"
    own = [{"name": "v", "mountPath": "/etc/hosts"}]
    volume = {"name": "v", "hostPath": {"path": "/etc/hosts", "type": "File"}}
    name = t.pod(t.container("sleep 3600", name="a"), t.container("sleep 3600", name="b", volumeMounts=own), volumes=[volume])
    host = t.pod(t.container("sleep 3600", name="a"), hostNetwork=True)
    t.ready(name)
    t.ready(host)
    has(t.exec(name, "cat", "/etc/hosts", container="a"), managed)
    for pod, container in ((name, "b"), (host, "a")):
        text = t.exec(pod, "cat", "/etc/hosts", container=container)
        assert not text.startswith(managed + ".") and "192.0.2.1 machine" in text, text
