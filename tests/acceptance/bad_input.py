"""Bad input and a world that fails: the status and message of the API, nothing changed, and a daemon that serves on."""

import concurrent.futures
import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
import unittest

import _lib

daemon = _lib.Daemon()
CREATE = "/v1.41/containers/create"


def setUpModule():
    daemon.start()
    daemon.load("busybox")


def tearDownModule():
    daemon.stop()


class Base(unittest.TestCase):
    def setUp(self):
        self.before = self.world()

    def tearDown(self):
        for container in daemon.get("/containers/json?all=1").json:
            daemon.delete(f"/containers/{container['Id']}?force=1&v=1")
        self.assertEqual(self.before, self.world(), "something changed")
        self.assertIsNone(daemon.process.poll(), "the daemon died")

    def world(self):
        return (sorted(t for i in daemon.get("/images/json").json for t in i["RepoTags"] or []), sorted(n["Name"] for n in daemon.get("/networks").json),
                sorted(v["Name"] for v in daemon.get("/volumes").json["Volumes"] or []))

    def fails(self, answer, status, text=""):
        self.assertEqual(answer.status, status, answer)
        self.assertTrue(answer.message, answer)
        self.assertIn(text.lower(), answer.message.lower())

    def create(self, *command, name="", **spec):
        answer = daemon.post(f"{CREATE}?name={name}", {"Image": "busybox", "Cmd": list(command), **spec})
        self.assertEqual(answer.status, 201, answer)
        return answer.json["Id"]

    def run_container(self, *command, **spec):
        container = self.create(*command, **spec)
        answer = daemon.post(f"/containers/{container}/start")
        self.assertEqual(answer.status, 204, answer)
        return container

    def state(self, container):
        return daemon.get(f"/containers/{container}/json").json["State"]


