"""Names: what pods find in DNS, what their own names are."""

from _conformance import PYTHON, has, same, covers

SLEEP = "sleep 3600"

# A name server that has one address for every name.
SERVER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 53))
while True:
    q, who = s.recvfrom(512)
    end = q.index(0, 12) + 5
    s.sendto(q[:2] + b'\\x85\\x80' + q[4:6] + b'\\0\\1\\0\\0\\0\\0' + q[12:end] + b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4' + bytes([192, 0, 2, 123]), who)
"""


def lookup(t, pod, name, kind="a", server=None):
    """What nslookup prints of a name, in full; the search path is not used."""
    command = f"nslookup -type={kind} {name} {server or ''} 2>&1"
    return t.exec(pod, command, status=None)[1]


def resolves(t, pod, name, *wanted, kind="a", seconds=15):
    t.until(seconds, lambda: all(w in lookup(t, pod, name, kind) for w in wanted), lambda: f"{name}: {lookup(t, pod, name, kind)} has {wanted}")


@covers("DNS should provide DNS for the cluster", "DNS should provide /etc/hosts entries for the cluster")
def of_the_cluster(t):
    name = t.pod(t.container(SLEEP), hostname="dns-querier-1", subdomain="dns-test-service")
    t.create("services", {"metadata": {"name": "dns-test-service"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}})
    pod = t.ready(name)
    address = t.get("services", "kubernetes", ns="default")["spec"]["clusterIP"]
    resolves(t, name, "kubernetes.default.svc.cluster.local.", address)
    has(t.exec(name, "ping -c1 -W1 kubernetes.default >/dev/null; getent hosts kubernetes.default 2>/dev/null || nslookup kubernetes.default.svc.cluster.local"), address)
    has(t.exec(name, "cat", "/etc/hosts"), f"^{pod['status']['podIP']}\tdns-querier-1.dns-test-service.{t.ns}.svc.cluster.local\tdns-querier-1$")
    same(t.exec(name, "hostname"), "dns-querier-1\n")
    same(t.exec(name, "hostname -f").strip(), f"dns-querier-1.dns-test-service.{t.ns}.svc.cluster.local")


@covers("DNS should provide DNS for services", "DNS should resolve DNS of partial qualified names for services")
def of_services(t):
    ports = [{"port": 80, "name": "http", "protocol": "TCP"}]
    for name, more in (("headless", {"clusterIP": "None"}), ("plain", {})):
        t.create("services", {"metadata": {"name": name}, "spec": {"selector": {"dns": "yes"}, "ports": ports, **more}})
    pod = t.pod(t.container(SLEEP), labels={"dns": "yes"})
    address = t.ready(pod)["status"]["podIP"]
    plain = t.get("services", "plain")["spec"]["clusterIP"]
    for name, wanted in (("headless", address), ("plain", plain)):
        for form in (name, f"{name}.{t.ns}", f"{name}.{t.ns}.svc"):
            # Partial names: by the search path, as the C library has it.
            t.until(15, lambda f=form, w=wanted: w in t.exec(pod, f"ping -c1 -W1 {f} 2>&1 || true", status=None)[1], f"{form} is {wanted}")
        resolves(t, pod, f"{name}.{t.ns}.svc.cluster.local.", wanted)
        resolves(t, pod, f"_http._tcp.{name}.{t.ns}.svc.cluster.local.", f"{name}.{t.ns}.svc.cluster.local", kind="srv")
    reverse = ".".join(reversed(plain.split("."))) + ".in-addr.arpa."
    resolves(t, pod, reverse, f"plain.{t.ns}.svc.cluster.local", kind="ptr")
    dashed = ".".join(reversed(address.split("."))) + ".in-addr.arpa."
    resolves(t, pod, dashed, f".headless.{t.ns}.svc.cluster.local", kind="ptr")


@covers("DNS should provide DNS for pods for Hostname", "DNS should provide DNS for pods for Subdomain")
def of_pods(t):
    t.create("services", {"metadata": {"name": "sub"}, "spec": {"clusterIP": "None", "selector": {"testpod": "dns"}, "ports": [{"port": 1234, "name": "http"}]}})
    name = t.pod(t.container(SLEEP), hostname="querier", subdomain="sub", labels={"testpod": "dns"})
    address = t.ready(name)["status"]["podIP"]
    resolves(t, name, f"querier.sub.{t.ns}.svc.cluster.local.", address)
    resolves(t, name, f"sub.{t.ns}.svc.cluster.local.", address)
    has(t.exec(name, "ping -c1 -W1 querier.sub 2>&1 || true"), address)
    same(t.exec(name, "hostname"), "querier\n")


@covers("DNS should provide DNS for ExternalName services")
def of_other_names(t):
    t.create("services", {"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "foo.example.com"}})
    name = t.pod(t.container(SLEEP))
    t.ready(name)
    full = f"ext.{t.ns}.svc.cluster.local."
    resolves(t, name, full, "foo.example.com", kind="cname")
    t.patch("services", "ext", {"spec": {"externalName": "bar.example.com"}})
    resolves(t, name, full, "bar.example.com", kind="cname")
    t.modify("services", "ext", lambda s: s["spec"].update(type="ClusterIP", externalName="", ports=[{"port": 80, "name": "http"}]))
    address = t.get("services", "ext")["spec"]["clusterIP"]
    resolves(t, name, full, address)


@covers("DNS should support configurable pod DNS nameservers")
def configured(t):
    name = t.pod(t.container(SLEEP), dnsPolicy="None", dnsConfig={"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"],
                                                                  "options": [{"name": "ndots", "value": "2"}]})
    t.ready(name)
    same(t.exec(name, "cat", "/etc/resolv.conf"), "nameserver 1.1.1.1\nsearch resolv.conf.local\noptions ndots:2\n")
    # A name server of its own answers its names.
    server = t.pod(t.container(["python3", "-c", SERVER], PYTHON))
    address = t.ready(server)["status"]["podIP"]
    name = t.pod(t.container(SLEEP), dnsPolicy="None", dnsConfig={"nameservers": [address], "searches": ["resolv.conf.local"]})
    t.ready(name)
    resolves(t, name, "notexistname.", "192.0.2.123")
