"""docker-py's high-level API against the daemon: containers, images, networks and volumes of one node, and bad input
at the level of HTTP. Runs on a machine of its own (see _machine); prints a line per check and the count at the end."""

import http.client
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
if "TRIPOD_MACHINE" not in os.environ:
    os.execv(HERE / "_machine", ["_machine", sys.executable, str(HERE / pathlib.Path(__file__).name)])

import docker  # noqa: E402
from docker import errors, types  # noqa: E402

TRIPOD = os.environ.get("TRIPOD", str(PROJECT / "target/release/tripod"))
IMAGES = pathlib.Path(os.environ.get("TRIPOD_IMAGES", PROJECT / "target/images"))
WORK = pathlib.Path(os.environ["WORK"])
SOCKET = WORK / "docker.sock"
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def raises(kind, text, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as e:
        assert text in str(e), f"{text!r} is not in {e}"
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def eventually(seconds, what):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.05)


@test
def system(client):
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.50"
    info = client.info()
    assert info["Swarm"]["LocalNodeState"] == "inactive" and info["NCPU"] > 0 and info["MemTotal"] > 0
    assert {"Images", "Containers", "Volumes", "LayersSize"} <= set(client.df())


@test
def life_of_a_container(client):
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    raises(errors.ContainerError, "exit status 3", client.containers.run, "busybox", ["sh", "-c", "exit 3"], remove=True)
    c = client.containers.run(
        "busybox", ["sh", "-c", "echo out; echo err >&2; trap 'exit 5' TERM; while :; do sleep 0.1; done"],
        detach=True, name="py-life", environment={"A": "b"}, labels={"k": "v"}, mem_limit="64m",
        healthcheck={"test": ["CMD", "true"], "interval": 10**9},
    )
    eventually(5, lambda: c.logs(stdout=True, stderr=True).count(b"\n") == 2)
    assert c.logs(stdout=True, stderr=False) == b"out\n"
    assert c.logs(stdout=False, stderr=True) == b"err\n"
    stamped = c.logs(timestamps=True, tail=1).decode()
    assert stamped[:4].isdigit() and "T" in stamped[:30], stamped
    assert [x.name for x in client.containers.list(filters={"label": "k=v"})] == ["py-life"]
    assert client.containers.get("py-life").attrs["HostConfig"]["Memory"] == 64 << 20
    assert any("sleep" in " ".join(p) or "sh" in " ".join(p) for p in c.top()["Processes"])
    assert c.stats(stream=False)["memory_stats"]["usage"] > 0
    code, output = c.exec_run(["sh", "-c", "echo $A; exit 7"])
    assert (code, output) == (7, b"b\n"), (code, output)
    code, (out, err) = c.exec_run(["sh", "-c", "echo 1; echo 2 >&2"], demux=True)
    assert (code, out, err) == (0, b"1\n", b"2\n")
    eventually(10, lambda: client.containers.get("py-life").attrs["State"]["Health"]["Status"] == "healthy")
    c.pause()
    c.reload()
    assert c.status == "paused"
    c.unpause()
    c.rename("py-renamed")
    assert c.update(mem_limit="96m", memswap_limit="192m") == {"Warnings": []}
    c.stop(timeout=5)
    assert c.wait()["StatusCode"] == 5
    c.start()
    c.restart(timeout=0)
    c.kill()
    assert c.wait()["StatusCode"] == 137
    assert c.diff() is not None
    c.remove(v=True)
    raises(errors.NotFound, "No such container: py-renamed", client.containers.get, "py-renamed")