class Requests(Base):
    def test_malformed_json(self):
        for body in (b"{", b"[]", b"nonsense", b'{"Image": "busybox"', b"\xff\xfe", b'"text"', b"{}{}"):
            with self.subTest(body):
                self.fails(daemon.post(CREATE, body, {"Content-Type": "application/json"}), 400)

    def test_wrong_types(self):
        for body in ({"Image": 5}, {"Image": "busybox", "Cmd": {"a": 1}}, {"Image": "busybox", "HostConfig": {"Memory": "much"}},
                     {"Image": "busybox", "Env": "A=1"}, {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": "8080"}}}):
            with self.subTest(body):
                self.fails(daemon.post(CREATE, body), 400)

    def test_bad_values(self):
        for host, text in (({"Memory": 1}, "minimum memory limit"), ({"CpuShares": -1}, ""), ({"NetworkMode": "container:"}, ""), ({"PidMode": "nonsense"}, ""),
                           ({"RestartPolicy": {"Name": "sometimes"}}, "restart policy"), ({"LogConfig": {"Type": "nonsense"}}, ""), ({"CapAdd": ["FLY"]}, ""),
                           ({"Binds": ["/a:relative"]}, ""), ({"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}, ""), ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, "")):
            with self.subTest(host):
                answer = daemon.post(CREATE, {"Image": "busybox", "HostConfig": host})
                self.assertIn(answer.status, (400, 409, 500), answer)
                self.assertIn(text, answer.message.lower())
                self.assertTrue(answer.message)

    def test_unknown_fields_are_tolerated(self):
        answer = daemon.post(CREATE, {"Image": "busybox", "Nonsense": {"a": [1]}, "HostConfig": {"AlsoNonsense": 1}})
        self.assertEqual(answer.status, 201, answer)

    def test_routes_and_methods(self):
        self.fails(daemon.get("/nonsense"), 404, "page not found")
        self.fails(daemon.get("/v1.41/containers/a/b/c"), 404)
        self.assertIn(daemon.request("PATCH", "/containers/json").status, (404, 405))
        self.fails(daemon.get("/v1.10/version"), 400, "too old")
        self.fails(daemon.get("/v9.99/version"), 400, "too new")
        self.assertIn(daemon.get("/v1.x/version").status, (400, 404))

    def test_queries(self):
        self.fails(daemon.get("/containers/json?filters=nonsense"), 400)
        self.fails(daemon.get("/containers/json?filters=" + '{"nonsense":["a"]}'.replace('"', "%22")), 400, "invalid filter")
        self.fails(daemon.get("/containers/json?limit=many"), 400)
        self.fails(daemon.post(CREATE + "?name=un%20der", {"Image": "busybox"}), 400, "invalid container name")

    def test_huge(self):
        answer = daemon.post(CREATE, b'{"Image": "' + b"x" * (64 << 20) + b'"}', {"Content-Type": "application/json"})
        self.assertIn(answer.status, (400, 404, 413), answer)
        answer = daemon.request("GET", "/version", headers={"X-Long": "x" * (2 << 20)})
        self.assertIn(answer.status, (400, 431), answer)
        answer = daemon.get("/containers/" + "x" * 60000 + "/json")
        self.assertIn(answer.status, (400, 404, 414, 431), answer)
        nested = b'{"Image": "busybox", "Labels": ' + b"[" * 100000 + b"]" * 100000 + b"}"
        self.assertEqual(daemon.post(CREATE, nested, {"Content-Type": "application/json"}).status, 400)

    def test_broken_http(self):
        for text in (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: -5\r\n\r\n",
                     b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n", b"\x16\x03\x01\x02\x00" * 50):
            with self.subTest(text), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(daemon.socket))
                client.sendall(text)
                with_answer = client.recv(4096)
                self.assertTrue(not with_answer or b" 40" in with_answer.split(b"\r\n")[0] or b" 50" in with_answer.split(b"\r\n")[0], with_answer)

    def test_clients_that_stop_halfway(self):
        clients = []
        for _ in range(100):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(daemon.socket))
            client.sendall(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
            clients.append(client)
        self.assertEqual(daemon.get("/_ping").status, 200)
        for client in clients:
            client.close()

    def test_what_is_not_there(self):
        for path, text in (("/containers/nobody/json", "no such container: nobody"), ("/images/nobody/json", "no such image: nobody"), ("/networks/nobody", "network nobody not found"),
                           ("/volumes/nobody", "no such volume"), ("/exec/nobody/json", "no such exec"), ("/containers/nobody/logs?stdout=1", "no such container")):
            with self.subTest(path):
                self.fails(daemon.get(path), 404, text)
        self.fails(daemon.post(CREATE, {"Image": "no/such:1"}), 404, "no such image: no/such:1")
        for action in ("start", "stop", "kill", "pause", "restart", "wait", "rename?name=x", "exec"):
            with self.subTest(action):
                self.fails(daemon.post(f"/containers/nobody/{action}", {"Cmd": ["true"]} if action == "exec" else None), 404, "no such container")
        self.fails(daemon.delete("/containers/nobody"), 404)
        self.fails(daemon.post(CREATE, {"Image": "busybox", "HostConfig": {"NetworkMode": "container:nobody"}}) if _lib.ENGINE == "tripod" else daemon.delete("/networks/nobody"), 404)

    def test_references(self):
        for name in ("UPPER", "a b", "-a", "a:-", "a@sha256:abc", "a//b"):
            with self.subTest(name):
                self.fails(daemon.post(CREATE, {"Image": name}), 400, "invalid reference format")


class Conflicts(Base):
    def test_name(self):
        self.create("true", name="taken")
        self.fails(daemon.post(CREATE + "?name=taken", {"Image": "busybox"}), 409, "is already in use by container")

    def test_name_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: daemon.post(CREATE + "?name=only", {"Image": "busybox"}).status, range(16)))
        self.assertEqual(sorted(answers), [201] + [409] * 15)

    def test_start_at_once(self):
        container = self.create("sleep", "1000")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: daemon.post(f"/containers/{container}/start").status, range(8)))
        self.assertEqual(set(answers), {204, 304}, answers)
        self.assertEqual(answers.count(204), 1, answers)

    def test_address_in_use(self):
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 8000))
            taken.listen()
            container = self.create("sleep", "1000", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8000"}]}})
            answer = daemon.post(f"/containers/{container}/start")
            self.fails(answer, 500, "address already in use")
            self.assertFalse(self.state(container)["Running"])
            self.assertEqual(self.state(container)["Status"], "created")
        self.assertEqual(daemon.post(f"/containers/{container}/start").status, 204)

    def test_networks(self):
        self.fails(daemon.post("/networks/create", {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/99"}]}}), 400 if _lib.ENGINE == "tripod" else 500)
        self.fails(daemon.post("/networks/create", {"Name": "x", "Driver": "nonsense"}), 404, "nonsense")
        self.fails(daemon.post("/networks/create", {}), 400)

    def test_states(self):
        container = self.run_container("sleep", "1000")
        self.fails(daemon.delete(f"/containers/{container}"), 409, "container")
        self.fails(daemon.post(f"/containers/{container}/unpause"), 500 if _lib.ENGINE == "dockerd" else self.either(409, 500, daemon.post(f"/containers/{container}/unpause")), "not paused")
        daemon.post(f"/containers/{container}/kill")
        daemon.post(f"/containers/{container}/wait")
        self.fails(daemon.post(f"/containers/{container}/kill"), 409, "is not running")
        self.fails(daemon.post(f"/containers/{container}/exec", {"Cmd": ["true"]}), 409, "is not running")
        self.fails(daemon.post(f"/containers/{container}/kill?signal=NONSENSE"), 400, "invalid signal")

    def either(self, one, other, answer):
        return other if answer.status == other else one


class Processes(Base):
    def test_ignores_sigterm(self):
        container = self.run_container("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
        began = time.monotonic()
        self.assertEqual(daemon.post(f"/containers/{container}/stop?t=1").status, 204)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(self.state(container)["ExitCode"], 137)

    def test_fork_bomb(self):
        container = self.run_container("sh", "-c", "f() { f | f & f; }; f; sleep 1000", HostConfig={"PidsLimit": 64, "Memory": 128 << 20})
        other = self.run_container("sleep", "1000")
        began = time.monotonic()
        time.sleep(1)
        self.assertTrue(self.state(other)["Running"])
        self.assertEqual(daemon.get("/_ping").status, 200)
        self.assertEqual(daemon.delete(f"/containers/{container}?force=1").status, 204)
        self.assertLess(time.monotonic() - began, 15)
        self.assertFalse(int(subprocess.run(["pgrep", "-fc", "f . f"], capture_output=True, text=True).stdout) > 0)

    def test_missing_program(self):
        for command, text in (("/no/such", "no such file"), ("/etc", "permission denied")):
            container = self.create(command)
            self.fails(daemon.post(f"/containers/{container}/start"), 400, text)
            self.assertFalse(self.state(container)["Running"])

    def test_flood_of_output(self):
        container = self.run_container("sh", "-c", "yes | head -c 50000000", HostConfig={"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}})
        self.assertEqual(daemon.post(f"/containers/{container}/wait", timeout=120).json["StatusCode"], 0)
        files = [f for f in self.logs_of(container)]
        self.assertLess(sum(os.path.getsize(f) for f in files), 6 << 20)

    def logs_of(self, container):
        for folder, _, names in os.walk(daemon.root):
            if container in folder:
                yield from (os.path.join(folder, name) for name in names if "log" in name)


def image(layers, name="evil:1", **changes):
    """An archive for docker load of these layers' bytes."""
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]}}
    config.update(changes.get("config", {}))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        def put(path, data):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        put("config.json", json.dumps(config).encode())
        for n, layer in enumerate(layers):
            put(f"{n}/layer.tar", changes.get("stored", {}).get(n, layer))
        put("manifest.json", changes.get("manifest") or json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]).encode())
    return out.getvalue()


def layer(*entries):
    """A layer of (name, kind, link or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, value in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
            else:
                info.linkname = value if isinstance(value, str) else ""
                if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                    info.devmajor, info.devminor = value
                archive.addfile(info)
    return out.getvalue()


class Archives(Base):
    def load(self, data):
        return daemon.post("/images/load?quiet=1", data, {"Content-Type": "application/x-tar"}, timeout=120)

    def refused(self, data):
        answer = self.load(data)
        told = answer.message or "".join(json.loads(line).get("error", "") for line in answer.body.decode().splitlines() if line.startswith("{"))
        self.assertTrue(told, answer)
        return told

    def forget(self, name="evil:1"):
        daemon.delete(f"/images/{name}?force=1")

    def test_not_an_archive(self):
        for data in (b"", b"nonsense" * 1000, gzip.compress(b"nonsense"), b"\0" * 10240):
            with self.subTest(data[:10]):
                self.refused(data)

    def test_truncated(self):
        whole = (_lib.IMAGES / "busybox.tar").read_bytes()
        for length in (100, 5000, len(whole) // 2, len(whole) - 20000):
            with self.subTest(length):
                self.refused(whole[:length])

    def test_manifest(self):
        good = layer(("file", tarfile.REGTYPE, b"x"))
        for manifest in (b"nonsense", b"{}", b'[{"Config": "../../etc/passwd", "Layers": []}]', b'[{"Config": "config.json", "RepoTags": ["evil:1"], "Layers": ["../../../etc/passwd"]}]',
                         b'[{"Config": "config.json", "RepoTags": ["evil:1"], "Layers": []}]', b'[{"Config": "nothing.json", "RepoTags": ["evil:1"], "Layers": ["0/layer.tar"]}]'):
            with self.subTest(manifest):
                self.refused(image([good], manifest=manifest))

    def test_wrong_content(self):
        good, other = layer(("file", tarfile.REGTYPE, b"x")), layer(("file", tarfile.REGTYPE, b"y"))
        self.refused(image([good], stored={0: other}))

    def test_paths_that_lead_outside(self):
        victim = _lib.WORK / "victim"
        victim.mkdir(exist_ok=True)
        (victim / "kept").write_text("kept")
        up = "../" * 20 + str(victim).lstrip("/")
        for name, entries in (
                ("parents", [(f"{up}/made", tarfile.REGTYPE, b"x")]),
                ("absolute", [(f"{victim}/made", tarfile.REGTYPE, b"x")]),
                ("symlink", [("link", tarfile.SYMTYPE, str(victim)), ("link/made", tarfile.REGTYPE, b"x")]),
                ("relative symlink", [("link", tarfile.SYMTYPE, up), ("link/made", tarfile.REGTYPE, b"x")]),
                ("hard link", [("made", tarfile.LNKTYPE, f"{up}/kept"), ("made", tarfile.REGTYPE, b"overwritten")]),
                ("hard link through a symlink", [("link", tarfile.SYMTYPE, str(victim)), ("made", tarfile.LNKTYPE, "link/kept"), ("made", tarfile.REGTYPE, b"x")]),
                ("whiteout", [(f"{up}/.wh.kept", tarfile.REGTYPE, b"")]),
                ("whiteout through a symlink", [("link", tarfile.SYMTYPE, str(victim)), ("link/.wh.kept", tarfile.REGTYPE, b"")]),
                ("whiteout of the parent", [(".wh...", tarfile.REGTYPE, b"")]),
                ("opaque through a symlink", [("link", tarfile.SYMTYPE, str(victim)), ("link/.wh..wh..opq", tarfile.REGTYPE, b"")])):
            with self.subTest(name):
                answer = self.load(image([layer(*entries)]))
                self.assertIsNotNone(answer.status)
                self.assertEqual(os.listdir(victim), ["kept"])
                self.assertEqual((victim / "kept").read_text(), "kept")
                self.forget()

    def test_device(self):
        self.load(image([layer(("disk", tarfile.BLKTYPE, (8, 0)))]))
        container = daemon.post(CREATE, {"Image": "evil:1", "Cmd": ["true"]})
        if container.status == 201:  # it may be there, as with the real engine; what it is for is kept by the container's device rules
            daemon.delete(f"/containers/{container.json['Id']}?force=1")
        self.forget()

    def test_bomb(self):
        zeros = io.BytesIO()
        with gzip.GzipFile(fileobj=zeros, mode="wb", compresslevel=9) as out:
            for _ in range(256):
                out.write(b"\0" * (1 << 20))
        before = self.resident()
        self.refused(zeros.getvalue())
        self.assertLess(self.resident() - before, 64 << 20, "memory of the daemon grew")

    def resident(self):
        with open(f"/proc/{daemon.process.pid}/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))

    def test_archive_into_a_container(self):
        container = self.create("true")
        self.fails(daemon.request("PUT", f"/containers/{container}/archive?path=/tmp", b"nonsense" * 200), 400 if _lib.ENGINE == "tripod" else 500)
        self.fails(daemon.request("PUT", f"/containers/{container}/archive?path=/nowhere", layer()), 404)
        self.fails(daemon.get(f"/containers/{container}/archive?path=/nothing"), 404)
        victim = _lib.WORK / "victim2"
        victim.mkdir(exist_ok=True)
        daemon.request("PUT", f"/containers/{container}/archive?path=/tmp", layer(("../" * 20 + str(victim).lstrip("/") + "/made", tarfile.REGTYPE, b"x")))
        daemon.request("PUT", f"/containers/{container}/archive?path=/tmp", layer(("link", tarfile.SYMTYPE, str(victim)), ("link/made", tarfile.REGTYPE, b"x")))
        self.assertEqual(os.listdir(victim), [])


class Liar(http.server.BaseHTTPRequestHandler):
    """A registry that lies, by the repository's name."""

    protocol_version = "HTTP/1.1"
    hang = threading.Event()
    LAYER = gzip.compress(layer(("file", tarfile.REGTYPE, b"x" * 5000)))

    def log_message(self, *_):
        pass

    def answer(self, body, kind="application/json", status=200, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = length is not None

    do_HEAD = lambda self: self.do_GET()

    def do_GET(self):
        if self.path == "/v2/":
            return self.answer(b"{}")
        _, _, repository, what, reference = self.path.split("/", 4)
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(gzip.decompress(self.LAYER)).hexdigest()]}}).encode()
        digest = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(self.LAYER), "digest": digest(self.LAYER)}]}).encode()
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        if what == "manifests":
            if repository == "hangs":
                self.hang.wait(60)
            if repository == "nonsense":
                return self.answer(b"nonsense", kind)
            if repository == "broken":
                return self.answer(b'{"errors": [{"code": "UNKNOWN", "message": "on fire"}]}', status=500)
            if repository == "denied":
                return self.answer(b'{"errors": [{"code": "DENIED", "message": "go away"}]}', status=403)
            if repository == "pinned":
                return self.answer(manifest + b" ", kind)
            if repository == "endless":
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                try:
                    for _ in range(10000):
                        self.wfile.write(b" " * 65536)
                except OSError:
                    pass
                self.close_connection = True
                return None
            return self.answer(manifest, kind, Docker_Content_Digest=digest(manifest))
        if reference == digest(config):
            return self.answer(config)
        if repository == "wrong":
            return self.answer(self.LAYER[:-10] + b"0123456789", "application/octet-stream")
        if repository == "short":
            return self.answer(self.LAYER[:-50], "application/octet-stream", length=len(self.LAYER))
        return self.answer(self.LAYER, "application/octet-stream")


