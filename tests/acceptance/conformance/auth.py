"""Access: service accounts and their tokens, certificates, reviews, Pod Security, what a node may do."""

import base64
import datetime
import json
import subprocess

import _lib
from _kube import MERGE, Case, change, cluster, condition, create, delete, get, gone, ok, patch, pod, read, refused, replace, request, shows, until, workload


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class ServiceAccounts(Case):
    def token(self, **spec):
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600, **spec}}
        return create(f"{self.v1}/serviceaccounts/default/token", body)["status"]["token"]

    @shows("ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview")
    def test_review(self):
        token = self.token()
        seen = create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})["status"]
        self.assertTrue(seen["authenticated"])
        self.assertEqual(seen["user"]["username"], f"system:serviceaccount:{self.ns}:default")
        self.assertEqual(set(seen["user"]["groups"]), {"system:serviceaccounts", f"system:serviceaccounts:{self.ns}", "system:authenticated"})
        seen = create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token[:-8]}})["status"]
        self.assertFalse(seen.get("authenticated", False))
        who = create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token)
        self.assertEqual(who["status"]["userInfo"]["username"], f"system:serviceaccount:{self.ns}:default")
        refused(get("/api/v1/nodes", token=token), 403, "Forbidden", 'cannot list resource "nodes" in API group "" at the cluster scope')
        refused(get("/api/v1/nodes", token="nonsense"), 401, "Unauthorized")

    @shows("ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer")
    def test_issuer(self):
        token = self.token(audiences=["oidc-discovery-test"])
        anonymous = get("/.well-known/openid-configuration", token="")
        self.assertIn(anonymous.status, (401, 403))
        reader = self.token()
        found = ok(get("/.well-known/openid-configuration", token=reader))
        self.assertEqual(found["issuer"], claims(token)["iss"])
        self.assertEqual(claims(token)["aud"], ["oidc-discovery-test"])
        keys = ok(get(found["jwks_uri"].split("/", 3)[3].join(["/", ""]), token=reader))["keys"]
        head = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
        self.assertIn(head["kid"], [k["kid"] for k in keys])
        self.assertIn(head["alg"], found["id_token_signing_alg_values_supported"])

    @shows("ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace")
    def test_root_certificate(self):
        path = f"{self.v1}/configmaps/kube-root-ca.crt"
        wanted = until(lambda: read(path))["data"]["ca.crt"]
        self.assertEqual(wanted, cluster.authority)
        delete(path)
        until(lambda: get(path).status == 200)
        patch(path, {"data": {"ca.crt": ""}})
        until(lambda: read(path)["data"]["ca.crt"] == wanted)

    @shows("ServiceAccounts should update a ServiceAccount", "ServiceAccounts should run through the lifecycle of a ServiceAccount")
    def test_life(self):
        path = f"{self.v1}/serviceaccounts"
        watch = self.watch(path, labelSelector="static=true")
        create(path, {"metadata": {"name": "a", "labels": {"static": "true"}}})
        watch.until("ADDED")
        patch(f"{path}/a", {"automountServiceAccountToken": False}, "application/strategic-merge-patch+json")
        watch.until("MODIFIED", lambda o: o["automountServiceAccountToken"] is False)
        change(f"{path}/a", lambda a: a.update(automountServiceAccountToken=True))
        self.assertTrue(read(f"{path}/a")["automountServiceAccountToken"])
        self.assertIn("a", [a["metadata"]["name"] for a in read("/api/v1/serviceaccounts", labelSelector="static=true")["items"]])
        ok(request("DELETE", path, labelSelector="static=true"))
        watch.until("DELETED")

    @shows("ServiceAccounts should allow opting out of API token automount")
    def test_opting_out(self):
        create(f"{self.v1}/serviceaccounts", {"metadata": {"name": "mount"}})
        create(f"{self.v1}/serviceaccounts", {"metadata": {"name": "nomount"}, "automountServiceAccountToken": False})
        for account, says, mounted in (("default", None, True), ("mount", None, True), ("nomount", None, False), ("default", False, False), ("mount", False, False),
                                       ("nomount", False, False), ("nomount", True, True), ("mount", True, True)):
            spec = {"serviceAccountName": account, **({} if says is None else {"automountServiceAccountToken": says})}
            made = create(f"{self.v1}/pods", pod(f"p-{account}-{says}".lower(), spec=spec))
            paths = [m["mountPath"] for m in made["spec"]["containers"][0].get("volumeMounts", [])]
            self.assertEqual("/var/run/secrets/kubernetes.io/serviceaccount" in paths, mounted, (account, says))

    @shows("ServiceAccounts should mount an API token into pods")
    def test_mounted(self):
        create(f"{self.v1}/pods", pod("p", "cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; echo; head -1 ca.crt; cat token; echo; sleep 3600"))
        self.running("p")
        lines = until(lambda: (t := get(f"{self.v1}/pods/p/log").body.decode().splitlines()) and len(t) >= 3 and t)
        self.assertEqual(lines[:2], [self.ns, "-----BEGIN CERTIFICATE-----"])
        bound = claims(lines[2])["kubernetes.io"]
        self.assertEqual((bound["namespace"], bound["pod"]["name"], bound["serviceaccount"]["name"]), (self.ns, "p", "default"))
        self.assertIn("node", bound)
        seen = create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": lines[2]}})["status"]
        self.assertEqual(seen["user"]["extra"]["authentication.kubernetes.io/pod-name"], ["p"])
        delete(f"{self.v1}/pods/p")
        until(lambda: gone(f"{self.v1}/pods/p"))
        seen = create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": lines[2]}})["status"]
        self.assertFalse(seen.get("authenticated", False))

    @shows("ServiceAccounts should mount projected service account token")
    def test_projected(self):
        volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 7200}}]}}
        create(f"{self.v1}/pods", pod("p", "cat /t/token; stat -L -c ' %a' /t/token; sleep 3600", spec={"volumes": [volume]}, volumeMounts=[{"name": "t", "mountPath": "/t"}]))
        self.running("p")
        token, mode = until(lambda: (t := get(f"{self.v1}/pods/p/log").body.decode().split()) and len(t) == 2 and t)
        self.assertEqual((claims(token)["aud"], mode), (["vault"], "644"))

    def test_token_secrets(self):
        """Secrets that hold a token for good: gone with their account, and not there without one."""
        secret = {"metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "later"}}, "type": "kubernetes.io/service-account-token"}
        create(f"{self.v1}/secrets", secret)
        until(lambda: gone(f"{self.v1}/secrets/s"))
        create(f"{self.v1}/serviceaccounts", {"metadata": {"name": "later"}})
        create(f"{self.v1}/secrets", secret)
        data = until(lambda: "token" in (d := read(f"{self.v1}/secrets/s").get("data", {})) and d)
        token = base64.b64decode(data["token"]).decode()
        who = create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token)
        self.assertEqual(who["status"]["userInfo"]["username"], f"system:serviceaccount:{self.ns}:later")
        self.assertEqual(base64.b64decode(data["namespace"]).decode(), self.ns)
        create(f"{self.v1}/secrets", {**secret, "metadata": {**secret["metadata"], "name": "other"}})
        other = base64.b64decode(read(f"{self.v1}/secrets/other")["data"]["token"]).decode()
        delete(f"{self.v1}/secrets/other")
        self.assertEqual(request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=other).status, 401)
        delete(f"{self.v1}/serviceaccounts/later")
        until(lambda: gone(f"{self.v1}/secrets/s"))
        self.assertEqual(request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token).status, 401)


