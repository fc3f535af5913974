"""Calls of the AWS JSON protocol over one kept connection, signed (Signature Version 4) with the standard library alone.

A signature costs the client more than the call costs a fast server: `Prepared` signs a request once and sends it again
and again, which the five minutes for which a signature holds allow.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import socket

JSON, FORM = "application/x-amz-json-1.1", "application/x-www-form-urlencoded"
TARGETS = {"ecs": "AmazonEC2ContainerServiceV20141113"}
REGION = "us-east-1"


class Refused(Exception):
    """An answer that is no success."""


class Client:
    """One service of an endpoint."""

    def __init__(self, address, key, secret, service="ecs"):
        self.host, self.port = address
        self.key, self.secret, self.service = key, secret, service
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=120)

    def headers(self, operation, body):
        """Headers of a call, its signature among them."""
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        headers = {"content-type": FORM, "host": f"{self.host}:{self.port}", "x-amz-date": stamp}
        if self.service in TARGETS:
            headers |= {"content-type": JSON, "x-amz-target": f"{TARGETS[self.service]}.{operation}"}
        names = ";".join(sorted(headers))
        canonical = "POST\n/\n\n" + "".join(f"{k}:{headers[k]}\n" for k in sorted(headers)) + f"\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{day}/{REGION}/{self.service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (day, REGION, self.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return headers

    def call(self, operation, **arguments):
        body = json.dumps(arguments).encode()
        self.connection.request("POST", "/", body, self.headers(operation, body))
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise Refused(f"{operation}: {answer.status} {text[:500]!r}")
        return json.loads(text)

    def first(self, action, version, element):
        """Calls an operation without arguments of a service that speaks XML; the text of the first such element."""
        body = f"Action={action}&Version={version}".encode()
        self.connection.request("POST", "/", body, self.headers(action, body))
        answer = self.connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200 or f"<{element}>" not in text:
            raise Refused(f"{action}: {answer.status} {text[:500]}")
        return text.split(f"<{element}>")[1].split("<")[0]

    def prepare(self, operation, **arguments):
        body = json.dumps(arguments).encode()
        headers = {**self.headers(operation, body), "content-length": len(body)}
        head = "POST / HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        return Prepared((self.host, self.port), head.encode() + body)


class Prepared:
    """A request that is sent as it is, on a connection of its own."""

    def __init__(self, address, request):
        self.address, self.request, self.socket, self.file = address, request, None, None

    def send(self):
        """Sends it and reads the answer to its end; its length in bytes."""
        if self.socket is None:
            self.socket = socket.create_connection(self.address, 120)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.file = self.socket.makefile("rb")
        self.socket.sendall(self.request)
        status = self.file.readline()
        if b" 200 " not in status:
            raise Refused(f"{status!r} {self.file.read(500)!r}")
        length, closes = 0, False
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().lower().partition(":")
            length = int(value) if name == "content-length" else length
            closes = closes or (name == "connection" and "close" in value)
        self.file.read(length)
        if closes:
            self.socket.close()
            self.socket = None
        return length
