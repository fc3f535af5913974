"""Changes of a published service under load lose no request.

Fifty clients ask a service of four replicas all the while: some with a connection for each request, some keeping
theirs, some with requests that take a while, from this machine and from its neighbour. Meanwhile the service is
updated (start-first, stop-first), scaled down and up again. A request counts as lost if it has no complete answer. A
kept connection may be closed between two requests; a client then asks again on a new one, as HTTP clients do, and only
if no byte of an answer came.
"""

import asyncio
import collections
import sys
import time

import _lib

PORT = 8000
daemon = _lib.Daemon()


class Lost(Exception):
    """A request without a complete answer."""


async def ask(reader, writer, path, keep):
    """One request; the body of its answer, and whether the connection stays."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: web\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode())
    await writer.drain()
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        raise (Lost("half a head") if e.partial else ConnectionResetError("closed before an answer")) from e
    lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    try:
        body = await reader.readexactly(int(headers["content-length"]))
    except (asyncio.IncompleteReadError, OSError) as e:
        raise Lost(f"half a body: {e}") from e
    if " 200 " not in lines[0]:
        raise Lost(lines[0])
    return body, headers.get("connection") != "close"


class Load:
    """The clients and what became of their requests."""

    def __init__(self):
        self.answered = collections.Counter()
        self.pages = collections.Counter()
        self.lost = []
        self.ending = False

    async def connect(self, address):
        return await asyncio.wait_for(asyncio.open_connection(address, PORT), 10)

    async def fresh(self, kind, address, path):
        reader, writer = await self.connect(address)
        try:
            body, _ = await asyncio.wait_for(ask(reader, writer, path, False), 15)
        finally:
            writer.close()
        self.count(kind, body)

    def count(self, kind, body):
        self.answered[kind] += 1
        for word in (b"blue", b"green"):
            if word in body:
                self.pages[word.decode()] += 1

    async def one_by_one(self, kind, address, path, pause):
        while not self.ending:
            try:
                await self.fresh(kind, address, path)
            except Exception as e:
                self.lose(kind, e)
            await asyncio.sleep(pause)

    async def keeping(self, kind, address, pause):
        reader = writer = None
        while not self.ending:
            used = writer is not None
            try:
                if not used:
                    reader, writer = await self.connect(address)
                body, stays = await asyncio.wait_for(ask(reader, writer, "/", True), 15)
                self.count(kind, body)
            except Exception as e:
                stays = False
                if not (used and isinstance(e, ConnectionError)):
                    self.lose(kind, e)
            if not stays and writer is not None:
                writer.close()
                reader = writer = None
            await asyncio.sleep(pause)

    def lose(self, kind, error):
        self.lost.append(f"{time.strftime('%T')} {kind}: {type(error).__name__} {error}")

    def clients(self):
        addresses = ("127.0.0.1", "192.0.2.1")
        for n in range(20):
            yield self.one_by_one("fresh", addresses[n % 2], "/", 0.02)
        for n in range(20):
            yield self.keeping("kept", addresses[n % 2], 0.03)
        for n in range(10):
            yield self.one_by_one("slow", addresses[n % 2], "/slow/700", 0.05)


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, text, good, detail=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok' if good else 'not ok'} - {text}" + (f"\n    {detail}" if not good else ""), flush=True)


async def docker(*arguments, timeout=120):
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", daemon.url, *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), timeout)
    except asyncio.TimeoutError:
        process.kill()
        return 124, f"docker {' '.join(arguments)} took more than {timeout} s"
    return process.returncode, out.decode()


async def outside(load):
    """Clients on the neighbour: curl, since this process is on this machine."""
    while not load.ending:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", "outside", "curl", "-sS", "-m", "10", f"http://192.0.2.1:{PORT}/", "-o", "/dev/null",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        out, _ = await process.communicate()
        if process.returncode:
            load.lose("outside", RuntimeError(out.decode().strip()))
        else:
            load.answered["outside"] += 1
        await asyncio.sleep(0.1)


async def phase(check, text, *command, seconds=2, change=None):
    """Runs a change under load, and on for some seconds: a command of docker, or `change`."""
    load = Load()
    tasks = [asyncio.create_task(client) for client in (*load.clients(), outside(load))]
    await asyncio.sleep(1)
    began = time.monotonic()
    status, said = await (change() if change else docker(*command))
    took = time.monotonic() - began
    await asyncio.sleep(seconds)
    load.ending = True
    await asyncio.gather(*tasks)
    check(f"{text}: the command succeeds", status == 0, said[-600:])
    check(f"{text}: no request is lost", not load.lost, f"{len(load.lost)} lost, such as\n    " + "\n    ".join(load.lost[:8]))
    check(f"{text}: clients of every kind were served", all(load.answered[kind] >= 10 for kind in ("fresh", "kept", "slow", "outside")), load.answered)
    print(f"    {dict(load.answered)}, {dict(load.pages)}, the change took {took:.1f} s", flush=True)
    return load


async def walk(check):
    status, said = await docker("service", "create", "--name", "web", "--replicas", "4", "-d=false", "-q", "-p", f"{PORT}:8080",
                                "--update-monitor", "500ms", "spkane/quantum-game")
    check("a service of four replicas", status == 0, said)
    await phase(check, "at rest", "service", "ls")
    load = await phase(check, "start-first", "service", "update", "-d=false", "-q", "--update-order", "start-first",
                       "--image", "spkane/quantum-game:latest-plus", "web")
    check("start-first: both editions were seen", load.pages["blue"] and load.pages["green"], load.pages)
    await phase(check, "stop-first", "service", "update", "-d=false", "-q", "--update-order", "stop-first", "--image", "spkane/quantum-game", "web")
    await phase(check, "two at a time", "service", "update", "-d=false", "-q", "--update-parallelism", "2", "--force", "web")
    await phase(check, "scaled down", "service", "scale", "-d=false", "web=1", seconds=4)
    await phase(check, "scaled up", "service", "scale", "-d=false", "web=6")
    await phase(check, "rolled back", "service", "rollback", "-d=false", "-q", "web")
    status, said = await docker("service", "ps", "web", "--format", "{{.CurrentState}} {{.Error}}")
    check("no task failed", "Failed" not in said and "Rejected" not in said, said)


def main():
    check = Checks()
    try:
        daemon.start()
        daemon.load("quantum-game")
        daemon.docker("swarm", "init", "--advertise-addr", "192.0.2.1")
        asyncio.run(walk(check))
        daemon.docker("service", "rm", "web")
        check("no container is left", _lib.eventually(20, lambda: not daemon.docker("ps", "-aq")), daemon.docker("ps", "-a"))
        daemon.stop()
    except Exception as e:
        check(f"{type(e).__name__}: {e}", False)
    if check.failed:
        print("# the end of the daemon's log:\n" + daemon.log.read_text()[-2000:])
    print(f"\n{check.passed} passed, {check.failed} failed")
    return check.failed > 0


if __name__ == "__main__":
    sys.exit(main())
