"""Services and what is behind them, as objects: endpoints, slices, mirroring, proxies."""

from _kube import Case, change, create, delete, get, gone, kubectl, patch, pod, read, refused, request, shows, until

SERVER = "mkdir -p /tmp/w/sub; echo root > /tmp/w/index.html; echo below > /tmp/w/sub/index.html; exec httpd -f -p 8080 -h /tmp/w"


class Services(Case):
    def service(self, name, **spec):
        return create(f"{self.v1}/services", {"metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetPort": 8080}], **spec}})

    def slices(self, name):
        return read(f"{self.group('discovery.k8s.io/v1')}/endpointslices", labelSelector=f"kubernetes.io/service-name={name}")["items"]

    @shows("EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods",
           "EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods")
    def test_empty(self):
        self.service("s", selector={"does-not-match-anything": "x"})
        slices = until(lambda: self.slices("s"))
        self.assertEqual(slices[0].get("endpoints") or [], [])
        self.assertEqual(slices[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io")
        until(lambda: get(f"{self.v1}/endpoints/s").status == 200)
        delete(f"{self.v1}/services/s")
        until(lambda: not self.slices("s") and gone(f"{self.v1}/endpoints/s"))

    @shows("EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service",
           "EndpointsController should create Endpoints for Pods matching a Service")
    def test_pods(self):
        self.service("first", selector={"foo": "bar"}, ports=[{"port": 80, "targetPort": 3000, "name": "example"}])
        self.service("second", selector={"foo": "bar"}, ports=[{"port": 80, "targetPort": "named", "name": "example-named"}])
        for name, number in (("a", 3001), ("b", 3002)):
            create(f"{self.v1}/pods", pod(name, labels={"foo": "bar"}, ports=[{"containerPort": number, "name": "named"}]))
        addresses = {self.running(n)["status"]["podIP"] for n in "ab"}

        def seen(name):
            return {(a, p["port"]) for s in self.slices(name) for e in s.get("endpoints") or [] for a in e["addresses"] for p in s["ports"] if e["conditions"]["ready"]}
        until(lambda: seen("first") == {(a, 3000) for a in addresses})
        until(lambda: sorted(p for _, p in seen("second")) == [3001, 3002])
        self.assertEqual(len(self.slices("second")), 2)
        until(lambda: {a["ip"] for a in read(f"{self.v1}/endpoints/first")["subsets"][0]["addresses"]} == addresses)
        self.assertEqual(len(read(f"{self.v1}/endpoints/second")["subsets"]), 2)
        one = self.slices("first")[0]["endpoints"][0]
        self.assertEqual(one["targetRef"]["kind"], "Pod")
        self.assertTrue(one["nodeName"])
        delete(f"{self.v1}/pods/a")
        until(lambda: len(seen("first")) == 1)

    @shows("EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete")
    def test_mirror(self):
        create(f"{self.v1}/services", {"metadata": {"name": "m"}, "spec": {"ports": [{"name": "example", "port": 80}]}})
        thing = {"metadata": {"name": "m"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "example", "port": 80}]}]}
        create(f"{self.v1}/endpoints", thing)
        slices = until(lambda: self.slices("m"))
        self.assertEqual(slices[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io")
        self.assertEqual(slices[0]["endpoints"][0]["addresses"], ["10.1.2.3"])
        change(f"{self.v1}/endpoints/m", lambda e: e["subsets"][0].update(addresses=[{"ip": "10.2.3.4"}]))
        until(lambda: [e["addresses"] for s in self.slices("m") for e in s["endpoints"]] == [["10.2.3.4"]])
        delete(f"{self.v1}/endpoints/m")
        until(lambda: not self.slices("m"))

    @shows("API Server should have Endpoints and EndpointSlices pointing to API Server", "API Server should provide secure master service")
    def test_api_server(self):
        service = read("/api/v1/namespaces/default/services/kubernetes")
        self.assertEqual([(p["name"], p["port"]) for p in service["spec"]["ports"]], [("https", 443)])
        endpoints = read("/api/v1/namespaces/default/endpoints/kubernetes")
        self.assertEqual(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1")
        slices = read("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", labelSelector="kubernetes.io/service-name=kubernetes")["items"]
        self.assertEqual(slices[0]["endpoints"][0]["addresses"], ["192.0.2.1"])
        self.assertEqual(slices[0]["ports"][0]["port"], endpoints["subsets"][0]["ports"][0]["port"])

    @shows("Services should find a service from listing all namespaces")
    def test_find(self):
        self.service("s")
        found = read("/api/v1/services")["items"]
        self.assertIn(("kubernetes", "default"), [(s["metadata"]["name"], s["metadata"]["namespace"]) for s in found])
        self.assertIn(("s", self.ns), [(s["metadata"]["name"], s["metadata"]["namespace"]) for s in found])

    @shows("Services should be able to change the type from ExternalName to ClusterIP", "Services should be able to change the type from ExternalName to NodePort",
           "Services should be able to change the type from ClusterIP to ExternalName", "Services should be able to change the type from NodePort to ExternalName")
    def test_types(self):
        path = f"{self.v1}/services"
        create(path, {"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "foo.example.com"}})
        seen = patch(f"{path}/s", {"spec": {"type": "ClusterIP", "externalName": None, "ports": [{"port": 80, "name": "http", "protocol": "TCP"}]}})
        self.assertRegex(seen["spec"]["clusterIP"], r"^10\.")
        change(f"{path}/s", lambda s: s["spec"].update(type="NodePort"))
        port = read(f"{path}/s")["spec"]["ports"][0]["nodePort"]
        self.assertTrue(30000 <= port < 32768)
        refused(request("POST", path, {"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}}), 422, "Invalid", "provided port is already allocated")
        change(f"{path}/s", lambda s: (s["spec"].update(type="ExternalName", externalName="foo.example.com"), s["spec"].pop("clusterIP"), s["spec"].pop("clusterIPs", None)))
        seen = read(f"{path}/s")
        self.assertNotIn("clusterIP", {k: v for k, v in seen["spec"].items() if v})
        self.assertNotIn("nodePort", seen["spec"]["ports"][0])
        create(path, {"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})

    @shows("Proxy version v1 A set of valid responses are returned for both pod and service Proxy", "Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath",
           "Proxy version v1 should proxy through a service and a pod")
    def test_proxy(self):
        script = "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; echo $REQUEST_METHOD $QUERY_STRING\\n' > /w/cgi-bin/m; chmod +x /w/cgi-bin/m; exec httpd -f -p 8080 -h /w"
        create(f"{self.v1}/pods", pod("p", script, labels={"a": "b"}, readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1}))
        self.service("s", selector={"a": "b"}, ports=[{"name": "web", "port": 80, "targetPort": 8080}])
        self.running("p")
        for base in (f"{self.v1}/pods/p:8080/proxy", f"{self.v1}/services/s:web/proxy", f"{self.v1}/services/s:80/proxy", f"{self.v1}/services/http:s:web/proxy", f"{self.v1}/pods/http:p:8080/proxy"):
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
                answer = until(lambda: (a := request(method, f"{base}/cgi-bin/m?method={method}")).status != 503 and a)
                if method in ("GET", "POST"):
                    self.assertEqual((answer.status, answer.body.decode().strip()), (200, f"{method} method={method}"), base)
                else:
                    self.assertNotIn(answer.status, (400, 403, 404, 405), (base, method))
        self.assertEqual(get(f"{self.v1}/services/nope/proxy/").status, 404)

    @shows("EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices",
           "EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices")
    def test_own_slices(self):
        create(f"{self.v1}/pods", pod("p", SERVER, ports=[{"containerPort": 8080}]))
        address = self.running("p")["status"]["podIP"]
        service = self.service("s", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81}])
        for name, port in (("a", 80), ("b", 81)):
            create(f"{self.group('discovery.k8s.io/v1')}/endpointslices", {"metadata": {"name": f"s-{name}", "labels": {"kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": "tests"}},
                   "addressType": "IPv4", "endpoints": [{"addresses": [address], "conditions": {"ready": True}}], "ports": [{"name": name, "port": 8080, "protocol": "TCP"}]})
        create(f"{self.v1}/pods", pod("client"))
        self.running("client")
        for port in (80, 81):
            until(lambda: kubectl("exec", "-n", self.ns, "client", "--", "wget", "-T", "2", "-qO-", f"http://{service['spec']['clusterIP']}:{port}/").strip() == "root")


__all__ = ["Services"]