class Reviews(Case):
    @shows("SubjectReview should support SubjectReview API operations")
    def test_access(self):
        user = f"system:serviceaccount:{self.ns}:default"
        group = "/apis/authorization.k8s.io/v1"
        asked = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": self.ns}, "user": user}
        self.assertFalse(create(f"{group}/subjectaccessreviews", {"spec": asked})["status"]["allowed"])
        create(f"{self.group('rbac.authorization.k8s.io/v1')}/rolebindings", {"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
               "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": self.ns}]})
        self.assertTrue(until(lambda: create(f"{group}/subjectaccessreviews", {"spec": asked})["status"]["allowed"]))
        local = f"{self.group('authorization.k8s.io/v1')}/localsubjectaccessreviews"
        self.assertTrue(create(local, {"spec": asked})["status"]["allowed"])
        other = {**asked, "resourceAttributes": {**asked["resourceAttributes"], "namespace": "other"}}
        self.assertIn(request("POST", local, {"spec": other}).status, (400, 422))
        self.assertTrue(create(f"{group}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": {"verb": "*", "resource": "*"}}})["status"]["allowed"])
        self.assertIn("*", create(f"{group}/selfsubjectrulesreviews", {"spec": {"namespace": self.ns}})["status"]["resourceRules"][0]["verbs"])
        who = create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        self.assertIn("system:masters", who["status"]["userInfo"]["groups"])


