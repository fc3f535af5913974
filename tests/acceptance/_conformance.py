"""What the conformance tests are made of: entries, a client of plain objects, pods, and the runner.

A test is a function of one argument, a `Case`, under `@covers(TITLE...)`; titles are those of docs/conformance.md,
with or without what is in brackets. Each runs in a namespace of its own, many at a time.
"""

import contextlib
import json
import re
import ssl
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import _lib
import websocket
from kubernetes import client, config
from kubernetes.client.rest import ApiException

BUSYBOX, PYTHON = "busybox", "kennethreitz/httpbin"
GROUPS = {
    "deployments": "apps/v1", "replicasets": "apps/v1", "statefulsets": "apps/v1", "jobs": "batch/v1",
    "leases": "coordination.k8s.io/v1", "endpointslices": "discovery.k8s.io/v1", "runtimeclasses": "node.k8s.io/v1",
    "storageclasses": "storage.k8s.io/v1", "csidrivers": "storage.k8s.io/v1", "csinodes": "storage.k8s.io/v1",
    "csistoragecapacities": "storage.k8s.io/v1", "volumeattachments": "storage.k8s.io/v1",
    "volumeattributesclasses": "storage.k8s.io/v1", "networkpolicies": "networking.k8s.io/v1",
    "servicecidrs": "networking.k8s.io/v1", "ipaddresses": "networking.k8s.io/v1", "priorityclasses": "scheduling.k8s.io/v1",
}
CLUSTERED = {
    "nodes", "namespaces", "persistentvolumes", "runtimeclasses", "storageclasses", "csidrivers", "csinodes", "volumeattachments",
    "volumeattributesclasses", "servicecidrs", "ipaddresses", "priorityclasses",
}
TESTS = []


def covers(*titles, alone=False):
    """A test that shows these entries; `alone` runs when no other does."""
    def register(function):
        TESTS.append((titles, function, alone))
        return function
    return register


def bare(title):
    """A title without what is in brackets."""
    return re.sub(r"\s*\[[^]]*\]", "", title).strip()


class Kube:
    """The Kubernetes API with objects as they are on the wire."""

    def __init__(self, daemon):
        path = _lib.WORK / f"{daemon.root.name}.kubeconfig"

        def written():
            shown = subprocess.run([_lib.os.environ["TRIPOD"], "kubeconfig", "--data-root", str(daemon.root)], capture_output=True)
            return shown.returncode == 0 and path.write_bytes(shown.stdout)
        assert _lib.eventually(20, written), "there is no kubeconfig"
        self.config = client.Configuration()
        config.load_kube_config(str(path), client_configuration=self.config)
        self.config.connection_pool_maxsize = 200
        self.api = client.ApiClient(self.config)

    def call(self, method, path, body=None, query=(), media="application/json", timeout=60, raw=False):
        headers = {"Accept": "application/json, */*", "Content-Type": media}
        answer = self.api.call_api(
            path, method, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"],
            response_type="object", _preload_content=False, _return_http_data_only=True, _request_timeout=timeout)
        return answer.data if raw else json.loads(answer.data or b"null")

    def path(self, kind, namespace, name=None, sub=None):
        group = GROUPS.get(kind, "v1")
        top = f"/apis/{group}" if "/" in group else f"/api/{group}"
        parts = [top] if kind in CLUSTERED or namespace is None else [top, "namespaces", namespace]
        return "/".join(p for p in [*parts, kind, name, sub] if p)

    def websocket(self, path, protocol="v4.channel.k8s.io"):
        url = self.config.host.replace("https://", "wss://") + path
        options = {"ca_certs": self.config.ssl_ca_cert, "certfile": self.config.cert_file, "keyfile": self.config.key_file,
                   "cert_reqs": ssl.CERT_REQUIRED, "check_hostname": False}
        return websocket.create_connection(url, sslopt=options, subprotocols=[protocol], timeout=30)


