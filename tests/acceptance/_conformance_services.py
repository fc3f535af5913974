"""Services: addresses, ports, affinity, endpoints, and what the API server passes on."""

import http.client
import socket
import ssl
import time

from _conformance import PYTHON, has, same, covers
from kubernetes.client.rest import ApiException

SLEEP = "sleep 3600"

# Answers over HTTP and UDP on each of the ports: its name, who asked, what was asked.
SERVER = """
import http.server, os, socket, socketserver, ssl, sys, threading
class Web(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.path.startswith('/clientip'):
            body = self.client_address[0]
        elif self.path.startswith('/hostname'):
            body = os.environ['HOSTNAME']
        elif self.path.startswith('/page'):
            body = '<a href="/rewriteme">test</a>'
        else:
            body = '%s %s %s' % (os.environ['HOSTNAME'], self.command, self.path)
        self.send_response(200)
        self.send_header('X-Method', self.command)
        self.send_header('Content-Type', 'text/html' if body.startswith('<') else 'text/plain')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body.encode())
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = answer
class Packets(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(os.environ['HOSTNAME'].encode(), self.client_address)
class Threads(http.server.ThreadingHTTPServer):
    request_queue_size = 64
for port in map(int, sys.argv[1:]):
    threading.Thread(target=socketserver.UDPServer(('', port), Packets).serve_forever).start()
    web = Threads(('', port), Web)
    if port == 443:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain('/tls/tls.crt', '/tls/tls.key')
        web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever).start()
"""


PACKET = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
try:
    s.sendto(b'hi', (sys.argv[1], int(sys.argv[2])))
    print(s.recv(100).decode())
except OSError:
    pass
