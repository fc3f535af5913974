"""Helpers of the conformance tests: a cluster of one node, its Kubernetes API over HTTPS, and tests that run side by side.

A test is a method of a Case and has a namespace of its own, `self.ns`. The mark `shows` says which entry of Kubernetes'
conformance list it shows (docs/conformance.md); `alone` that it minds what others do to the cluster.
"""

import base64
import concurrent.futures
import contextlib
import http.client
import itertools
import json
import queue
import ssl
import subprocess
import sys
import threading
import time
import traceback
import unittest
import urllib.parse

import _lib
import yaml

IMAGE = "busybox:latest"
JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
WORKERS = 12

_local = threading.local()
_numbers = itertools.count(1)


class Cluster:
    """The daemon, and how to reach its API as administrator."""

    def __init__(self):
        self.daemon = _lib.Daemon(options=("--advertise-addr", "192.0.2.1"))
        self.kubeconfig = _lib.WORK / "kubeconfig"

    def start(self):
        self.daemon.start()
        answer = self.daemon.request("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"})
        assert answer.status == 200, answer.body
        path = self.daemon.root / "kube/admin.conf"
        assert _lib.eventually(20, path.exists), "no kubeconfig"
        self.kubeconfig.write_text(path.read_text())
        self.daemon.load("busybox")
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.address = urllib.parse.urlsplit(cluster["server"])
        self.authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        files = []
        for name in ("client-certificate-data", "client-key-data"):
            file = _lib.WORK / name
            file.write_bytes(base64.b64decode(user[name]))
            files.append(str(file))
        self.plain = ssl.create_default_context(cadata=self.authority)
        self.admin = ssl.create_default_context(cadata=self.authority)
        self.admin.load_cert_chain(*files)
        assert _lib.eventually(20, lambda: get("/readyz").status == 200), "not ready"
        assert _lib.eventually(20, ready_node), "the node is not ready"
        assert _lib.eventually(20, lambda: get("/api/v1/namespaces/default/serviceaccounts/default").status == 200)

    def connection(self, anonymous=False, timeout=60):
        context = self.plain if anonymous else self.admin
        return http.client.HTTPSConnection(self.address.hostname, self.address.port, timeout=timeout, context=context)


cluster = Cluster()


def ready_node():
    nodes = get("/api/v1/nodes").json["items"]
    return any(condition(n, "Ready") == "True" for n in nodes)


def condition(thing, kind, field="status"):
    """A condition's status (or another field of it) in an object; None where it has none."""
    for c in thing.get("status", {}).get("conditions") or []:
        if c["type"] == kind:
            return c.get(field)
    return None


def query(path, options):
    if not options:
        return path
    return path + ("&" if "?" in path else "?") + urllib.parse.urlencode(options)


def request(method, path, body=None, kind=None, accept=JSON, token=None, headers=None, **options):
    """One request; `options` are the query's. With `token`, as its holder (the empty string: as nobody)."""
    sent = {"Accept": accept, **(headers or {})}
    if body is not None:
        sent["Content-Type"] = kind or JSON
        body = body if isinstance(body, (bytes, str)) else json.dumps(body)
    if token:
        sent["Authorization"] = f"Bearer {token}"
    name = "admin" if token is None else "plain"
    for attempt in (1, 2):
        connection = getattr(_local, name, None)
        fresh = connection is None
        if fresh:
            connection = cluster.connection(anonymous=token is not None)
            setattr(_local, name, connection)
        try:
            connection.request(method, query(path, options), body, sent)
            return _lib.Answer(connection.getresponse(), method == "HEAD")
        except (OSError, http.client.HTTPException):
            connection.close()
            setattr(_local, name, None)
            if fresh or attempt == 2:
                raise


def get(path, **options):
    return request("GET", path, **options)