class Case:
    """One test: its namespace, and what it does there."""

    def __init__(self, kube, name):
        self.kube, self.name, self._namespace = kube, name, None
        self.extra, self.lock, self.count = [], threading.Lock(), 0

    @property
    def ns(self):
        with self.lock:
            if self._namespace is None:
                self._namespace = self.space()
        return self._namespace

    def space(self, **labels):
        """A new namespace that is ready to be used, and goes with the test."""
        made = self.kube.call("POST", "/api/v1/namespaces", {"metadata": {"generateName": f"{self.name[:40]}-", "labels": labels}})
        name = made["metadata"]["name"]
        self.extra.append(("namespaces", name))
        self.until(10, lambda: self.find("serviceaccounts", "default", ns=name), "the service account")
        return name

    def clean(self):
        for kind, name in self.extra:
            with contextlib.suppress(ApiException):
                self.kube.call("DELETE", self.kube.path(kind, None, name), {"gracePeriodSeconds": 0})

    # ---- objects

    def at(self, kind, name=None, sub=None, ns=None):
        return self.kube.path(kind, None if kind in CLUSTERED else ns or self.ns, name, sub)

    def create(self, kind, body, ns=None):
        made = self.kube.call("POST", self.at(kind, ns=ns), body)
        if kind in CLUSTERED:
            self.extra.append((kind, made["metadata"]["name"]))
        return made

    def get(self, kind, name, sub=None, ns=None):
        return self.kube.call("GET", self.at(kind, name, sub, ns))

    def find(self, kind, name, ns=None):
        """The object, or None."""
        try:
            return self.get(kind, name, ns=ns)
        except ApiException as e:
            assert e.status == 404, e
            return None

    def list(self, kind, labels="", everywhere=False, ns=None, fields=""):
        path = self.kube.path(kind, None) if everywhere else self.at(kind, ns=ns)
        return self.kube.call("GET", path, query=[("labelSelector", labels), ("fieldSelector", fields)])["items"]

    def replace(self, kind, body, sub=None, ns=None):
        return self.kube.call("PUT", self.at(kind, body["metadata"]["name"], sub, ns), body)

    def patch(self, kind, name, body, sub=None, media="strategic-merge-patch", ns=None):
        return self.kube.call("PATCH", self.at(kind, name, sub, ns), body, media=f"application/{media}+json")

    def delete(self, kind, name, ns=None, grace=None):
        return self.kube.call("DELETE", self.at(kind, name, ns=ns), None if grace is None else {"gracePeriodSeconds": grace})

    def delete_all(self, kind, labels="", ns=None):
        return self.kube.call("DELETE", self.at(kind, ns=ns), query=[("labelSelector", labels)])

    def modify(self, kind, name, change, sub=None, ns=None):
        """Reads, changes and writes until nobody came between."""
        while True:
            body = self.get(kind, name, sub, ns)
            change(body)
            try:
                return self.replace(kind, body, sub, ns)
            except ApiException as e:
                if e.status != 409:
                    raise

    def refused(self, status, call, *arguments, **options):
        """The answer of a call that has to fail so."""
        try:
            call(*arguments, **options)
        except ApiException as e:
            assert e.status == status, f"{e.status} instead of {status}: {e.body}"
            return json.loads(e.body)
        raise AssertionError(f"it succeeded, with {status} expected")

    def tls_secret(self, name):
        certificate, key = self_signed()
        return self.create("secrets", {"metadata": {"name": name}, "type": "kubernetes.io/tls", "stringData": {
            "tls.crt": certificate, "tls.key": key}})

    def watching(self, kind, labels, since=None, seconds=20):
        """Types and objects as a watch tells them; collected in the background until the test has enough."""
        version = since or self.kube.call("GET", self.at(kind))["metadata"]["resourceVersion"]
        query = [("watch", "true"), ("labelSelector", labels), ("resourceVersion", version), ("timeoutSeconds", str(seconds))]
        seen = []

        def follow():
            answer = self.kube.api.call_api(self.at(kind), "GET", query_params=query, auth_settings=["BearerToken"],
                                            response_type="object", _preload_content=False, _return_http_data_only=True)
            with contextlib.suppress(Exception):
                for line in answer:
                    for part in line.splitlines():
                        event = json.loads(part)
                        seen.append((event["type"], event["object"]))
        threading.Thread(target=follow, daemon=True).start()
        return seen

    def events(self, name, ns=None):
        return [(e.get("reason"), e.get("message")) for e in self.list("events", fields=f"involvedObject.name={name}", ns=ns)]

    def until(self, seconds, condition, what):
        """The first true value of `condition`."""
        value = _lib.eventually(seconds, condition)
        assert value, f"not within {seconds} s: {what() if callable(what) else what}"
        return value

    # ---- pods

    def container(self, command=None, image=BUSYBOX, name="c", **more):
        """A container; `command` is a script for sh, or a list."""
        if isinstance(command, str):
            command = ["sh", "-c", command]
        body = {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **more}
        return {**body, "command": command} if command else body

    def pod(self, *containers, name=None, labels=None, annotations=None, ns=None, **spec):
        """Creates a pod; its containers end at once when they are told to."""
        with self.lock:
            self.count += 1
            name = name or f"pod{self.count}"
        spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
        metadata = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
        return self.create("pods", {"metadata": metadata, "spec": spec}, ns)["metadata"]["name"]

    def wait_pod(self, name, condition, what, seconds=30, ns=None):
        last = {}

        def holds():
            last["pod"] = self.get("pods", name, ns=ns)
            return condition(last["pod"]) and last["pod"]
        return self.until(seconds, holds, lambda: f"{name}: {what}; {json.dumps(last['pod'].get('status'))[:1500]} {self.events(name, ns)}")

    def phase(self, name, *phases, seconds=30, ns=None):
        return self.wait_pod(name, lambda p: p["status"].get("phase") in phases, f"phase {phases}", seconds, ns)

    def ready(self, name, seconds=30, ns=None):
        return self.wait_pod(name, is_ready, "ready", seconds, ns)

    def gone(self, kind, name, seconds=20, ns=None):
        self.until(seconds, lambda: self.find(kind, name, ns) is None, f"{kind} {name} is gone")

    def output(self, *containers, phase="Succeeded", ns=None, of="c", **spec):
        """What a pod prints that runs to its end."""
        name = self.pod(*containers, ns=ns, **spec)
        self.phase(name, "Succeeded", "Failed", ns=ns)
        found = self.get("pods", name, ns=ns)["status"]["phase"]
        text = self.log(name, of, ns=ns)
        assert found == phase, f"{name}: {found}; {text}; {self.get('pods', name, ns=ns)['status']}"
        return text

    def log(self, name, container="c", ns=None, **query):
        query = [("container", container), *query.items()]
        return self.kube.call("GET", self.at("pods", name, "log", ns), query=query, raw=True).decode()

    def exec(self, name, *command, container="c", ns=None, status=0):
        """Runs a command; what it prints. `status` None: status and output."""
        if len(command) == 1:
            command = ["sh", "-c", command[0]]
        query = "&".join(f"command={quote(c)}" for c in command)
        socket = self.kube.websocket(f"{self.at('pods', name, 'exec', ns)}?container={container}&stdout=1&stderr=1&{query}")
        out, result = b"", None
        with contextlib.closing(socket), contextlib.suppress(websocket.WebSocketConnectionClosedException):
            while True:
                data = socket.recv()
                data = data.encode() if isinstance(data, str) else data
                if not data:
                    break
                if data[0] in (1, 2):
                    out += data[1:]
                elif data[0] == 3:
                    result = json.loads(data[1:])
        code = 0
        if result and result.get("status") != "Success":
            causes = result.get("details", {}).get("causes", [])
            code = next((int(c["message"]) for c in causes if c["reason"] == "ExitCode"), -1)
        if status is None:
            return code, out.decode()
        assert result and code == status, f"{command} in {name}: {code} {out} {result}"
        return out.decode()