@test
def streams(client):
    c = client.containers.create("busybox", ["cat"], stdin_open=True, network_mode="none")
    s = c.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    c.start()
    s._sock.sendall(b"through the socket\n")
    s._sock.settimeout(10)
    got = b""
    while len(got) < 8 + 19:
        got += s._sock.recv(4096)
    assert got == b"\x01\0\0\0\0\0\0\x13through the socket\n", got
    s.close()
    c.remove(force=True)
    c = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; done"], detach=True)
    assert b"".join(c.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    c.remove()


@test
def files(client):
    c = client.containers.create("busybox", ["true"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("greeting")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    assert c.put_archive("/tmp", data.getvalue())
    bits, stat = c.get_archive("/tmp/greeting")
    assert stat["name"] == "greeting" and stat["size"] == 5
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
        assert tar.extractfile("greeting").read() == b"hello"
    assert any(x["Path"] == "/tmp/greeting" and x["Kind"] == 1 for x in c.diff())
    raises(errors.NotFound, "", c.get_archive, "/no/such")
    names = tarfile.open(fileobj=io.BytesIO(b"".join(c.export()))).getnames()
    assert any(n.strip("./") == "tmp/greeting" for n in names)
    image = c.commit("py/committed", "1", changes=["CMD [\"cat\", \"/tmp/greeting\"]"])
    assert client.containers.run("py/committed:1", remove=True) == b"hello"
    client.images.remove(image.id, force=True)
    c.remove()


@test
def images(client):
    image = client.images.get("busybox")
    assert "busybox:latest" in image.tags and image.attrs["Architecture"]
    assert image.history()
    image.tag("py/other", "x")
    assert [i.tags for i in client.images.list(name="py/other")] == [["busybox:latest", "py/other:x"]] or any(
        "py/other:x" in i.tags for i in client.images.list(name="py/other")
    )
    saved = b"".join(client.images.get("py/other:x").save(named="py/other:x"))
    client.images.remove("py/other:x")
    raises(errors.ImageNotFound, "No such image: py/other:x", client.images.get, "py/other:x")
    loaded = client.images.load(saved)
    assert any("py/other:x" in i.tags for i in loaded), [i.tags for i in loaded]
    client.images.remove("py/other:x")
    raises(errors.APIError, "", client.images.search, "busybox")
    assert client.images.prune()["SpaceReclaimed"] >= 0


@test
def networks_and_volumes(client):
    pool = types.IPAMConfig(pool_configs=[types.IPAMPool(subnet="10.123.0.0/24", gateway="10.123.0.1")])
    net = client.networks.create("py-net", driver="bridge", ipam=pool, labels={"k": "v"})
    raises(errors.APIError, "already exists", client.networks.create, "py-net")
    server = client.containers.run(
        "busybox", ["sh", "-c", "mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w"],
        detach=True, name="py-server", network="py-net", ports={"80/tcp": None},
    )
    server.reload()
    address = server.attrs["NetworkSettings"]["Networks"]["py-net"]["IPAddress"]
    assert address.startswith("10.123.0."), address
    assert server.ports["80/tcp"][0]["HostPort"].isdigit()
    out = client.containers.run("busybox", ["nslookup", "py-server"], network="py-net", remove=True)
    assert address.encode() in out, out
    net.reload()
    assert [c.name for c in net.containers] == ["py-server"]
    raises(errors.APIError, "active endpoints", net.remove)
    net.disconnect(server)
    net.connect(server, ipv4_address="10.123.0.77", aliases=["other"])
    server.reload()
    assert server.attrs["NetworkSettings"]["Networks"]["py-net"]["IPAddress"] == "10.123.0.77"
    server.remove(force=True)
    volume = client.volumes.create("py-vol", labels={"k": "v"})
    client.containers.run("busybox", ["sh", "-c", "echo kept > /v/f"], volumes={"py-vol": {"bind": "/v"}}, remove=True)
    out = client.containers.run("busybox", ["cat", "/v/f"], mounts=[types.Mount("/v", "py-vol")], remove=True)
    assert out == b"kept\n"
    assert [v.name for v in client.volumes.list(filters={"label": "k"})] == ["py-vol"]
    volume.remove()
    raises(errors.NotFound, "no such volume", client.volumes.get, "py-vol")
    net.remove()
    assert "NetworksDeleted" in client.networks.prune() and "SpaceReclaimed" in client.volumes.prune()


@test
def events(client):
    since = int(time.time())
    client.containers.run("busybox", ["true"], remove=True, labels={"ev": "1"})
    eventually(5, lambda: not client.containers.list(all=True, filters={"label": "ev"}))
    past = client.events(since=since, until=int(time.time()) + 1, decode=True, filters={"label": "ev", "type": "container"})
    seen = [e["Action"] for e in past]
    assert [a for a in seen if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"], seen


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(SOCKET))


def call(method, path, body=None, headers=None):
    connection = Connection("d")
    default = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, default if headers is None else headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


@test
def bad_input(_client):
    create = "/v1.50/containers/create"
    for method, path, body, status, text in [
        ("GET", "/v1.99/info", None, 400, "client version 1.99 is too new. Maximum supported API version is 1.50"),
        ("GET", "/v1.23/info", None, 400, "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("GET", "/v1.50/nonsense", None, 404, "page not found"),
        ("POST", create, "{", 400, "unexpected EOF"),
        ("POST", create, "", 400, ""),
        ("POST", create, '{"Image":5}', 400, "json: cannot unmarshal number into Go struct field"),
        ("POST", create, '{"Image":"busybox","HostConfig":{"Memory":"64m"}}', 400, "HostConfig.Memory of type int64"),
        ("POST", create, '{"Image":"busybox","Odd":{}} trailing', 400, "unexpected content after JSON"),
        ("POST", create, '{"Image":"busybox","HostConfig":{"Memory":5}}', 400, "Minimum memory limit allowed is 6MB"),
        ("POST", create, '{"Image":"busybox","HostConfig":{"CapAdd":["FLY"]}}', 400, "unknown capability"),
        ("POST", create, '{"Image":"busybox","HostConfig":{"Binds":["/a:b"]}}', 400, "mount path must be absolute"),
        ("POST", create, '{"Image":"busybox","ExposedPorts":{"x":{}}}', 400, "invalid port"),
        ("POST", create, '{"Image":"no/such:1"}', 404, "No such image: no/such:1"),
        ("POST", create + "?name=a%20b", '{"Image":"busybox"}', 400, "Invalid container name"),
        ("POST", create, "[" * 100000, 400, ""),
        ("POST", create, '{"Image":"' + "x" * (9 << 20) + '"}', 413, "request body too large"),
        ("GET", "/containers/json?filters=%7B", None, 400, "invalid filter"),
        ("GET", "/containers/json?filters=%7B%22odd%22%3A%5B%22x%22%5D%7D", None, 400, "invalid filter 'odd'"),
        ("GET", "/containers/nope/json", None, 404, "No such container: nope"),
        ("POST", "/containers/nope/kill?signal=SIGNOPE", None, 400, "nvalid signal: SIGNOPE"),
        ("POST", "/containers/nope/wait?condition=odd", None, 400, "invalid condition"),
        ("GET", "/containers/nope/logs", None, 400, "you must choose at least one stream"),
        ("POST", "/networks/create", "{}", 400, "network name is required"),
        ("POST", "/build", "x", 501, "build is not implemented by Tripod"),
        ("GET", "/services", None, 503, "This node is not a swarm manager"),
    ]:
        got, said = call(method, path, body)
        assert got == status and text in json.loads(said)["message"], f"{method} {path} {str(body)[:80]}: {got} {said}"
    got, said = call("POST", create, "{}", {"Content-Type": "text/plain"})
    assert got == 400 and "unsupported Content-Type header" in said, said
    assert call("GET", "/v1.24/_ping", headers={"X-Long": "x" * 60_000})[0] == 200
    try:
        assert call("GET", "/_ping", headers={"X-Long": "x" * 2_000_000})[0] in (400, 431)
    except (BrokenPipeError, ConnectionResetError):
        pass  # cut off before all of it was sent, which is as good a refusal


@test
def nothing_is_left(client):
    assert client.containers.list(all=True) == []
    assert [n.name for n in client.networks.list() if not n.name in ("bridge", "host", "none")] == []
    assert client.volumes.list() == []


def main():
    log = open(WORK / "daemon.log", "wb")
    daemon = subprocess.Popen(
        [TRIPOD, "daemon", "--data-root", str(WORK / "data"), "--host", f"unix://{SOCKET}"],
        stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    )
    passed = failed = 0
    try:
        eventually(30, lambda: SOCKET.exists() or daemon.poll() is not None)
        client = docker.DockerClient(base_url=f"unix://{SOCKET}", timeout=60)
        with open(IMAGES / "busybox.tar", "rb") as archive:
            assert "busybox:latest" in client.images.load(archive)[0].tags
        for function in TESTS:
            try:
                function(client)
                passed += 1
                print(f"ok - {function.__name__}")
            except Exception:
                failed += 1
                print(f"not ok - {function.__name__}")
                print("    " + traceback.format_exc().replace("\n", "\n    "))
            sys.stdout.flush()
    finally:
        daemon.terminate()
        if daemon.wait(timeout=30) != 0:
            failed += 1
            print("not ok - the daemon ends with status 0")
        if failed:
            print((WORK / "daemon.log").read_text()[-3000:])
    print(f"\n{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
