"""docker-py's objects for the swarm, services, nodes, secrets and configs."""

import unittest

import _lib
import docker
from docker import errors, types

daemon = _lib.Daemon()


def setUpModule():
    daemon.start()
    daemon.load("busybox", "quantum-game")


def tearDownModule():
    daemon.stop()


class Base(unittest.TestCase):
    def setUp(self):
        self.client = docker.DockerClient(base_url=daemon.url, version="auto", timeout=30)
        self.addCleanup(self.client.close)

    def fails(self, status, text, call, *arguments, **options):
        with self.assertRaises(errors.APIError) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.status_code, status, caught.exception)
        self.assertIn(text, caught.exception.explanation)


class Outside(Base):
    def test_not_a_manager(self):
        text = "This node is not a swarm manager."
        self.fails(503, text, self.client.services.list)
        self.fails(503, text, self.client.nodes.list)
        self.fails(503, text, self.client.secrets.list)
        self.fails(503, "not part of a swarm", self.client.swarm.leave)

    def test_init_options(self):
        self.assertTrue(self.client.swarm.init("192.0.2.1", default_addr_pool=["10.40.0.0/16"], subnet_size=26, task_history_retention_limit=7,
                                               snapshot_interval=900, dispatcher_heartbeat_period=6 * 10**9, name="default"))
        self.addCleanup(self.client.swarm.leave, force=True)
        info = self.client.info()["Swarm"]
        self.assertEqual((info["LocalNodeState"], info["ControlAvailable"], info["NodeAddr"]), ("active", True, "192.0.2.1"))
        cluster = info["Cluster"]
        self.assertEqual((cluster["DefaultAddrPool"], cluster["SubnetSize"]), (["10.40.0.0/16"], 26))
        self.assertEqual(cluster["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 7)
        network = self.client.networks.create("n", driver="overlay")
        network.reload()
        self.assertRegex(network.attrs["IPAM"]["Config"][0]["Subnet"], r"^10\.40\.\d+\.\d+/26$")
        self.fails(503, "already part of a swarm", self.client.swarm.init, "192.0.2.1")


class Inside(Base):
    def setUp(self):
        super().setUp()
        self.client.swarm.init("192.0.2.1")
        self.addCleanup(self.client.swarm.leave, force=True)

    def service(self, *arguments, **options):
        return self.client.services.create(*arguments, **options)

    def running(self, service, count):
        tasks = lambda: [t for t in service.tasks({"desired-state": "running"}) if t["Status"]["State"] == "running"]
        self.assertTrue(_lib.eventually(20, lambda: len(tasks()) == count), service.tasks())
        return tasks()

    def test_swarm(self):
        swarm = self.client.swarm
        swarm.reload()
        worker = swarm.attrs["JoinTokens"]["Worker"]
        self.assertRegex(worker, "^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$")
        self.assertTrue(swarm.update(rotate_worker_token=True, task_history_retention_limit=2))
        swarm.reload()
        self.assertNotEqual(swarm.attrs["JoinTokens"]["Worker"], worker)
        self.assertEqual(swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 2)
        self.assertIn("UnlockKey", swarm.get_unlock_key())

    def test_nodes(self):
        (node,) = self.client.nodes.list(filters={"role": "manager"})
        self.assertEqual(self.client.nodes.list(filters={"role": "worker"}), [])
        self.assertEqual((node.attrs["Status"]["State"], node.attrs["Description"]["Hostname"]), ("ready", "machine"))
        self.assertTrue(node.attrs["ManagerStatus"]["Leader"])
        spec = {"Availability": "active", "Role": "manager", "Labels": {"a": "b"}}
        self.assertTrue(node.update(spec))
        self.assertEqual(self.client.nodes.get(node.id).attrs["Spec"]["Labels"], {"a": "b"})
        self.fails(500, "update out of sequence", node.update, spec)
        self.fails(404, "not found", self.client.nodes.get, "nobody")

    def test_service(self):
        service = self.service("spkane/quantum-game", name="web", labels={"a": "b"}, container_labels={"c": "d"}, env=["X=1"], mode=types.ServiceMode("replicated", 2),
                               endpoint_spec=types.EndpointSpec(ports={8000: 8080}), resources=types.Resources(mem_limit=64 << 20),
                               update_config=types.UpdateConfig(parallelism=2, delay=0, order="start-first"), restart_policy=types.RestartPolicy("any", delay=10**8),
                               constraints=["node.role==manager"], stop_grace_period=2 * 10**9, hostname="h-{{.Task.Slot}}", init=True)
        tasks = self.running(service, 2)
        self.assertEqual({t["Slot"] for t in tasks}, {1, 2})
        self.assertTrue(all(t["Status"]["ContainerStatus"]["ContainerID"] and t["NodeID"] for t in tasks))
        service.reload()
        self.assertEqual((service.name, service.attrs["Spec"]["Labels"]), ("web", {"a": "b"}))
        self.assertEqual(service.attrs["Endpoint"]["Ports"][0]["PublishedPort"], 8000)
        self.assertEqual(self.client.services.list(filters={"name": "web"}), [service])
        self.assertEqual(self.client.services.list(filters={"label": "a=c"}), [])
        self.fails(409, "name conflicts with an existing object", self.service, "busybox", name="web")
        service.scale(3)
        self.running(service, 3)
        service.reload()
        self.assertTrue(service.update(image="spkane/quantum-game:latest-plus", mode=types.ServiceMode("replicated", 1), env=["X=2"]))
        done = lambda: service.reload() or service.attrs.get("UpdateStatus", {}).get("State") == "completed"
        self.assertTrue(_lib.eventually(30, done), service.attrs.get("UpdateStatus"))
        (task,) = self.running(service, 1)
        self.assertEqual(task["Spec"]["ContainerSpec"]["Env"], ["X=2"])
        self.assertTrue(service.force_update())
        container = self.client.containers.list(filters={"label": "com.docker.swarm.service.name=web"})[0]
        self.assertEqual(container.labels["c"], "d")
        self.assertTrue(service.remove())
        self.fails(404, "service web not found", self.client.services.get, "web")
        self.assertTrue(_lib.eventually(15, lambda: not self.client.containers.list(all=True, ignore_removed=True)))

    def test_global_logs_tasks(self):
        service = self.service("busybox", "sh -c 'echo one; echo two >&2; exec sleep 1000'", name="all", mode="global")
        self.running(service, 1)
        logs = lambda: b"".join(service.logs(stdout=True, stderr=True))
        self.assertTrue(_lib.eventually(5, lambda: b"one\n" in logs() and b"two\n" in logs()), logs())
        (task,) = self.client.api.tasks({"service": "all", "desired-state": "running"})
        self.assertEqual(self.client.api.inspect_task(task["ID"])["ServiceID"], service.id)
        self.assertIn(b"one", b"".join(self.client.api._stream_raw_result(self.client.api._get(self.client.api._url("/tasks/{0}/logs", task["ID"]), params={"stdout": 1}, stream=True), decode=False)))

    def test_secrets_and_configs(self):
        secret = self.client.secrets.create(name="key", data=b"hidden", labels={"a": "b"})
        config = self.client.configs.create(name="conf", data=b"shown")
        self.assertEqual(self.client.secrets.get(secret.id).name, "key")
        self.assertNotIn("Data", self.client.secrets.get(secret.id).attrs["Spec"])
        self.assertEqual([c.name for c in self.client.configs.list(filters={"name": "conf"})], ["conf"])
        self.fails(409, "already exists", self.client.secrets.create, name="key", data=b"x")
        service = self.service("busybox", "sh -c 'cat /run/secrets/k /c; echo; exec sleep 1000'", name="reader",
                               secrets=[types.SecretReference(secret.id, "key", filename="k", mode=0o400)], configs=[types.ConfigReference(config.id, "conf", filename="/c")])
        self.running(service, 1)
        self.assertTrue(_lib.eventually(5, lambda: b"".join(service.logs(stdout=True)) == b"hiddenshown\n"), b"".join(service.logs(stdout=True)))
        self.fails(400, "is in use by the following service: reader", secret.remove)
        service.remove()
        secret.remove()
        config.remove()
        self.assertEqual(self.client.secrets.list(), [])
        self.fails(404, "not found", self.client.configs.get, "conf")

    def test_networks(self):
        network = self.client.networks.create("front", driver="overlay", attachable=True, scope="swarm",
                                              ipam=types.IPAMConfig(pool_configs=[types.IPAMPool(subnet="10.77.0.0/24")]))
        service = self.service("spkane/quantum-game", name="web", networks=["front"])
        self.running(service, 1)
        page = _lib.eventually(10, lambda: self.try_run("wget -T 3 -qO- http://web:8080/"))
        self.assertIn(b"blue", page)
        service.remove()
        self.assertTrue(_lib.eventually(10, lambda: self.removed(network)))

    def try_run(self, command):
        try:
            return self.client.containers.run("busybox", command, network="front", remove=True)
        except errors.ContainerError:
            return b""

    def removed(self, network):
        try:
            network.remove()
        except errors.APIError:
            return False
        return True

    def test_rollback_and_versions(self):
        service = self.service("busybox", "sleep 1000", name="s", labels={"n": "1"})
        self.running(service, 1)
        service.reload()
        version = service.version
        service.update(labels={"n": "2"})
        self.fails(500, "update out of sequence", self.client.api.update_service, service.id, version, name="s", task_template=service.attrs["Spec"]["TaskTemplate"])
        service.reload()
        self.client.api.update_service(service.id, service.version, name="s", task_template=service.attrs["Spec"]["TaskTemplate"])
        with self.assertRaises(errors.APIError):
            self.client.api.update_service(service.id, service.version + 100, name="s", task_template=service.attrs["Spec"]["TaskTemplate"])

    def test_bad_services(self):
        self.fails(400, "name must be valid", self.service, "busybox", name="a b")
        self.fails(400, "", self.service, "busybox", mode=types.ServiceMode("replicated", 1), resources=types.Resources(mem_limit=1))
        self.fails(404, "network nowhere not found", self.service, "busybox", networks=["nowhere"])


if __name__ == "__main__":
    unittest.main(warnings="ignore")
