"""Durable writes: configs of 1 KiB made through the API, each answered when it is on disk.

One process serves all connections and keeps one request on each, so that the load costs little beside the engine.
"""

import base64
import json
import os
import selectors
import socket
import time

from harness.api import VERSION

TITLE = "durable writes (configs of 1 KiB) per second"
ENGINES = ("docker", "tripod")


def run(engine, options):
    engine.start()
    engine.swarm()
    seconds = 3 if options.quick else 8
    result = {}
    storm(engine.socket, 1, 1, "w")
    for clients in (1, 16):
        result[f"clients_{clients}_per_s"] = storm(engine.socket, clients, seconds, f"c{clients}")
    made = len(engine.api().get("/configs"))
    if made < sum(result.values()) * seconds * 0.99:
        raise RuntimeError(f"only {made} configs are there")
    result["configs_kept"] = made
    return result


def storm(path, clients, seconds, tag):
    """Answered creates per second, by `clients` connections that each wait for the answer."""
    data = base64.b64encode(os.urandom(1024)).decode()
    selector = selectors.DefaultSelector()
    sent = answered = 0

    def request():
        nonlocal sent
        sent += 1
        body = json.dumps({"Name": f"{tag}-{sent}", "Data": data, "Labels": {}}).encode()
        return (f"POST /{VERSION}/configs/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body

    for _ in range(clients):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(path)
        client.sendall(request())
        selector.register(client, selectors.EVENT_READ)
    began = time.monotonic()
    end = began + seconds
    while (now := time.monotonic()) < end:
        for key, _ in selector.select(1):
            answer = key.fileobj.recv(65536)
            if not answer.startswith(b"HTTP/1.1 201 "):
                raise RuntimeError(f"unexpected answer: {answer[:400]!r}")
            if not answer.rstrip().endswith((b"}", b"0")):  # whole, or the last chunk
                while not answer.rstrip().endswith((b"}", b"0")):
                    answer += key.fileobj.recv(65536)
            answered += 1
            key.fileobj.sendall(request())
    rate = answered / (now - began)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return rate
