"""kubectl, as its own conformance tests use it."""

import http.client
import json
import re
import subprocess
import time

import _lib
from _kube import IMAGE, Case, cluster, kubectl, pod, read, shows, until, workload


class Kubectl(Case):
    def k(self, *arguments, **options):
        return kubectl("-n", self.ns, *arguments, **options)

    def controller(self, name="rc", replicas=1, **more):
        self.k("create", "-f", "-", stdin=json.dumps(workload("ReplicationController", name, replicas, **more)))
        until(lambda: read(f"{self.v1}/replicationcontrollers/{name}")["status"].get("readyReplicas") == replicas)

    @shows("Kubectl client Guestbook application should create and stop a working application")
    def test_lists(self):
        thing = {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "frontend"}, "spec": {"selector": {"app": "frontend"}, "ports": [{"port": 80, "targetPort": 8080}]}},
            workload("Deployment", "frontend", 2, "echo guestbook > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")]}
        said = self.k("create", "-f", "-", stdin=json.dumps(thing))
        self.assertEqual(said.split(), ["service/frontend", "created", "deployment.apps/frontend", "created"])
        self.k("rollout", "status", "deployment/frontend", "--timeout=60s")
        answer = until(lambda: (a := self.k("get", "--raw", f"{self.v1}/services/frontend/proxy/", check=False)).returncode == 0 and a.stdout)
        self.assertEqual(answer.strip(), "guestbook")
        self.k("delete", "--grace-period=0", "--force", "-f", "-", stdin=json.dumps(thing))
        until(lambda: not self.pods())

    @shows("Kubectl client Update Demo should create and stop a replication controller", "Kubectl client Update Demo should scale a replication controller")
    def test_scale(self):
        self.controller(replicas=2)
        template = "{{range.items}}{{.metadata.name}} {{end}}"
        for n in (1, 2):
            self.k("scale", "rc", "rc", f"--replicas={n}", "--timeout=60s")
            until(lambda: len(self.k("get", "pods", "-o", "template", f"--template={template}", "-l", "app=rc").split()) == n)
        self.k("delete", "--grace-period=0", "--force", "rc/rc")
        until(lambda: self.k("get", "pods", "-l", "app=rc", "-o", "name") == "")

    @shows("Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods")
    def test_describe(self):
        self.controller()
        name = self.pods()[0]["metadata"]["name"]
        for said, wanted in ((self.k("describe", "pod", name), ("Name:", "Namespace:", "Node:", "Labels:", "app=rc", "Status:", "Running", "IP:", "Controlled By:", "ReplicationController/rc", "Image:", IMAGE, "State:", "QoS Class:")),
                             (self.k("describe", "rc", "rc"), ("Name:", "rc", "Selector:", "app=rc", "Annotations:", "Replicas:", "1 current", "1 desired", "Pods Status:", "1 Running", "Pod Template:", "Events:", "SuccessfulCreate")),
                             (kubectl("describe", "node", self.pods()[0]["spec"]["nodeName"]), ("Conditions:", "Ready", "Addresses:", "Capacity:", "Version:", "Kubelet Version:", "Non-terminated Pods:", "Allocated resources:", "Lease:")),
                             (kubectl("describe", "namespace", self.ns), ("Name:", "Status:", "Active"))):
            for part in wanted:
                self.assertIn(part, said)

    @shows("Kubectl client Kubectl expose should create services for rc")
    def test_expose(self):
        self.controller()
        self.k("expose", "rc", "rc", "--name=rm2", "--port=1234", "--target-port=6379")
        self.k("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
        for name, port in (("rm2", 1234), ("rm3", 2345)):
            self.assertEqual([(p["port"], p["targetPort"]) for p in read(f"{self.v1}/services/{name}")["spec"]["ports"]], [(port, 6379)])
            until(lambda: read(f"{self.v1}/endpoints/{name}").get("subsets", [{}])[0].get("ports", [{}])[0].get("port") == 6379)

    @shows("Kubectl client Kubectl replace should update a single-container pod's image", "Kubectl client Kubectl run pod should create a pod from an image when restart is Never")
    def test_run_and_replace(self):
        self.k("run", "p", f"--image={IMAGE}", "--image-pull-policy=IfNotPresent", "--restart=Never", "--labels=run=p", "--", "sleep", "3600")
        self.running("p")
        seen = json.loads(self.k("get", "pod", "p", "-o", "json"))
        self.assertEqual(seen["spec"]["restartPolicy"], "Never")
        text = self.k("get", "pod", "p", "-o", "json").replace(f'"image": "{IMAGE}"', '"image": "other:1"', 1)
        self.k("replace", "-f", "-", stdin=text)
        self.assertEqual(read(f"{self.v1}/pods/p")["spec"]["containers"][0]["image"], "other:1")

    @shows("Kubectl logs logs should be able to retrieve and filter logs")
    def test_logs(self):
        self.k("create", "-f", "-", stdin=json.dumps(pod("p", "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exec sleep 3600")))
        self.running("p")
        until(lambda: len(self.k("logs", "p").splitlines()) == 100)
        self.assertEqual(self.k("logs", "p", "c", "--tail=1"), "line 99\n")
        self.assertEqual(self.k("logs", "p", "c", "--limit-bytes=1"), "l")
        stamped = self.k("logs", "p", "c", "--tail=1", "--timestamps")
        self.assertRegex(stamped, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line 99\n$")
        time.sleep(2.5)
        self.assertEqual(self.k("logs", "p", "c", "--since=1s"), "")
        self.assertEqual(len(self.k("logs", "p", "c", "--since=24h").splitlines()), 100)

    @shows("Kubectl client Proxy server should support proxy with --port 0", "Kubectl client Proxy server should support --unix-socket=/path")
    def test_proxy(self):
        process = subprocess.Popen(["kubectl", "--kubeconfig", str(cluster.kubeconfig), "proxy", "-p", "0"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        port = int(re.search(r":(\d+)$", process.stdout.readline().strip())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/api/")
        self.assertIn("versions", json.loads(connection.getresponse().read()))
        connection.close()
        path = _lib.WORK / "proxy.sock"
        other = subprocess.Popen(["kubectl", "--kubeconfig", str(cluster.kubeconfig), "proxy", f"--unix-socket={path}"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        other.stdout.readline()
        connection = _lib.UnixConnection(path, 10)
        connection.request("GET", "/api/", headers={"Host": "localhost"})
        self.assertIn("versions", json.loads(connection.getresponse().read()))
        connection.close()
        process.stdout.close()
        other.stdout.close()

    def test_dry_run_diff_and_wait(self):
        text = json.dumps(workload("Deployment", "d", 1))
        self.k("apply", "-f", "-", stdin=text)
        self.k("wait", "--for=condition=Available", "deployment/d", "--timeout=60s")
        done = self.k("diff", "-f", "-", stdin=text.replace('"replicas": 1', '"replicas": 2'), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("+  replicas: 2", done.stdout)
        self.k("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text.replace('"replicas": 1', '"replicas": 2'))
        self.k("rollout", "restart", "deployment/d")
        self.k("rollout", "status", "deployment/d", "--timeout=60s")
        self.k("rollout", "undo", "deployment/d")
        self.k("autoscale", "deployment", "d", "--max=3", "--cpu-percent=50")
        self.assertIn("Deployment/d", self.k("get", "hpa"))

    def test_top(self):
        self.k("create", "-f", "-", stdin=json.dumps(pod("p", "while :; do :; done")))
        self.running("p")
        said = until(lambda: (d := self.k("top", "pod", "p", "--containers", "--no-headers", check=False)).returncode == 0 and d.stdout, 20)
        self.assertRegex(said, r"^p +c +\d+m +\d+Mi")
        self.assertRegex(kubectl("top", "node", "--no-headers"), r"\d+m +\d+% +\d+Mi +\d+%")


__all__ = ["Kubectl"]