class Certificates(Case):
    def ask(self, name, subject, signer, usages):
        folder = _lib.WORK / self.ns
        folder.mkdir(exist_ok=True)
        subprocess.run(["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr", "-subj", subject],
                       check=True, capture_output=True)
        text = base64.b64encode((folder / f"{name}.csr").read_bytes()).decode()
        return {"metadata": {"name": f"{self.ns}-{name}"}, "spec": {"request": text, "signerName": signer, "usages": usages, "expirationSeconds": 3600}}, folder

    @shows("Certificates API [Privileged:ClusterAdmin] should support CSR API operations")
    def test_requests(self):
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        wanted, folder = self.ask("c", "/O=some-group/CN=some-user", "kubernetes.io/kube-apiserver-client", ["digital signature", "key encipherment", "client auth"])
        made = create(path, wanted)
        one = f"{path}/{made['metadata']['name']}"
        self.addCleanup(request, "DELETE", one)
        self.assertIn("system:masters", made["spec"]["groups"])
        patch(one, {"metadata": {"annotations": {"patched": "true"}}})
        entry = {"type": "ApprovalPatch", "status": "True", "reason": "FromTest", "message": "m"}
        seen = patch(f"{one}/approval", {"metadata": {"annotations": {"patchedapproval": "true"}}, "status": {"conditions": [entry]}})
        self.assertEqual(seen["status"]["conditions"][0]["type"], "ApprovalPatch")
        seen = patch(f"{one}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [{**entry, "type": "StatusPatch"}]}}, "application/strategic-merge-patch+json")
        self.assertIn("StatusPatch", [c["type"] for c in seen["status"]["conditions"]])
        change(f"{one}/approval", lambda o: o["status"]["conditions"].append({**entry, "type": "Approved"}))
        until(lambda: read(one)["status"].get("certificate"))
        (folder / "c.crt").write_bytes(base64.b64decode(read(one)["status"]["certificate"]))
        shown = subprocess.run(["openssl", "x509", "-in", folder / "c.crt", "-noout", "-subject", "-enddate", "-ext", "extendedKeyUsage"], check=True, capture_output=True, text=True).stdout
        self.assertRegex(shown, "CN ?= ?some-user")
        self.assertIn("Client Authentication", shown)
        end = datetime.datetime.strptime(shown.split("notAfter=")[1].splitlines()[0], "%b %d %H:%M:%S %Y GMT")
        self.assertLess(end - datetime.datetime.now(datetime.UTC).replace(tzinfo=None), datetime.timedelta(minutes=61))
        self.assertTrue(condition(read(one), "Approved"))
        refused(request("POST", path, {"metadata": {"name": "x"}, "spec": {**wanted["spec"], "request": "bm8="}}), 422, "Invalid", "spec.request")
        delete(one)
        self.assertTrue(gone(one))


class PodSecurity(Case):
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}

    def test_pods(self):
        refused(request("POST", f"{self.v1}/pods", pod("p", securityContext={"privileged": True})), 403, "Forbidden", 'violates PodSecurity "baseline:latest"', "privileged (container \"c\" must not set securityContext.privileged=true)")
        create(f"{self.v1}/pods", pod("q"))

    def test_pods_of_controllers(self):
        answer = request("POST", f"{self.apps}/replicasets", workload("ReplicaSet", "r", 1, securityContext={"privileged": True}))
        ok(answer, 201)
        until(lambda: condition(read(f"{self.apps}/replicasets/r"), "ReplicaFailure") == "True")
        self.assertIn('violates PodSecurity "baseline:latest"', condition(read(f"{self.apps}/replicasets/r"), "ReplicaFailure", "message"))
        self.assertEqual(read(f"{self.v1}/pods")["items"], [])


__all__ = ["Certificates", "PodSecurity", "Reviews", "ServiceAccounts"]