class Registries(Base):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
        cls.server.daemon_threads = True
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.name = f"127.0.0.1:{cls.server.server_port}"

    @classmethod
    def tearDownClass(cls):
        Liar.hang.set()
        cls.server.shutdown()

    def pull(self, repository, tag="1", timeout=60):
        answer = daemon.post(f"/images/create?fromImage={self.name}/{repository}&tag={tag}", timeout=timeout)
        if answer.message:
            return answer.message
        errors = [json.loads(line).get("error", "") for line in answer.body.decode().splitlines() if line.strip()]
        return "".join(errors)

    def test_honest(self):
        self.assertEqual(self.pull("honest"), "")
        self.assertEqual(daemon.delete(f"/images/{self.name}/honest:1").status, 200)

    def test_lies(self):
        for repository in ("nonsense", "broken", "denied", "wrong", "short", "endless"):
            with self.subTest(repository):
                self.assertTrue(self.pull(repository))
                self.assertEqual(daemon.get(f"/images/{self.name}/{repository}:1/json").status, 404)

    def test_wrong_digest(self):
        self.assertTrue(self.pull("pinned", "sha256:" + "0" * 64))

    def test_client_leaves_a_registry_that_hangs(self):
        with self.assertRaises(OSError):
            self.pull("hangs", timeout=2)
        self.assertEqual(daemon.get("/_ping").status, 200)

    def test_nobody_listens(self):
        self.assertTrue(daemon.post("/images/create?fromImage=127.0.0.1:1/a&tag=1").body)
        self.fails(daemon.post("/images/create?fromImage=UPPER&tag=1"), 400, "invalid reference format")
        self.fails(daemon.post("/images/create?fromImage="), 400)


