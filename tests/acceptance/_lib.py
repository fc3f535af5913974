"""Helpers of the acceptance scripts in Python: `import _lib` at their beginning.

The import runs the script again on a machine of its own (see _machine). Daemon starts and ends the real daemon; raw
HTTP goes through Daemon.request. ENGINE=dockerd runs a script against Docker's own engine.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
os.environ.setdefault("TRIPOD", str(PROJECT / "target/release/tripod"))
os.environ.setdefault("TRIPOD_IMAGES", str(PROJECT / "target/images"))
if "TRIPOD_MACHINE" not in os.environ:
    os.execv(HERE / "_machine", [str(HERE / "_machine"), sys.executable, *sys.argv])

WORK = Path(os.environ["WORK"])
IMAGES = Path(os.environ["TRIPOD_IMAGES"])
ENGINE = os.environ.get("ENGINE", "tripod")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("d", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, response, head=False):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = b"" if head else response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        """The API's error message; the empty string where there is none."""
        try:
            value = self.json
        except ValueError:
            return ""
        return value.get("message", "") if isinstance(value, dict) else ""

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Daemon:
    """One daemon on a data root of its own."""

    def __init__(self, root=None, options=()):
        self.root = Path(root or WORK / "data")
        self.socket = WORK / f"{self.root.name}.sock"
        self.log = WORK / f"{self.root.name}.log"
        self.options = list(options)
        self.process = None

    @property
    def url(self):
        return f"unix://{self.socket}"

    def start(self):
        """Starts it, and waits until it answers."""
        if ENGINE == "dockerd":
            command = ["dockerd", "--data-root", str(self.root), "-H", self.url]
        else:
            command = [os.environ["TRIPOD"], "daemon", "--data-root", str(self.root), "--host", self.url, *self.options]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/_ping", timeout=2).status == 200:
                    return self
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the daemon does not serve:\n" + self.log.read_text()[-3000:])
            time.sleep(0.02)

    def stop(self):
        """Ends it as an init system would; its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def load(self, *names):
        for name in names:
            with open(IMAGES / f"{name}.tar", "rb") as archive:
                answer = self.request("POST", "/images/load?quiet=1", archive, {"Content-Type": "application/x-tar"}, timeout=120)
            if answer.status != 200 or b"Loaded image" not in answer.body:
                raise RuntimeError(f"{name} was not loaded: {answer}")

    def request(self, method, path, body=None, headers=None, timeout=60):
        """One request, with `body` as JSON unless it is bytes, a file or an iterator."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse(), method == "HEAD")
        finally:
            connection.close()

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body=None, headers=None, timeout=60):
        return self.request("POST", path, body, headers, timeout)

    def delete(self, path):
        return self.request("DELETE", path)

    def docker(self, *arguments, timeout=60, check=True):
        """What the docker client prints."""
        done = subprocess.run(["docker", "-H", self.url, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout.strip()


def eventually(seconds, condition, *arguments):
    """The first true value of `condition`, which may need that long; what it said last, otherwise."""
    end = time.monotonic() + seconds
    while True:
        value = condition(*arguments)
        if value or time.monotonic() > end:
            return value
        time.sleep(0.05)
