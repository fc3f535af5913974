"""Probes: what is restarted, what is not, when containers are ready."""

import time

from _conformance import PYTHON, is_ready, same, covers, state, status_of

HTTP = """
import http.server, ssl, sys, time
began = time.monotonic()
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = self.path == '/healthz' and time.monotonic() - began > float(sys.argv[1])
        where = {'/redirect': '/healthz', '/away': 'http://0.0.0.0/x'}.get(self.path)
        self.send_response(302 if where else 500 if bad else 200)
        if where:
            self.send_header('Location', where)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
server = http.server.ThreadingHTTPServer(('', 8080), Server)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain('/tls/tls.crt', '/tls/tls.key')
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""

# A server of gRPC's health service: a response of fixed bytes to the one request that comes on a connection.
GRPC = """
import socket, sys
def frame(kind, flags, stream, data):
    return len(data).to_bytes(3, 'big') + bytes([kind, flags]) + stream.to_bytes(4, 'big') + data
def literal(name, value):
    return b'\\0' + bytes([len(name)]) + name + bytes([len(value)]) + value
def whole(file, size):
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
listener = socket.create_server(('', 5000))
while True:
    connection, _ = listener.accept()
    file = connection.makefile('rb')
    try:
        whole(file, 24)
        connection.sendall(frame(4, 0, 0, b''))
        while True:
            head = whole(file, 9)
            size, kind, flags, stream = int.from_bytes(head[:3], 'big'), head[3], head[4], int.from_bytes(head[5:], 'big')
            whole(file, size)
            if kind == 4 and not flags & 1:
                connection.sendall(frame(4, 1, 0, b''))
            if kind in (0, 1) and flags & 1:
                connection.sendall(frame(1, 4, stream, b'\\x88' + literal(b'content-type', b'application/grpc'))
                    + frame(0, 0, stream, bytes([0, 0, 0, 0, 2, 8, int(sys.argv[1])])) + frame(1, 5, stream, literal(b'grpc-status', b'0')))
    except (EOFError, OSError):
        pass
    connection.close()
