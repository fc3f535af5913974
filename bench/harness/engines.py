"""The engines that are measured: each runs on the machine of the measure, with folders of its own below $WORK."""

import os
import pathlib
import signal
import socket
import subprocess
import time

from . import procs
from .api import Api

PROJECT = pathlib.Path(__file__).resolve().parents[2]
WORK = pathlib.Path(os.environ.get("WORK", "/nonexistent"))


class Engine:
    """A daemon: started, asked, killed, started again."""

    name = ""
    programs = ()

    def __init__(self, tag):
        self.root = WORK / f"{self.name}-{tag}"
        self.root.mkdir()
        self.socket = str(self.root / "s.sock")
        self._log = open(self.root / "log", "ab")
        self._process = None

    def arguments(self):
        raise NotImplementedError

    def start(self):
        """Starts the daemon and returns the seconds until it answered its first request."""
        began = time.monotonic()
        self._process = subprocess.Popen(
            self.arguments(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True)
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() - began > 60:
                raise RuntimeError(f"{self.name} does not answer:\n{self.log_tail()}")
            time.sleep(0.001)
        return time.monotonic() - began

    def _answers(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(5)
            try:
                asked.connect(self.socket)
                asked.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b" 200 " in asked.recv(4096)
            except OSError:
                return False

    def kill(self):
        """SIGKILL to the daemon alone."""
        self._process.kill()
        self._process.wait()

    def stop(self):
        """Ends the daemon and whatever it left running."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        mine = {os.getpid(), 1, os.getppid()}
        for pid in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
            # Nothing else lives on this machine (it has its own process namespace).
            if pid not in mine and procs_parent(pid) not in (None, os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self._log.close()

    def api(self):
        return Api(self.socket)

    def load(self, *archives):
        api = self.api()
        for archive in archives:
            api.call("POST", "/images/load", raw=(PROJECT / "target/images" / archive).read_bytes(), quiet="1")
        api.close()

    def swarm(self):
        api = self.api()
        api.post("/swarm/init", {"ListenAddr": "192.0.2.1:2377", "AdvertiseAddr": "192.0.2.1"})
        api.close()

    def pids(self):
        """The processes that are the engine: what runs beside containers, and for them."""
        found = procs.processes(*self.programs)
        if not found:
            raise RuntimeError(f"no process of {self.name} runs")
        return found

    def log_tail(self):
        self._log.flush()
        return (self.root / "log").read_text(errors="replace")[-3000:]


class Tripod(Engine):
    name = "tripod"
    program = os.environ.get("TRIPOD") or str(PROJECT / "target/release/tripod")
    programs = (os.path.basename(program),)

    def arguments(self):
        return [self.program, "daemon", "--data-root", str(self.root / "data"), "--host", f"unix://{self.socket}",
                "--log-level", "warn"]


class Docker(Engine):
    name = "docker"
    programs = ("dockerd", "containerd", "docker-proxy", "containerd-shim-runc-v2")
    live_restore = False

    def arguments(self):
        arguments = ["dockerd", "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec"),
                     "--pidfile", str(self.root / "pid"), "--host", f"unix://{self.socket}", "--log-level", "error"]
        return arguments + (["--live-restore"] if self.live_restore else [])


class Moto(Engine):
    """The server of moto, which answers AWS calls and runs nothing."""

    name = "moto"
    program = str(PROJECT / "target/bench-venv/bin/moto_server")
    programs = ("moto_server", "python3", "python")
    address = ("127.0.0.1", 5000)

    def arguments(self):
        return [self.program, "-H", self.address[0], "-p", str(self.address[1])]

    def _answers(self):
        try:
            socket.create_connection(self.address, 5).close()
            return True
        except OSError:
            return False

    def pids(self):
        return [self._process.pid]


ENGINES = {"docker": Docker, "moto": Moto, "tripod": Tripod}


def procs_parent(pid):
    """The parent of a process; None where the process has gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def version(program):
    """First line of `PROGRAM --version`."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0]