def ok(answer, *statuses):
    """The answer's JSON, which must have one of these statuses (any of success, unless said)."""
    fine = answer.status in statuses if statuses else 200 <= answer.status < 300
    assert fine, f"expected {statuses or 'success'}, got {answer}"
    return answer.json


def read(path, **options):
    return ok(get(path, **options))


def create(path, body, **options):
    return ok(request("POST", path, body, **options), 201)


def replace(path, body, **options):
    return ok(request("PUT", path, body, **options))


def patch(path, body, kind=MERGE, **options):
    return ok(request("PATCH", path, body, kind, **options))


def delete(path, body=None, **options):
    return ok(request("DELETE", path, body, **options))


def gone(path):
    return get(path).status == 404


def refused(answer, status, reason, *parts):
    """Asserts a failure's status, reason and parts of its message."""
    assert answer.status == status, f"expected {status} {reason}, got {answer}"
    value = answer.json
    assert value["kind"] == "Status" and value["status"] == "Failure" and value["code"] == status, value
    assert value["reason"] == reason, value
    for part in parts:
        assert part in value["message"], f"{part!r} is not in {value['message']!r}"
    return value


def until(condition, seconds=30, what=None):
    """The first true value of `condition`."""
    last = None
    end = time.monotonic() + seconds
    pause = 0.02
    while time.monotonic() < end:
        try:
            last = condition()
            if last:
                return last
        except AssertionError as e:
            last = e
        time.sleep(pause)
        pause = min(pause * 1.5, 0.3)
    raise AssertionError(f"not within {seconds} s: {what or condition}; the last: {last!r}")


def change(path, how):
    """Reads, changes and replaces an object, again when somebody else was faster."""
    for _ in range(20):
        thing = read(path)
        how(thing)
        answer = request("PUT", path, thing)
        if answer.status != 409:
            return ok(answer)
    raise AssertionError(f"{path} is always in conflict")


class Watch:
    """A watch under way; a thread reads it."""

    def __init__(self, path, **options):
        options.setdefault("timeoutSeconds", 120)
        self.connection = cluster.connection(timeout=130)
        self.connection.request("GET", query(path, {"watch": "true", **options}), headers={"Accept": JSON})
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self.events = queue.Queue()
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self.response:
                self.events.put(json.loads(line))
        self.events.put(None)

    def next(self, seconds=20):
        """The next event as (type, object)."""
        event = self.events.get(timeout=seconds)
        assert event is not None, "the watch has ended"
        return event["type"], event["object"]

    def until(self, what, accepts=lambda o: True, seconds=30):
        """The first object of an event of that type that is accepted."""
        end = time.monotonic() + seconds
        seen = []
        while (left := end - time.monotonic()) > 0:
            try:
                kind, thing = self.next(left)
            except queue.Empty:
                break
            seen.append(kind)
            if kind == what and accepts(thing):
                return thing
        raise AssertionError(f"no such {what} within {seconds} s; seen: {seen}")

    def silent(self, seconds):
        with contextlib.suppress(queue.Empty):
            raise AssertionError(f"unexpected event: {self.events.get(timeout=seconds)}")

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.sock and self.connection.sock.shutdown(2)


def kubectl(*arguments, stdin=None, check=True, timeout=60):
    """What kubectl prints."""
    done = subprocess.run(["kubectl", "--kubeconfig", str(cluster.kubeconfig), *arguments], input=stdin, capture_output=True, text=True, timeout=timeout)
    if check:
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout
    return done


# What tests make.

def meta(name, **more):
    return {"name": name, **more}


def container(script=None, name="c", **more):
    command = ["sh", "-c", script] if script else ["sleep", "3600"]
    return {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command, **more}


def pod_spec(script=None, spec=None, **more):
    return {"terminationGracePeriodSeconds": 0, "containers": [container(script, **more)], **(spec or {})}


def pod(name, script=None, labels=None, spec=None, meta=None, **more):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}, **(meta or {})},
            "spec": pod_spec(script, spec, **more)}


