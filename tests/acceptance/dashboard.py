"""The dashboard in a real browser: pages, live changes, logs, a terminal, actions, and what is refused.

Drives Debian's chromium by chromedriver over the WebDriver protocol. SHOTS=FOLDER keeps pictures of the main pages.
"""

import base64
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

import _lib

SOCKET = _lib.WORK / "dashboard.sock"
SECURE = 8443
daemon = _lib.Daemon(options=["--dashboard-socket", str(SOCKET), "--dashboard-listen", f"127.0.0.1:{SECURE}"])
SHOTS = os.environ.get("SHOTS")


def relay():
    """A port of this machine that leads to the dashboard's socket, as `tripod dashboard` has it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept():
        while True:
            client, _ = listener.accept()
            inner = socket.socket(socket.AF_UNIX)
            inner.connect(str(SOCKET))
            threading.Thread(target=copy, args=(client, inner), daemon=True).start()
            threading.Thread(target=copy, args=(inner, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Plain:
    """A client that runs no script and keeps cookies."""

    def __init__(self):
        self.cookies = {}

    def request(self, method, path, body=None, headers=None):
        headers = {"Host": f"127.0.0.1:{PORT}", **(headers or {})}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        connection = _lib.UnixConnection(SOCKET, 20)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for line in response.headers.get_all("Set-Cookie") or []:
                name, value = line.split(";")[0].split("=", 1)
                self.cookies[name] = value
            return _lib.Answer(response)
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def token(self):
        return re.search(r'name="csrf" value="([0-9a-f]+)"', self.get("/").body.decode()).group(1)

    def post(self, path, fields, headers=None):
        body = urllib.parse.urlencode(fields)
        return self.request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})})


class Secure:
    """A client of the https listener that keeps cookies; `identity` is a file with a certificate and its key."""

    def __init__(self, identity=None):
        self.cookies = {}
        self.tls = ssl.create_default_context(cadata=authority())
        if identity:
            self.tls.load_cert_chain(identity)

    def request(self, method, path, fields=None, headers=None):
        headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        connection = http.client.HTTPSConnection("127.0.0.1", SECURE, timeout=20, context=self.tls)
        try:
            connection.request(method, path, urllib.parse.urlencode(fields or {}), headers)
            response = connection.getresponse()
            self.lines = response.headers.get_all("Set-Cookie") or []
            for line in self.lines:
                name, value = line.split(";")[0].split("=", 1)
                self.cookies[name] = value
            return response.status, response.read().decode(), response.headers
        finally:
            connection.close()

    def csrf(self):
        return re.search(r'name="csrf" value="([0-9a-f]+)"', self.request("GET", "/")[1]).group(1)

    def log_in(self, token):
        return self.request("POST", "/login", {"csrf": self.csrf(), "token": token})


def kubectl(*words):
    done = subprocess.run(["kubectl", "--kubeconfig", str(daemon.root / "kube/admin.conf"), *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def of_config(path):
    return base64.b64decode(kubectl("config", "view", "--raw", "-o", f"jsonpath={{{path}}}")).decode()


def authority():
    return of_config(".clusters[0].cluster.certificate-authority-data")


class Browser:
    """One window of a browser."""

    def __init__(self):
        log = open(_lib.WORK / "chromedriver.log", "wb")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], stdout=log, stderr=log)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1360,900", "--hide-scrollbars", f"--user-data-dir={_lib.WORK}/browser"]
        _lib.eventually(20, self.up)
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {"acceptInsecureCerts": True, "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = f"/session/{answer['sessionId']}"

    def up(self):
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message'][:400]}")
        return value

    def do(self, command, body=None, method="POST"):
        return self.call(method, f"{self.session}/{command}", {} if body is None and method == "POST" else body)

    def go(self, path):
        self.do("url", {"url": f"http://127.0.0.1:{PORT}{path}"})

    def js(self, script, *arguments):
        return self.do("execute/sync", {"script": script, "args": list(arguments)})

    def text(self):
        """What can be seen."""
        return self.js("return document.body.innerText")

    def words(self):
        """What can be seen by scrolling, too."""
        return self.js("return document.body.textContent")

    def term(self):
        return self.js("return document.querySelector('.term')?.innerText ?? ''")

    def has(self, *texts, seconds=15):
        """Whether the page shows these texts, now or soon."""
        return _lib.eventually(seconds, lambda: all(t in self.words() for t in texts))

    def find(self, css):
        return next(iter(self.do("element", {"using": "css selector", "value": css}).values()))

    def click(self, css):
        self.do(f"element/{self.find(css)}/click")

    def keys(self, text):
        actions = [a for c in text for a in ({"type": "keyDown", "value": c}, {"type": "keyUp", "value": c})]
        self.do("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def complaints(self):
        """What the console says against the page: errors of script, refusals of the policy."""
        return [e["message"] for e in self.do("se/log", {"type": "browser"}) if e["level"] == "SEVERE"]

    def size(self, width, height, scheme="light"):
        emulate = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [{"name": "prefers-color-scheme", "value": scheme}]}}
        self.do("goog/cdp/execute", emulate)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.do("goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def shoot(self, name):
        if SHOTS:
            time.sleep(0.3)
            Path(SHOTS, f"{name}.png").write_bytes(base64.b64decode(self.do("screenshot", method="GET")))

    def end(self):
        try:
            self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait(10)


def setUpModule():
    global PORT, browser
    daemon.start()
    daemon.load("busybox")
    PORT = relay()
    browser = Browser()


def tearDownModule():
    browser.end()
    daemon.docker("swarm", "leave", "--force", check=False)
    daemon.stop()


class Dashboard(unittest.TestCase):
    """The order of the names is that of the steps."""

    def tearDown(self):
        self.assertEqual(browser.complaints(), [])
        self.assertIsNone(daemon.process.poll(), "the daemon died")

    def shows(self, *texts, seconds=15):
        self.assertTrue(browser.has(*texts, seconds=seconds), f"{texts} not in:\n{browser.text()[:3000]}")

    def test_01_no_cluster_yet(self):
        browser.go("/")
        self.shows("This machine is in no cluster yet", "docker swarm init")
        daemon.docker("swarm", "init", "--advertise-addr", "192.0.2.1")
        self.shows("Nodes ready", "Workloads")

    def test_02_side_bar_and_title(self):
        page = Plain().get("/").body.decode()
        for word in ("Overview", "Workloads", "Deployments", "Pods", "Services", "Nodes", "Config", "Storage", "Networks", "Events"):
            self.assertRegex(page, f">{word}</a>")
        self.assertIn("Kubernetes Dashboard</title>", page)
        for path in re.findall(r'<li><a href="([^"]+)"', page):
            answer = Plain().get(path)
            self.assertEqual(answer.status, 200, path)
            self.assertIn("default-src 'none'", answer.headers["content-security-policy"])

    def test_03_changes_appear_by_themselves(self):
        browser.go("/workloads")
        browser.js("window.same = true")
        daemon.docker("service", "create", "--detach", "--name", "ticker", "--replicas", "2", "--stop-grace-period", "1s", "busybox", "sh", "-c", "i=0; while true; do i=$((i+1)); echo tick $i; sleep 1; done")
        self.shows("ticker", "Healthy", "2 / 2", seconds=40)
        self.assertTrue(browser.js("return window.same"), "the page was loaded again")

    def test_04_scaling_is_followed_on_screen(self):
        browser.go("/swarm-services")
        browser.click("td a")
        self.shows("ticker", "Swarm service", "2 / 2")
        browser.click("details.ask summary")
        field = browser.find("details[open] input[name=replicas]")
        browser.do(f"element/{field}/clear")
        browser.do(f"element/{field}/value", {"text": "3"})
        browser.click("details[open] button")
        self.shows("3 / 3", seconds=40)

    def test_05_logs_go_on(self):
        browser.go("/pods?namespace=swarm")
        browser.click("td a")
        self.shows("Status", "Node")
        browser.click(".tabs a[href$='/logs']")
        self.shows("tick")
        count = len(browser.js("return document.querySelector('.log pre').innerText").split("\n"))
        self.assertTrue(_lib.eventually(15, lambda: len(browser.js("return document.querySelector('.log pre').innerText").split("\n")) >= count + 3))
        browser.shoot("logs")

    def test_06_a_terminal_runs_a_shell(self):
        browser.go("/pods?namespace=swarm")
        browser.click("td a")
        browser.click(".tabs a[href$='/terminal']")
        self.assertTrue(_lib.eventually(20, lambda: re.search(r"[#$] ", browser.term())), browser.text())
        browser.keys("echo $((6*7)) in $(hostname)\ue007")
        self.assertTrue(_lib.eventually(15, lambda: re.search(r"42 in \w", browser.term())), browser.text())
        browser.shoot("terminal")

    def test_07_objects_from_yaml(self):
        browser.go("/new")
        manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: green}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {word: hunter2}\n"
        browser.js("document.querySelector('textarea').value = arguments[0]", manifest)
        browser.click(".editor button.primary")
        self.shows("key", "Secret", "word")
        self.assertNotIn("hunter2", browser.text())
        browser.click("details.hidden summary")
        self.assertIn("hunter2", browser.text())
        browser.go("/configmaps/default/settings/yaml")
        browser.js("const t = document.querySelector('textarea'); t.value = t.value.replace('green', 'blue')")
        browser.click(".editor button.primary")
        self.shows("blue")

    def test_08_what_is_wrong_is_said(self):
        browser.go("/configmaps/default/settings/yaml")
        browser.js("const t = document.querySelector('textarea'); t.value = t.value.replace('name: settings', 'name: other')")
        browser.click(".editor button.primary")
        self.shows("This was refused", "metadata.name")
        browser.complaints()  # the status of the refusal

    def test_09_requests_of_others_are_refused(self):
        client = Plain()
        token = client.token()
        deletion = "/configmaps/default/settings/delete"
        for fields, headers in (
            ({}, {}),
            ({"csrf": "0" * 32}, {}),
            ({"csrf": token}, {"Origin": "http://evil.example"}),
            ({"csrf": token}, {"Sec-Fetch-Site": "cross-site"}),
        ):
            answer = client.post(deletion, fields, headers)
            self.assertEqual(answer.status, 403, answer)
        self.assertEqual(Plain().post(deletion, {"csrf": token}).status, 403)
        self.assertEqual(client.get("/", {"Host": "evil.example"}).status, 403)
        self.assertEqual(client.get("/configmaps/default/settings").status, 200)
        self.assertEqual(client.post(deletion, {"csrf": token}).status, 303)
        self.assertEqual(client.get("/configmaps/default/settings").status, 404)

    def test_10_language_and_search(self):
        self.assertIn("工作负载", Plain().get("/", {"Accept-Language": "zh-CN,zh;q=0.9"}).body.decode())
        browser.go("/")
        browser.click(".choices button[name=lang]")
        self.shows("概览", "节点")
        browser.shoot("overview-chinese")
        browser.click(".choices button[name=lang]")
        self.shows("Overview")
        browser.go("/search?q=ticker")
        self.shows("Swarm service", "ticker")

    def test_11_it_is_small(self):
        client, total = Plain(), 0
        page = client.get("/", {"Accept-Encoding": "gzip"})
        total += len(page.body)
        for path in re.findall(r'(?:href|src)="([^"]*/assets/[^"]+)"', client.get("/").body.decode()):
            total += len(client.get(path, {"Accept-Encoding": "gzip"}).body)
        self.assertLess(total, 200_000)

    def test_12_pictures(self):
        """The main pages in both colours and on a phone fit their window."""
        pages = {"overview": "/", "workloads": "/workloads", "pods": "/pods"}
        for scheme in ("light", "dark"):
            browser.size(1360, 900, scheme)
            for name, path in pages.items():
                browser.go(path)
                self.shows("ticker")
                browser.shoot(f"{name}-{scheme}")
        browser.size(390, 844)
        for name, path in pages.items():
            browser.go(path)
            self.shows("ticker")
            self.assertLessEqual(browser.js("return document.documentElement.scrollWidth"), 390, f"{name} is wider than the phone")
            browser.shoot(f"{name}-phone")

    def test_13_elsewhere_nobody_is_let_in_without_a_log_in(self):
        stranger = Secure()
        for method, path in (("GET", "/"), ("GET", "/pods"), ("GET", "/live"), ("POST", "/nodes/x/drain")):
            status, text, headers = stranger.request(method, path)
            self.assertEqual(status, 401, path)
            self.assertNotIn("ticker", text)
            self.assertIn("default-src 'none'", headers["content-security-policy"])
        status, text, _ = stranger.log_in("nonsense")
        self.assertEqual((status, "not good" in text), (403, True), text)
        self.assertEqual(stranger.request("POST", "/login", {"token": "x"})[0], 403)
        self.assertEqual(stranger.request("GET", "/")[0], 401)

    def test_14_tokens_and_sessions(self):
        kubectl("create", "serviceaccount", "viewer")
        kubectl("create", "clusterrolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:viewer")
        kubectl("create", "serviceaccount", "boss")
        kubectl("create", "clusterrolebinding", "boss", "--clusterrole=cluster-admin", "--serviceaccount=default:boss")
        viewer = Secure()
        status, text, _ = viewer.log_in(kubectl("create", "token", "viewer").strip())
        self.assertEqual((status, "cluster-admin" in text), (403, True), text)
        self.assertEqual(viewer.request("GET", "/")[0], 401)
        boss = Secure()
        before = boss.csrf()
        status, _, headers = boss.log_in(kubectl("create", "token", "boss").strip())
        self.assertEqual((status, headers["location"]), (303, "/"))
        for line in boss.lines:
            self.assertRegex(line, "^__Host-tripod_.*; Path=/; HttpOnly; SameSite=Strict; Secure$")
        self.assertIn("ticker", boss.request("GET", "/workloads")[1])
        kubectl("create", "configmap", "kept")
        deletion = "/configmaps/default/kept/delete"
        self.assertEqual(boss.request("POST", deletion, {"csrf": before})[0], 403, "a form from before the log-in")
        token = boss.csrf()
        self.assertEqual(boss.request("POST", deletion, {"csrf": token}, {"Origin": "https://evil.example"})[0], 403)
        thief = Secure()
        thief.cookies = {k: v for k, v in boss.cookies.items() if not k.endswith("_session")}
        self.assertEqual(thief.request("POST", deletion, {"csrf": token})[0], 401)
        self.assertEqual(boss.request("POST", deletion, {"csrf": token})[0], 303)
        old = dict(boss.cookies)
        self.assertEqual(boss.request("POST", "/logout", {"csrf": token})[0], 303)
        boss.cookies = old
        self.assertEqual(boss.request("GET", "/")[0], 401, "the session outlives the log-out")

    def test_15_a_client_certificate_needs_no_log_in(self):
        identity = _lib.WORK / "admin.pem"
        identity.write_text(of_config(".users[0].user.client-certificate-data") + of_config(".users[0].user.client-key-data"))
        admin = Secure(identity)
        status, text, _ = admin.request("GET", "/workloads")
        self.assertEqual((status, "ticker" in text), (200, True))
        self.assertNotIn("/logout", text)

    def test_16_log_in_on_screen(self):
        browser.size(1360, 900)
        browser.do("url", {"url": f"https://127.0.0.1:{SECURE}/pods"})
        self.shows("Log in")
        browser.shoot("login")
        browser.do(f"element/{browser.find('#token')}/value", {"text": kubectl("create", "token", "boss").strip()})
        browser.click("button.primary")
        self.shows("Nodes ready", "Log out")
        browser.click("button.logout")
        self.shows("Log in")
        self.assertTrue(all("401" in c for c in browser.complaints()))


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