def self_signed():
    """A certificate that nobody vouches for, and its key."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
                   .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem).decode(), private.decode()


def quote(text):
    from urllib.parse import quote as of
    return of(text, safe="")


def is_ready(pod):
    return condition(pod, "Ready") == "True"


def condition(thing, kind):
    return next((c["status"] for c in thing["status"].get("conditions", []) if c["type"] == kind), None)


def status_of(pod, name="c", kind="containerStatuses"):
    return next((s for s in pod["status"].get(kind, []) if s["name"] == name), {})


def state(pod, which, name="c", kind="containerStatuses"):
    """Its state `waiting`, `running` or `terminated`; empty when it is another."""
    return status_of(pod, name, kind).get("state", {}).get(which) or {}


def same(found, wanted, what=""):
    assert found == wanted, f"{what} wanted {wanted!r}, found {found!r}"


def has(text, *expressions):
    for expression in expressions:
        assert re.search(expression, text, re.M), f"no line matches {expression!r} in: {text[:3000]}"


def cluster(daemon, *images):
    """A daemon with a cluster of its own, ready for pods."""
    daemon.start()
    answer = daemon.request("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"})
    assert answer.status == 200, answer.body
    daemon.load(*images)
    kube = Kube(daemon)
    ready = lambda: any(condition(n, "Ready") == "True" for n in kube.call("GET", "/api/v1/nodes")["items"])  # noqa: E731
    assert _lib.eventually(20, ready), "the node is not ready"
    return kube


def known_titles():
    """Titles of the entries in docs/conformance.md, and those that claim the script that runs."""
    titles, claimed = set(), set()
    for line in (_lib.PROJECT / "docs/conformance.md").read_text().splitlines():
        found = re.match(r"- (.*?): \*(shown|due|later)\*(.*)", line)
        if found:
            titles.add(bare(found[1]))
            if found[2] == "shown" and f"`{_lib.Path(sys.argv[0]).name}`" in found[3]:
                claimed.add(bare(found[1]))
    return titles, claimed


def main(kube, workers=24):
    """Runs the tests, or those whose title or function matches an argument; ends the process."""
    wanted, passed, failed, lock = sys.argv[1:], [], [], threading.Lock()

    def run(test):
        titles, function, _ = test
        case, began, error = Case(kube, function.__name__.replace("_", "-")), time.monotonic(), None
        try:
            function(case)
        except Exception as e:
            error = f"{type(e).__name__}: {e}"[:6000]
            if not isinstance(e, AssertionError) or not str(e):
                error += "\n" + traceback.format_exc()
        took = time.monotonic() - began
        case.clean()
        with lock:
            titles = titles or [" ".join((function.__doc__ or "").removeprefix("Not on the list: ").split())]
            (failed if error else passed).extend(titles)
            for title in titles:
                print(f"{'not ok' if error else 'ok'} - {title} ({function.__name__}, {took:.1f} s)", flush=True)
            if error:
                print("    " + error.replace("\n", "\n    "), flush=True)

    chosen = [t for t in TESTS if not wanted or any(w in t[1].__name__ or any(w in n for n in t[0]) for w in wanted)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, [t for t in chosen if not t[2]]))
    for test in chosen:
        if test[2]:
            run(test)
    titles, claimed = known_titles()
    here = {bare(n) for t in TESTS for n in t[0]}
    for title in sorted(here - titles):
        failed.append(title)
        print(f"not ok - there is no such entry: {title}")
    for title in sorted(claimed - here):
        failed.append(title)
        print(f"not ok - no test shows this entry: {title}")
    print(f"\n{len(passed)} passed, {len(failed)} failed")
    return not failed