"""
WAIT = ["python3", "-c", "import time; time.sleep(3600)"]


def server(t, name, labels, ports=(80,), **more):
    named = [{"containerPort": p, "name": f"p{p}", **(more.get("host") or {})} for p in ports]
    probe = {"tcpSocket": {"port": ports[0]}, "periodSeconds": 1}
    spec = {k: v for k, v in more.items() if k != "host"}
    tls = {"volumeMounts": [{"name": "tls", "mountPath": "/tls"}]} if 443 in ports else {}
    if tls:
        t.tls_secret("tls")
        spec["volumes"] = [{"name": "tls", "secret": {"secretName": "tls"}}]
    return t.pod(t.container(["python3", "-c", SERVER, *map(str, ports)], PYTHON, ports=named, readinessProbe=probe, **tls), name=name, labels=labels, **spec)


def ask(t, pod, address, port, path="/hostname", udp=False):
    """What a pod gets from an address; the empty string when nothing answers."""
    if udp:
        return t.exec(pod, "python3", "-c", PACKET, address, str(port), container="py", status=None)[1].strip()
    return t.exec(pod, f"wget -T2 -qO- http://{address}:{port}{path} 2>/dev/null || true", status=None)[1].strip()


def client_pod(t, name="client", **spec):
    t.pod(t.container(SLEEP), t.container(WAIT, PYTHON, name="py"), name=name, **spec)
    t.ready(name)
    return name


def service(t, name, ports=None, labels=None, **spec):
    ports = ports or [{"port": 80, "targetPort": 80}]
    selector = {"selector": labels} if labels else {}
    return t.create("services", {"metadata": {"name": name, "labels": spec.pop("own", {})}, "spec": {"ports": ports, **selector, **spec}})


def reaches(t, client, address, port, wanted, udp=False, seconds=15):
    """Every one of `wanted` answers."""
    seen = set()

    def all_seen():
        seen.add(ask(t, client, address, port, udp=udp))
        return wanted <= seen
    t.until(seconds, all_seen, lambda: f"{address}:{port}: wanted {wanted}, seen {seen}")
    assert seen <= wanted | {""}, seen


def silent(t, client, address, port, udp=False, seconds=10):
    t.until(seconds, lambda: not ask(t, client, address, port, udp=udp), f"{address}:{port} does not answer any more")


def addresses(t, name):
    """Addresses and ports of the endpoints of a service, as its Endpoints tell and as its slices tell."""
    found = t.find("endpoints", name) or {}
    one = {(a["ip"], p["port"]) for s in found.get("subsets") or [] for a in s.get("addresses") or [] for p in s["ports"]}
    slices = t.list("endpointslices", f"kubernetes.io/service-name={name}")
    two = {(a, p["port"]) for s in slices for e in s["endpoints"] or [] if e["conditions"].get("ready") for a in e["addresses"] for p in s["ports"] or []}
    return one, two


def has_endpoints(t, name, wanted, seconds=15):
    t.until(seconds, lambda: addresses(t, name) == (wanted, wanted), lambda: f"endpoints {wanted}, not {addresses(t, name)}")


@covers("Services should serve a basic endpoint from pods")
def basic(t):
    service(t, "s", labels={"app": "s"})
    has_endpoints(t, "s", set())
    client, place = client_pod(t), t.get("services", "s")["spec"]["clusterIP"]
    one = t.ready(server(t, "one", {"app": "s"}))["status"]["podIP"]
    has_endpoints(t, "s", {(one, 80)})
    reaches(t, client, place, 80, {"one"})
    two = t.ready(server(t, "two", {"app": "s"}))["status"]["podIP"]
    has_endpoints(t, "s", {(one, 80), (two, 80)})
    reaches(t, client, place, 80, {"one", "two"})
    t.delete("pods", "one")
    has_endpoints(t, "s", {(two, 80)})
    reaches(t, client, place, 80, {"two"})
    t.delete("pods", "two")
    has_endpoints(t, "s", set())


@covers("Services should serve multiport endpoints from pods")
def multiport(t):
    service(t, "m", [{"name": "portname1", "port": 80, "targetPort": "p100"}, {"name": "portname2", "port": 81, "targetPort": "p101"}], {"app": "m"})
    has_endpoints(t, "m", set())
    client, place = client_pod(t), t.get("services", "m")["spec"]["clusterIP"]
    one = t.ready(server(t, "one", {"app": "m"}, (100,)))["status"]["podIP"]
    has_endpoints(t, "m", {(one, 100)})
    two = t.ready(server(t, "two", {"app": "m"}, (101,)))["status"]["podIP"]
    has_endpoints(t, "m", {(one, 100), (two, 101)})
    reaches(t, client, place, 80, {"one"})
    reaches(t, client, place, 81, {"two"})
    t.delete("pods", "one")
    has_endpoints(t, "m", {(two, 101)})


@covers("Services should serve endpoints on same port and different protocols")
def protocols(t):
    tcp, udp = ({"name": p, "port": 80, "protocol": p.upper(), "targetPort": 80} for p in ("tcp", "udp"))
    service(t, "p", [tcp, udp], {"app": "p"})
    t.ready(server(t, "one", {"app": "p"}))
    client, place = client_pod(t), t.get("services", "p")["spec"]["clusterIP"]
    for ports, on, off in (([tcp, udp], (False, True), ()), ([tcp], (False,), (True,)), ([udp], (True,), (False,))):
        t.modify("services", "p", lambda s, p=ports: s["spec"].update(ports=p))
        for kind in on:
            reaches(t, client, place, 80, {"one"}, kind)
        for kind in off:
            silent(t, client, place, 80, kind)


@covers("Services should be able to create a functioning NodePort service")
def node_port(t):
    made = service(t, "n", labels={"app": "n"}, type="NodePort")
    port = made["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    for name in ("one", "two"):
        t.ready(server(t, name, {"app": "n"}))
    client = client_pod(t)
    for address, number in ((made["spec"]["clusterIP"], 80), ("192.0.2.1", port)):
        reaches(t, client, address, number, {"one", "two"})
    seen = set()
    t.until(10, lambda: seen.add(from_machine("192.0.2.1", port)) or seen >= {"one", "two"}, "from the machine itself")


def from_machine(address, port, path="/hostname"):
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def sticky(t, client, address, port, wanted):
    """Whether many requests in a row get to the same pod, or not."""
    def holds():
        seen = {ask(t, client, address, port) for _ in range(8)}
        return (len(seen) == 1) == wanted and "" not in seen
    t.until(15, holds, f"{address}:{port} {'always' if wanted else 'not always'} gets to the same")


@covers("Services should have session affinity work for service with type clusterIP", "Services should have session affinity work for NodePort service",
       "Services should be able to switch session affinity for service with type clusterIP",
       "Services should be able to switch session affinity for NodePort service")
def affinity(t):
    made = service(t, "a", labels={"app": "a"}, type="NodePort", sessionAffinity="ClientIP")
    same(made["spec"]["sessionAffinityConfig"], {"clientIP": {"timeoutSeconds": 10800}})
    for name in ("one", "two", "three"):
        server(t, name, {"app": "a"})
    for name in ("one", "two", "three"):
        t.ready(name)
    client = client_pod(t)
    places = ((made["spec"]["clusterIP"], 80), ("192.0.2.1", made["spec"]["ports"][0]["nodePort"]))
    for mode in ("ClientIP", "None", "ClientIP"):
        t.modify("services", "a", lambda s, m=mode: (s["spec"].update(sessionAffinity=m), s["spec"].pop("sessionAffinityConfig", 0) if m == "None" else 0))
        for address, port in places:
            sticky(t, client, address, port, mode == "ClientIP")


@covers("Services should be able to change the type from ExternalName to ClusterIP", "Services should be able to change the type from ExternalName to NodePort",
       "Services should be able to change the type from ClusterIP to ExternalName", "Services should be able to change the type from NodePort to ExternalName")
def types(t):
    t.ready(server(t, "one", {"app": "t"}))
    client = client_pod(t)
    port = [{"port": 80, "name": "http", "protocol": "TCP", "targetPort": 80}]
    for kind in ("ClusterIP", "NodePort"):
        name = kind.lower()
        t.create("services", {"metadata": {"name": name}, "spec": {"type": "ExternalName", "externalName": "example.com"}})
        found = t.modify("services", name, lambda s, k=kind: s["spec"].update(type=k, externalName="", ports=port, selector={"app": "t"}))
        reaches(t, client, found["spec"]["clusterIP"], 80, {"one"})
        reaches(t, client, name, 80, {"one"})
        if kind == "NodePort":
            reaches(t, client, "192.0.2.1", found["spec"]["ports"][0]["nodePort"], {"one"})

        def back(s):
            s["spec"].update(type="ExternalName", externalName=f"{name}.example.com", clusterIP="")
            s["spec"].pop("clusterIPs", None)
            for p in s["spec"]["ports"]:
                p.pop("nodePort", None)
        old = found["spec"]["clusterIP"]
        found = t.modify("services", name, back)
        assert not found["spec"].get("clusterIP"), found
        t.until(10, lambda n=name: f"{n}.example.com" in t.exec(client, f"nslookup -type=cname {n}.{t.ns}.svc.cluster.local. 2>&1", status=None)[1], "the name")
        silent(t, client, old, 80)


@covers("Services should complete a service status lifecycle", "Services should find a service from listing all namespaces",
       "Services should delete a collection of services")
def objects(t):
    seen = t.watching("services", "test-service-static=true")
    service(t, "s", own={"test-service-static": "true"}, type="LoadBalancer", loadBalancerClass="example.com/ours")
    assert any(s["metadata"]["name"] == "kubernetes" for s in t.list("services", everywhere=True))
    status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    patched = t.patch("services", "s", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status}, "status", "merge-patch")
    same(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1")
    same(t.get("services", "s", "status")["metadata"]["annotations"]["patchedstatus"], "true")
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test", "lastTransitionTime": "2025-01-01T00:00:00Z"}
    updated = t.modify("services", "s", lambda s: s["status"].update(conditions=[condition]), "status")
    same(updated["status"]["conditions"][0]["type"], "StatusUpdate")
    t.patch("services", "s", {"metadata": {"labels": {"test-service": "patched"}}})
    t.delete("services", "s")
    t.until(10, lambda: seen[-1:] and seen[-1][0] == "DELETED", "the watch tells")
    for name in ("a", "b", "c"):
        service(t, name, own={"many": "yes"} if name != "c" else {})
    t.delete_all("services", "many=yes")
    same([s["metadata"]["name"] for s in t.list("services")], ["c"])


@covers("Service endpoints latency should not be very high")
def latency(t):
    address = t.ready(server(t, "one", {"app": "l"}))["status"]["podIP"]
    took = []
    for i in range(50):
        began = time.monotonic()
        service(t, f"l{i}", labels={"app": "l"})
        has_endpoints(t, f"l{i}", {(address, 80)})
        took.append(time.monotonic() - began)
    took.sort()
    assert took[25] < 1 and took[-1] < 5, took


@covers("API Server should provide secure master service", "API Server should have Endpoints and EndpointSlices pointing to API Server")
def api_server(t):
    found = t.get("services", "kubernetes", ns="default")
    same([(p["name"], p["port"]) for p in found["spec"]["ports"]], [("https", 443)])
    endpoints = t.get("endpoints", "kubernetes", ns="default")
    ips = sorted(a["ip"] for s in endpoints["subsets"] for a in s["addresses"])
    same(endpoints["metadata"]["labels"].get("endpointslice.kubernetes.io/skip-mirror"), "true")
    slices = t.list("endpointslices", "kubernetes.io/service-name=kubernetes", ns="default")
    same(sorted(a for s in slices for e in s["endpoints"] for a in e["addresses"]), ips)
    name = t.pod(t.container(WAIT, PYTHON))
    t.ready(name)
    script = ("import ssl,urllib.request as u;c=ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt');"
              "print(u.urlopen('https://kubernetes.default.svc/healthz',context=c).read())")
    has(t.exec(name, "python3", "-c", script), "ok")


@covers("EndpointsController should create Endpoints for Pods matching a Service", "EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service")
def endpoints(t):
    one = t.ready(server(t, "one", {"app": "e"}, (3000, 3001)))["status"]["podIP"]
    service(t, "named", [{"name": "n", "port": 80, "targetPort": "p3001"}], {"app": "e"})
    service(t, "numbered", [{"name": "n", "port": 80, "targetPort": 3000}], {"app": "e"})
    has_endpoints(t, "named", {(one, 3001)})
    has_endpoints(t, "numbered", {(one, 3000)})
    found = t.list("endpointslices", "kubernetes.io/service-name=named")[0]
    same(found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io")
    endpoint = found["endpoints"][0]
    same((endpoint["targetRef"]["name"], endpoint["conditions"], found["addressType"]), (
        "one", {"ready": True, "serving": True, "terminating": False}, "IPv4"))
    t.delete("pods", "one")
    has_endpoints(t, "named", set())


@covers("EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods",
       "EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods")
def no_endpoints(t):
    service(t, "none", labels={"does-not-match-anything": "yes"})
    t.until(10, lambda: t.find("endpoints", "none") and len(t.list("endpointslices", "kubernetes.io/service-name=none")) == 1, "both are there")
    t.delete("services", "none")
    t.until(10, lambda: not t.find("endpoints", "none") and not t.list("endpointslices", "kubernetes.io/service-name=none"), "both are gone")


@covers("EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices",
       "EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices")
def own_slices(t):
    service(t, "o", [{"name": "p1", "port": 80}, {"name": "p2", "port": 81}])
    pods = {n: t.ready(server(t, n, {"x": "y"}, (8090, 9090)))["status"]["podIP"] for n in ("one", "two")}

    def make(name, address, ports):
        t.create("endpointslices", {"metadata": {"name": name, "labels": {"kubernetes.io/service-name": "o"}}, "addressType": "IPv4",
                                    "endpoints": [{"addresses": [address], "conditions": {"ready": True}}], "ports": ports})
    make("a", pods["one"], [{"name": "p1", "port": 8090, "protocol": "TCP"}])
    make("b", pods["one"], [{"name": "p2", "port": 9090, "protocol": "TCP"}])
    client, place = client_pod(t), t.get("services", "o")["spec"]["clusterIP"]
    for port in (80, 81):
        reaches(t, client, place, port, {"one"})
    make("c", pods["two"], [{"name": "p1", "port": 9090, "protocol": "TCP"}])
    reaches(t, client, place, 80, {"one", "two"})


@covers("EndpointSlice should support creating EndpointSlice API operations")
def slice_objects(t):
    make = lambda n: {"metadata": {"name": n, "labels": {"special": t.ns}}, "addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}]}  # noqa: E731
    seen = t.watching("endpointslices", f"special={t.ns}")
    for name in "abc":
        t.create("endpointslices", make(name))
    same(len(t.list("endpointslices", f"special={t.ns}", everywhere=True)), 3)
    t.patch("endpointslices", "a", {"metadata": {"annotations": {"patched": "true"}}})
    t.modify("endpointslices", "a", lambda o: (o["metadata"]["annotations"].update(updated="true"), o["endpoints"].append({"addresses": ["1.2.3.5"]})))
    t.delete("endpointslices", "a")
    t.delete_all("endpointslices", f"special={t.ns}")
    t.until(5, lambda: [e[0] for e in seen].count("DELETED") == 3, "the watch tells")


@covers("EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete")
def mirrors(t):
    service(t, "mirror", [{"name": "example", "port": 80}])
    make = lambda ip: {"metadata": {"name": "mirror"}, "subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": "example", "port": 80}]}]}  # noqa: E731
    t.create("endpoints", make("10.1.2.3"))
    slices = lambda: t.list("endpointslices", "kubernetes.io/service-name=mirror")  # noqa: E731
    found = lambda: [a for s in slices() for e in s["endpoints"] for a in e["addresses"]]  # noqa: E731
    t.until(10, lambda: found() == ["10.1.2.3"], "it is mirrored")
    same(slices()[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io")
    t.replace("endpoints", make("10.2.3.4"))
    t.until(10, lambda: found() == ["10.2.3.4"], "the change is")
    t.delete("endpoints", "mirror")
    t.until(10, lambda: not slices(), "its end is")


@covers("Endpoints should test the lifecycle of an Endpoint")
def endpoint_objects(t):
    seen = t.watching("endpoints", "test-endpoint-static=true")
    t.create("endpoints", {"metadata": {"name": "e", "labels": {"test-endpoint-static": "true"}}, "subsets": [
        {"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]})
    same(len(t.list("endpoints", "test-endpoint-static=true", everywhere=True)), 1)
    t.modify("endpoints", "e", lambda o: o["metadata"]["labels"].update(updated="true"))
    t.patch("endpoints", "e", {"subsets": [{"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080}]}]})
    same(t.get("endpoints", "e")["subsets"][0]["ports"][0], {"name": "http-test", "port": 8080, "protocol": "TCP"})
    t.delete_all("endpoints", "test-endpoint-static=true")
    t.until(10, lambda: [e[0] for e in seen] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"], lambda: [e[0] for e in seen])


@covers("HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol")
def host_ports(t):
    for name, host in (("one", {"hostIP": "127.0.0.1", "hostPort": 54323}), ("two", {"hostIP": "192.0.2.1", "hostPort": 54323}),
                       ("three", {"hostIP": "192.0.2.1", "hostPort": 54323, "protocol": "UDP"})):
        server(t, name, {}, (8080,), host=host)
    for name in ("one", "two", "three"):
        t.ready(name)
    t.until(10, lambda: from_machine("192.0.2.1", 54323) == "two", "the port of the machine's address leads to two")
    t.until(10, lambda: from_machine("127.0.0.1", 54323) == "one", "the port of the loopback leads to one")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(b"hi", ("192.0.2.1", 54323))
        same(s.recv(100), b"three")
    name = server(t, "four", {}, (8080,), host={"hostIP": "192.0.2.1", "hostPort": 54323})
    t.until(10, lambda: any(r == "FailedScheduling" for r, _ in t.events(name)), "the same again has no place")


@covers(*(f"Networking Granular Checks: Pods should function for {what} communication: {how}" for what in ("intra-pod", "node-pod") for how in ("http", "udp")))
def pods_to_pods(t):
    names = ("one", "two")
    ips = {n: t.ready(server(t, n, {}, (8080,)))["status"]["podIP"] for n in names}
    client, node = client_pod(t), client_pod(t, "node", hostNetwork=True)
    for source in (client, node):
        for name, ip in ips.items():
            for udp in (False, True):
                t.until(10, lambda s=source, i=ip, n=name, u=udp: ask(t, s, i, 8080, udp=u) == n, f"{source} asks {name}, udp {udp}")
    same(ask(t, client, ips["one"], 8080, "/clientip"), t.get("pods", client)["status"]["podIP"])


def through(t, path, method="GET"):
    """What the API server's proxy answers: status, headers, body."""
    config = t.kube.config
    context = ssl.create_default_context(cafile=config.ssl_ca_cert)
    context.check_hostname = False
    context.load_cert_chain(config.cert_file, config.key_file)
    host, port = config.host.removeprefix("https://").split(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


@covers("Proxy version v1 should proxy through a service and a pod")
def proxies(t):
    service(t, "s", [{"name": "portname1", "port": 80, "targetPort": "p160"}, {"name": "portname2", "port": 81, "targetPort": 162},
                     {"name": "tlsportname1", "port": 443, "targetPort": 443}], {"app": "x"})
    t.ready(server(t, "one", {"app": "x"}, (160, 162, 443)))
    base = f"/api/v1/namespaces/{t.ns}"
    for where in ("services/s:portname1", "services/s:80", "services/s:portname2", "services/http:s:portname1", "pods/one:160", "pods/http:one:162",
                  "pods/https:one:443", "services/https:s:tlsportname1", "services/https:s:443"):
        t.until(10, lambda w=where: through(t, f"{base}/{w}/proxy/hostname")[2] == "one", where)
    for where in ("pods/one:160", "pods/https:one:443", "services/s:80"):
        same(through(t, f"{base}/{where}/proxy/page")[2], f'<a href="{base}/{where}/proxy/rewriteme">test</a>')
    status, _, body = through(t, f"{base}/services/none:80/proxy/")
    same(status, 404, body)


@covers(*(f"Proxy version v1 A set of valid responses are returned for both pod and service {p}" for p in ("Proxy", "ProxyWithPath")))
def proxies_of_methods(t):
    service(t, "s", [{"name": "p", "port": 80, "targetPort": 80}], {"app": "x"})
    t.ready(server(t, "one", {"app": "x"}))
    base = f"/api/v1/namespaces/{t.ns}"
    for where in ("pods/one", "services/s"):
        # Without a path, GET and HEAD are sent on to the path with a slash.
        status, headers, _ = through(t, f"{base}/{where}/proxy?method=GET")
        same((status, headers["Location"].split("?")[0].endswith("/proxy/")), (301, True))
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"):
            for path in ("proxy/", "proxy/some/path/with/") + (() if method in ("GET", "HEAD") else ("proxy",)):
                def answered(m=method, p=path, w=where):
                    status, headers, body = through(t, f"{base}/{w}/{p}?method={m}", m)
                    return status == 200 and headers["X-Method"] == m and (m == "HEAD" or body.startswith(f"one {m} "))
                t.until(10, answered, f"{method} {where}/{path}: {through(t, f'{base}/{where}/{path}', method)}")


@covers("ServiceCIDR and IPAddress API should support IPAddress API operations", "ServiceCIDR and IPAddress API should support ServiceCIDR API operations")
def ranges(t):
    found = t.get("servicecidrs", "kubernetes")
    assert found["spec"]["cidrs"], found
    number = abs(hash(t.ns)) % 200 + 20
    make = {"metadata": {"name": f"{t.ns}-range", "labels": {"test": t.ns}}, "spec": {"cidrs": [f"10.{number}.0.0/24"]}}
    t.create("servicecidrs", make)
    t.patch("servicecidrs", f"{t.ns}-range", {"metadata": {"annotations": {"patched": "true"}}})
    t.refused(422, t.patch, "servicecidrs", f"{t.ns}-range", {"spec": {"cidrs": ["10.1.2.0/24"]}})
    t.delete_all("servicecidrs", f"test={t.ns}")
    address = {"metadata": {"name": f"192.168.{number}.7", "labels": {"test": t.ns, "ipaddress.kubernetes.io/managed-by": "us"}},
               "spec": {"parentRef": {"group": "", "resource": "services", "name": "bar", "namespace": t.ns}}}
    name = t.create("ipaddresses", address)["metadata"]["name"]
    t.patch("ipaddresses", name, {"metadata": {"annotations": {"patched": "true"}}})
    same(len(t.list("ipaddresses", f"test={t.ns}")), 1)
    t.delete("ipaddresses", name)


def policies_close_first(t):
    """Not on the list: a policy is in force before the first process of a pod runs."""
    t.create("networkpolicies", {"metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"closed": "yes"}}, "policyTypes": ["Egress", "Ingress"]}})
    address = t.ready(server(t, "open", {}))["status"]["podIP"]
    time.sleep(0.5)
    script = f"for i in 1 2 3 4 5 6; do wget -T1 -qO- http://{address}/hostname && exit 1; done; exit 0"
    pods = [t.pod(t.container(script), labels={"closed": "yes"}) for _ in range(4)]
    for name in pods:
        t.phase(name, "Succeeded")


covers()(policies_close_first)
_ = ApiException