class Swarm(Base):
    @classmethod
    def setUpClass(cls):
        answer = daemon.post("/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"})
        assert answer.status == 200, answer

    @classmethod
    def tearDownClass(cls):
        daemon.post("/swarm/leave?force=1")

    def service(self, name, **changes):
        spec = {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Command": ["sleep", "1000"]}}, "Mode": {"Replicated": {"Replicas": 1}}}
        spec.update(changes)
        return daemon.post("/services/create", spec)

    def test_bad_services(self):
        self.fails(self.service("un der"), 400, "name must be valid")
        self.fails(self.service("a", TaskTemplate={}), 400)
        self.fails(self.service("a", TaskTemplate={"ContainerSpec": {"Image": ""}}), 400, "image reference must be provided")
        self.fails(self.service("a", EndpointSpec={"Mode": "dnsrr", "Ports": [{"TargetPort": 80, "PublishedPort": 8000}]}), 400)
        self.fails(self.service("a", TaskTemplate={"ContainerSpec": {"Image": "busybox"}, "Placement": {"Constraints": ["nonsense"]}}), 400)
        self.fails(self.service("a", TaskTemplate={"ContainerSpec": {"Image": "busybox", "Secrets": [{"SecretID": "x", "SecretName": "x"}]}}), 400)
        self.fails(daemon.post("/services/create", b"{", {"Content-Type": "application/json"}), 400)
        self.assertEqual(daemon.get("/services").json, [])

    def test_nothing_fits(self):
        answer = self.service("stuck", TaskTemplate={"ContainerSpec": {"Image": "busybox"}, "Placement": {"Constraints": ["node.labels.a==b"]}})
        self.assertEqual(answer.status, 201, answer)
        error = lambda: any("no suitable node" in t["Status"].get("Err", "") for t in daemon.get("/tasks").json)
        self.assertTrue(_lib.eventually(10, error), daemon.get("/tasks").json)
        self.assertEqual(daemon.delete("/services/stuck").status, 200)

    def test_what_is_not_there(self):
        for path in ("/services/nobody", "/tasks/nobody", "/nodes/nobody", "/secrets/nobody", "/configs/nobody"):
            with self.subTest(path):
                self.fails(daemon.get(path), 404, "not found")
        self.fails(daemon.post("/services/nobody/update?version=1", {"Name": "nobody"}), 404)
        self.fails(daemon.post("/secrets/create", {"Name": "s", "Data": "???"}), 400)
        self.fails(daemon.post("/secrets/create", {"Name": "", "Data": "YQ=="}), 400)
        self.fails(daemon.post("/swarm/join", {"RemoteAddrs": ["127.0.0.1:1"], "JoinToken": "x"}), 503, "already part of a swarm")


@unittest.skipIf(_lib.ENGINE == "dockerd", "needs a small disk")
class FullDisk(unittest.TestCase):
    def test_full_disk(self):
        root = _lib.WORK / "small"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", root], check=True)
        other = _lib.Daemon(root)
        # A machine has one daemon; what the first one leaves (its bridge) is in nobody's way.
        daemon.stop()
        self.addCleanup(daemon.start)
        try:
            other.start()
            other.load("busybox")
            answer = other.post("/images/load?quiet=1", (_lib.IMAGES / "httpbin.tar").read_bytes(), {"Content-Type": "application/x-tar"}, timeout=120)
            self.assertIn(b"no space left on device", answer.body.lower(), answer)
            self.assertEqual([i["RepoTags"] for i in other.get("/images/json").json], [["busybox:latest"]])
            self.assertEqual(other.docker("run", "--rm", "busybox", "echo", "still"), "still")
            filler = root / "filler"
            with open(filler, "wb") as out:
                try:
                    while True:
                        out.write(b"\0" * 65536)
                        out.flush()
                except OSError:
                    pass
            answer = other.post(CREATE, {"Image": "busybox", "Cmd": ["true"]})
            if answer.status != 201:
                self.assertGreaterEqual(answer.status, 500)
                self.assertIn("no space", answer.message.lower())
            self.assertEqual(other.get("/_ping").status, 200)
            filler.unlink()
            self.assertEqual(other.docker("run", "--rm", "busybox", "echo", "again"), "again")
            self.assertEqual(other.stop(), 0)
            other.start()
            self.assertEqual(other.docker("run", "--rm", "busybox", "echo", "after"), "after")
            self.assertEqual(other.stop(), 0)
        finally:
            other.kill()
            subprocess.run(["umount", "-l", root], check=False)


if __name__ == "__main__":
    unittest.main(warnings="ignore")
