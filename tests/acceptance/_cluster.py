"""Several hosts on one machine, and what the scripts about clusters share: `import _cluster` at their beginning.

A host is a network namespace on a switch (10.77.0.N of 10.77.0.0/24; this machine is .254), with mounts, processes and
cgroups of its own; its daemon answers on a unix socket that this machine sees. Switching a host off ends all its
processes at once; cutting it off takes its cable away. Everything ends with the machine of _lib.
"""

import collections
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import _lib

PORT = 8000


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **options).stdout


def child(pid):
    """The first child of a process, when there is one."""
    def look():
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                return int(file.read().split()[0])
    found = _lib.eventually(10, look)
    if not found:
        raise RuntimeError(f"process {pid} has started nothing")
    return found


def switch():
    """The switch, and this machine's port on it."""
    run("ip", "link", "add", "sw", "type", "bridge")
    run("ip", "addr", "add", "10.77.0.254/24", "dev", "sw")
    run("ip", "link", "set", "sw", "up")


class Host(_lib.Daemon):
    """One host with its daemon."""

    def __init__(self, number):
        self.name, self.address, self.number = f"h{number}", f"10.77.0.{number}", number
        self.folder = _lib.WORK / self.name
        self.folder.mkdir()
        super().__init__(self.folder / "data")
        self.socket, self.log = self.folder / "docker.sock", self.folder / "log"
        self.init = self.first = None
        self.power_on()

    def power_on(self):
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", self.name, "master", "sw", "up")
        for command in ("addr add %s/24 dev eth0" % self.address, "link set lo up", "link set eth0 up",
                        "route add default via 10.77.0.254"):
            run("ip", "-n", self.name, *command.split())
        (self.folder / "up").unlink(missing_ok=True)
        with open(self.folder / "init.log", "ab") as log:
            self.init = subprocess.Popen([_lib.HERE / "_machine", "--groups", self.name], env={**os.environ, "HOST": "1"},
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not _lib.eventually(10, (self.folder / "up").exists):
            raise RuntimeError("a host does not come up:\n" + (self.folder / "init.log").read_text())
        self.first = child(self.init.pid)

    def power_off(self):
        """All its processes end, and what its kernel knew is gone; its disk stays."""
        self.init.kill()
        self.init.wait()
        if self.process:
            self.process.wait(10)
        run("ip", "link", "del", self.name)
        run("ip", "netns", "del", self.name)
        self.init = self.process = None

    def cut(self, off=True):
        """Takes its cable away, or plugs it in again."""
        run("ip", "link", "set", self.name, "down" if off else "up")

    def command(self, *command):
        return [str(_lib.HERE / "_machine"), "--enter", self.name, str(self.first), *[str(c) for c in command]]

    def start(self):
        self.socket.unlink(missing_ok=True)
        command = self.command(os.environ["TRIPOD"], "daemon", "--data-root", self.root, "--host", self.url)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/_ping", timeout=2).status == 200:
                    return self
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("a daemon does not serve:\n" + self.log.read_text()[-3000:])
            time.sleep(0.02)

    def stop(self):
        os.kill(child(self.process.pid), 15)
        return self.process.wait(40)

    def kill(self):
        os.kill(child(self.process.pid), 9)
        self.process.wait(10)

    def nodes(self):
        """What `docker node ls` says here: {name: (status, availability, manager status)}; empty when it fails."""
        done = subprocess.run(["docker", "-H", self.url, "node", "ls", "--format", "{{json .}}"], capture_output=True,
                              text=True, timeout=30, stdin=subprocess.DEVNULL)
        lines = [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
        return {n["Hostname"]: (n["Status"], n["Availability"], n["ManagerStatus"]) for n in lines}

    def leader(self):
        """The name of the leader, by this host."""
        return next((name for name, node in self.nodes().items() if node[2] == "Leader"), None)

    def containers(self):
        """How many containers run here."""
        return len(self.get("/containers/json").json)


def leader_of(hosts):
    """The host that leads, by all of these."""
    def agreed():
        said = {host.leader() for host in hosts}
        return said.pop() if len(said) == 1 else None
    name = _lib.eventually(15, agreed)
    return next((host for host in hosts if host.name == name), None)


def cluster(managers, workers=0, *images):
    """Hosts whose daemons make one cluster."""
    switch()
    hosts = [Host(n + 1) for n in range(managers + workers)]
    starters = [threading.Thread(target=host.start) for host in hosts]
    for thread in starters:
        thread.start()
    for thread in starters:
        thread.join()
    hosts[0].docker("swarm", "init", "--advertise-addr", hosts[0].address)
    hosts[0].docker("swarm", "update", "--dispatcher-heartbeat", "1s")
    for n, host in enumerate(hosts[1:], 1):
        token = hosts[0].docker("swarm", "join-token", "-q", "manager" if n < managers else "worker")
        host.docker("swarm", "join", "--advertise-addr", host.address, "--token", token, hosts[0].address)
    for host in hosts:
        host.load(*images)
    return hosts


class Checks:
    def __init__(self):
        self.passed = self.failed = 0
        self.began = time.monotonic()

    def __call__(self, text, good, detail=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
        detail = detail() if callable(detail) and not good else detail
        print(f"{'ok' if good else 'not ok'} - {text}" + (f"\n    {detail}" if not good else ""), flush=True)
        return good

    def soon(self, seconds, text, condition, detail=""):
        return self(text, _lib.eventually(seconds, quietly(condition)), detail)

    def step(self, text):
        print(f"\n# {text} ({time.monotonic() - self.began:.0f} s)", flush=True)


def quietly(condition):
    """A condition that is not true while it cannot be asked."""
    def look():
        try:
            return condition()
        except (OSError, RuntimeError, http.client.HTTPException, subprocess.SubprocessError, ValueError):
            return None
    return look


class Load:
    """Clients on this machine that fetch a page from hosts, a new connection for each request, all the while."""

    def __init__(self, hosts, clients=16, pause=0.03, limit=5):
        self.addresses, self.pause, self.limit = [host.address for host in hosts], pause, limit
        self.answered = collections.Counter()
        self.lost = []  # (begun, ended, address, error)
        self.ending = False
        self.threads = [threading.Thread(target=self.client, args=(n,), daemon=True) for n in range(clients)]

    def client(self, number):
        address = self.addresses[number % len(self.addresses)]
        while not self.ending:
            began = time.monotonic()
            try:
                self.fetch(address)
                self.answered[address] += 1
            except OSError as e:
                self.lost.append((began, time.monotonic(), address, f"{type(e).__name__} {e}"))
            time.sleep(self.pause)

    def fetch(self, address):
        with socket.create_connection((address, PORT), self.limit) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := connection.recv(65536):
                answer += part
        if not answer.startswith(b"HTTP/1.1 200 ") or b"</html>" not in answer.lower():
            raise ConnectionError(f"no whole page: {answer[:80]!r}")

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.ending = True
        for thread in self.threads:
            thread.join()

    def none_lost(self, check, text):
        rest = "\n    ".join(f"after {e - b:.2f} s, {a}: {what}" for b, e, a, what in self.lost[:6])
        check(f"{text}: no request is lost", not self.lost, f"{len(self.lost)} lost, such as\n    {rest}")
        check(f"{text}: requests were answered", min(self.answered.values(), default=0) > 10, self.answered)

    def lost_only_before(self, check, text, moment, allowed):
        """Requests begun later than `allowed` seconds after the moment have all been answered."""
        late = [lost for lost in self.lost if lost[0] > moment + allowed]
        before = [lost for lost in self.lost if lost[1] < moment]
        last = max((lost[0] - moment for lost in self.lost), default=0)
        print(f"    {sum(self.answered.values())} answered, {len(self.lost)} lost; the last one was begun {last:.2f} s after")
        check(f"{text}: nothing is lost before", not before, before[:5])
        check(f"{text}: new connections succeed after {allowed} s", not late, f"{len(late)}: {late[:5]}")


class Writers:
    """Clients that make one config after the other, and what was acknowledged."""

    def __init__(self, hosts, clients=16):
        self.acknowledged = []  # (moment, name)
        self.errors = collections.Counter()
        self.ending = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.write, args=(n, hosts[n % len(hosts)]), daemon=True) for n in range(clients)]

    def write(self, number, host):
        count = 0
        while not self.ending:
            count += 1
            name = f"w{number}-{count}"
            try:
                answer = host.post("/configs/create", {"Name": name, "Data": "eA==", "Labels": {}}, timeout=30)
            except (OSError, http.client.HTTPException) as e:
                self.errors[type(e).__name__] += 1
                time.sleep(0.05)
                continue
            if answer.status == 201:
                with self.lock:
                    self.acknowledged.append((time.monotonic(), name))
            else:
                self.errors[f"{answer.status} {answer.message[:80]}"] += 1
                time.sleep(0.05)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(1.5)
        return self

    def __exit__(self, *_):
        self.ending = True
        for thread in self.threads:
            thread.join()

    def gap(self, since):
        """The longest time without an acknowledgement after a moment."""
        times = [since, *sorted(t for t, _ in self.acknowledged if t > since)]
        return max((b - a for a, b in zip(times, times[1:])), default=float("inf"))


def main(walk):
    """Runs a script's checks; its exit status."""
    check, hosts = Checks(), []
    try:
        walk(check, hosts)
    except Exception as e:
        import traceback
        traceback.print_exc(file=sys.stdout)
        check(f"{type(e).__name__}: {e}", False)
    if check.failed:
        for log in sorted(_lib.WORK.glob("h*/log")):
            print(f"# the end of {log.parent.name}'s log:\n" + log.read_text()[-1500:])
    for process in [host.init for host in hosts if host.init]:
        process.kill()
    if keep := os.environ.get("KEEP_LOGS"):
        for log in _lib.WORK.glob("h*/log"):
            shutil.copy(log, f"{keep}-{log.parent.name}")
    print(f"\n{check.passed} passed, {check.failed} failed")
    return check.failed > 0