def workload(kind, name, replicas=1, script=None, labels=None, spec=None, pod=None, version="apps/v1", **more):
    """A Deployment, ReplicaSet, StatefulSet, DaemonSet or ReplicationController."""
    labels = labels or {"app": name}
    body = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod_spec(script, pod, **more)}, **(spec or {})}
    if kind != "DaemonSet":
        body["replicas"] = replicas
    if kind == "ReplicationController":
        body["selector"], version = labels, "v1"
    if kind == "StatefulSet":
        body.setdefault("serviceName", name)
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": body}


def shows(*entries):
    """Says which entries of the conformance list a test shows."""
    def mark(function):
        function.entries = entries
        return function
    return mark


def alone(function):
    """The test runs when no other does."""
    function.alone = True
    return function


class Case(unittest.TestCase):
    """A test with a namespace of its own."""

    labels = {}

    def setUp(self):
        self.ns = f"t{next(_numbers)}-{self._testMethodName.removeprefix('test_').replace('_', '-')}"[:40].rstrip("-")
        self.v1 = f"/api/v1/namespaces/{self.ns}"
        self.apps = f"/apis/apps/v1/namespaces/{self.ns}"
        self.batch = f"/apis/batch/v1/namespaces/{self.ns}"
        create("/api/v1/namespaces", {"metadata": {"name": self.ns, "labels": {"e2e": "yes", **self.labels}}})
        self.addCleanup(request, "DELETE", f"/api/v1/namespaces/{self.ns}")
        until(lambda: get(f"{self.v1}/serviceaccounts/default").status == 200, 10)

    def group(self, group):
        return f"/apis/{group}/namespaces/{self.ns}"

    def watch(self, path, **options):
        watch = Watch(path, **options)
        self.addCleanup(watch.close)
        return watch

    def pods(self, selector=None):
        """The pods of the namespace that are not on their way out."""
        options = {"labelSelector": selector} if selector else {}
        items = read(f"{self.v1}/pods", **options)["items"]
        return [p for p in items if not p["metadata"].get("deletionTimestamp")]

    def running(self, name, seconds=40):
        def runs():
            seen = read(f"{self.v1}/pods/{name}")
            assert condition(seen, "Ready") == "True", seen["status"]
            return seen
        return until(runs, seconds)


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def run_one(test):
    result = unittest.TestResult()
    began = time.monotonic()
    test.run(result)
    return test, result, time.monotonic() - began


def main(modules):
    """Runs the tests of these modules, or those whose names are given, and tells how it went."""
    wanted = sys.argv[1:]
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromModule(m) for m in modules)
    tests = [t for t in flat(suite) if not wanted or any(w in t.id() for w in wanted)]
    single = [t for t in tests if hasattr(getattr(t, t._testMethodName), "alone")]
    cluster.start()
    began = time.monotonic()
    failed, errors = 0, 0
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        done = pool.map(run_one, [t for t in tests if t not in single])
        for test, result, seconds in itertools.chain(done, map(run_one, single)):
            bad = result.failures + result.errors
            failed, errors = failed + len(result.failures), errors + len(result.errors)
            print(f"{'FAIL' if bad else 'ok  '} {test.id()} ({seconds:.1f} s)", flush=True)
            for _, text in bad:
                print(text)
    code = cluster.daemon.stop()
    if code != 0:
        print(f"the daemon ended with {code}")
        errors += 1
    print(f"\nRan {len(tests)} tests in {time.monotonic() - began:.1f}s\n")
    if failed or errors:
        print(f"FAILED (failures={failed}, errors={errors})")
        log = cluster.daemon.log.read_text()
        print("\n".join(line for line in log.splitlines() if "panicked" in line or "ERROR" in line)[-3000:])
    sys.exit(bool(failed or errors))


__all__ = [name for name in dir() if not name.startswith("__") and name not in ("traceback",)]