"""


def probe(seconds=1, failures=1, **how):
    return {"periodSeconds": seconds, "failureThreshold": failures, "timeoutSeconds": 3, **how}


def http(t, bad_after, path="/healthz", failures=1):
    return t.container(["python3", "-c", HTTP, str(bad_after)], PYTHON,
                       livenessProbe=probe(failures=failures, httpGet={"path": path, "port": 8080}, initialDelaySeconds=2))


def restarts(t, *containers, count=1, seconds=30, **spec):
    name = t.pod(*containers, restartPolicy="Always", **spec)
    return t.wait_pod(name, lambda p: status_of(p).get("restartCount", 0) >= count, f"{count} restarts", seconds)


def stays(t, *containers, seconds=6, ready=True, **spec):
    name = t.pod(*containers, restartPolicy="Always", **spec)
    pod = t.wait_pod(name, lambda p: state(p, "running") and (is_ready(p) or not ready), "it runs")
    time.sleep(seconds)
    pod = t.get("pods", name)
    same(status_of(pod)["restartCount"], 0)
    same(is_ready(pod), ready)


@covers("Probing container should be restarted with a /healthz http liveness probe")
def http_restarts(t):
    restarts(t, http(t, 3))
    # A redirection on the same host is followed, one to another host is an answer.
    restarts(t, http(t, 3, "/redirect"))


@covers("Probing container should *not* be restarted with a /healthz http liveness probe")
def http_stays(t):
    stays(t, http(t, 1000, failures=4))


def http_away(t):
    """Not on the list: a redirection to another host is an answer."""
    stays(t, http(t, 3, "/away", failures=4))


@covers("Probing container should be restarted with a exec \"cat /tmp/health\" liveness probe")
def exec_restarts(t):
    restarts(t, t.container("touch /tmp/health; sleep 3; rm /tmp/health; sleep 600",
                            livenessProbe=probe(exec={"command": ["cat", "/tmp/health"]}, initialDelaySeconds=1)))


@covers("Probing container should *not* be restarted with a exec \"cat /tmp/health\" liveness probe")
def exec_stays(t):
    stays(t, t.container("touch /tmp/health; sleep 600", livenessProbe=probe(exec={"command": ["cat", "/tmp/health"]}, initialDelaySeconds=1)))


@covers("Probing container should *not* be restarted with a tcp:8080 liveness probe")
def tcp_stays(t):
    stays(t, t.container(["python3", "-c", HTTP, "1000"], PYTHON, livenessProbe=probe(failures=4, tcpSocket={"port": 8080}, initialDelaySeconds=2)))


@covers("Probing container should be restarted with a GRPC liveness probe")
def grpc_restarts(t):
    # 2 is NOT_SERVING.
    restarts(t, t.container(["python3", "-c", GRPC, "2"], PYTHON, livenessProbe=probe(grpc={"port": 5000, "service": ""}, initialDelaySeconds=2)))
    restarts(t, t.container(["sleep", "600"], livenessProbe=probe(grpc={"port": 2333}, initialDelaySeconds=1)))


@covers("Probing container should *not* be restarted with a GRPC liveness probe")
def grpc_stays(t):
    stays(t, t.container(["python3", "-c", GRPC, "1"], PYTHON, livenessProbe=probe(failures=4, grpc={"port": 5000}, initialDelaySeconds=2)))


@covers("Probing container should have monotonically increasing restart count")
def counts(t):
    name = t.pod(http(t, 0), restartPolicy="Always")
    last = 0
    end = time.monotonic() + 45
    while last < 3 and time.monotonic() < end:
        count = status_of(t.get("pods", name)).get("restartCount", 0)
        assert count >= last, f"{count} after {last}"
        last = count
        time.sleep(0.2)
    assert last >= 2, last


@covers("Probing container with readiness probe should not be ready before initial delay and never restart")
def delay(t):
    name = t.pod(t.container(["sleep", "600"], readinessProbe=probe(exec={"command": ["true"]}, initialDelaySeconds=5)), restartPolicy="Always")
    pod = t.ready(name)
    from datetime import datetime
    at = lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))  # noqa: E731
    ready = next(c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "Ready")
    waited = (at(ready) - at(state(pod, "running")["startedAt"])).total_seconds()
    assert waited >= 4, waited
    same(status_of(pod)["restartCount"], 0)


@covers("Probing container with readiness probe that fails should never be ready and never restart")
def never_ready(t):
    stays(t, t.container(["sleep", "600"], readinessProbe=probe(exec={"command": ["false"]})), ready=False)


def https(t):
    """Not on the list: a probe asks over TLS without a look at the certificate."""
    t.tls_secret("tls")
    stays(t, t.container(["python3", "-c", HTTP, "1000", "tls"], PYTHON, volumeMounts=[{"name": "tls", "mountPath": "/tls"}],
                         livenessProbe=probe(failures=4, httpGet={"path": "/healthz", "port": 8080, "scheme": "HTTPS"}, initialDelaySeconds=2),
                         readinessProbe=probe(httpGet={"path": "/healthz", "port": 8080, "scheme": "HTTPS"})),
          volumes=[{"name": "tls", "secret": {"secretName": "tls"}}])


def grace(t):
    """Not on the list: the grace period of a probe goes before the pod's; the startup probe goes before the others."""
    deaf = "trap '' TERM; while true; do sleep 1; done"
    own = probe(exec={"command": ["false"]}, initialDelaySeconds=1, terminationGracePeriodSeconds=1)
    for kind in ("livenessProbe", "startupProbe"):
        restarts(t, t.container(deaf, **{kind: own}), terminationGracePeriodSeconds=500, seconds=15)
    name = t.pod(t.container("sleep 4; touch /tmp/started; sleep 600", startupProbe={
        "exec": {"command": ["cat", "/tmp/started"]}, "periodSeconds": 1, "failureThreshold": 60},
        livenessProbe=probe(exec={"command": ["cat", "/tmp/started"]})), restartPolicy="Always")
    pod = t.ready(name)
    same((status_of(pod)["restartCount"], status_of(pod)["started"]), (0, True))


for own in (http_away, https, grace):
    covers()(own)
