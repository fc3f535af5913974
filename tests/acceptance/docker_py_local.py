"""docker-py's objects for containers, images, networks and volumes."""

import io
import tarfile
import threading
import unittest

import _lib
import docker
from docker import errors

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
        self.addCleanup(self.sweep)

    def sweep(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)
        self.client.networks.prune()

    def sleeper(self, **options):
        return self.client.containers.run("busybox", "sleep 1000", detach=True, **options)


class Containers(Base):
    def test_run(self):
        self.assertEqual(self.client.containers.run("busybox", ["echo", "hello"], remove=True), b"hello\n")
        self.assertEqual(self.client.containers.run("busybox", "sh -c 'echo err >&2'", stderr=True, stdout=False), b"err\n")

    def test_failure_is_an_error(self):
        with self.assertRaises(errors.ContainerError) as caught:
            self.client.containers.run("busybox", "sh -c 'echo no >&2; exit 3'", remove=True)
        self.assertEqual(caught.exception.exit_status, 3)
        with self.assertRaises(errors.ImageNotFound):
            self.client.api.create_container("no.such/image:1", "true")
        with self.assertRaises(errors.NotFound):
            self.client.containers.get("nobody")
        with self.assertRaises(errors.APIError) as caught:
            self.client.containers.run("busybox", "/no/such/program")
        self.assertIn("no such file", str(caught.exception).lower())

    def test_life(self):
        container = self.sleeper(name="one", labels={"role": "test"}, environment={"A": "1"}, hostname="box")
        self.assertEqual(container.status, "created")
        container.reload()
        self.assertEqual((container.status, container.name, container.labels["role"]), ("running", "one", "test"))
        self.assertEqual(self.client.containers.list(filters={"label": "role=test"}), [container])
        self.assertEqual(self.client.containers.list(filters={"name": "other"}), [])
        container.pause()
        container.reload()
        self.assertEqual(container.status, "paused")
        container.unpause()
        container.rename("two")
        self.assertEqual(self.client.containers.get("two").id, container.id)
        self.assertEqual(container.top()["Processes"][0][-1], "sleep 1000")
        container.restart(timeout=0)
        container.kill()
        self.assertEqual(container.wait()["StatusCode"], 137)
        container.start()
        container.stop(timeout=0)
        container.reload()
        self.assertEqual(container.status, "exited")
        container.remove()
        self.assertEqual(self.client.containers.list(all=True), [])

    def test_exec(self):
        container = self.sleeper()
        self.assertEqual(tuple(container.exec_run("sh -c 'echo out; echo err >&2; exit 5'", demux=True)), (5, (b"out\n", b"err\n")))
        self.assertEqual(container.exec_run("env", environment={"B": "2"}).output.count(b"B=2"), 1)
        self.assertEqual(container.exec_run("id -u", user="1000").output.strip(), b"1000")
        self.assertIn(b"/dev/pts/", container.exec_run("tty", tty=True).output)
        self.assertEqual(b"".join(container.exec_run("seq 1 1000", stream=True).output).splitlines()[-1], b"1000")

    def test_logs(self):
        container = self.client.containers.run("busybox", "sh -c 'for i in 1 2 3; do echo $i; sleep 0.1; done'", detach=True)
        self.assertEqual(b"".join(container.logs(stream=True, follow=True)), b"1\n2\n3\n")
        self.assertEqual(container.logs(tail=1), b"3\n")
        self.assertRegex(container.logs(timestamps=True, tail=1), rb"^20\d\d-\d\d-\d\dT[0-9:.]+Z 3\n$")

    def test_attach(self):
        container = self.client.containers.create("busybox", "cat", stdin_open=True)
        sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        sock._sock.sendall(b"through\n")
        self.assertEqual(sock.read(8)[:1], b"\x01")
        self.assertEqual(sock.read(8), b"through\n")
        sock._sock.close()

    def test_archive(self):
        container = self.sleeper()
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            info = tarfile.TarInfo("file")
            info.size, info.mode, info.uid = 3, 0o640, 7
            archive.addfile(info, io.BytesIO(b"abc"))
        self.assertTrue(container.put_archive("/tmp", tar.getvalue()))
        self.assertEqual(container.exec_run("stat -c '%a %u %s' /tmp/file").output.strip(), b"640 7 3")
        bits, stat = container.get_archive("/tmp/file")
        self.assertEqual((stat["name"], stat["size"]), ("file", 3))
        with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as archive:
            self.assertEqual(archive.extractfile("file").read(), b"abc")
        with self.assertRaises(errors.NotFound):
            container.get_archive("/nothing")
        self.assertIn({"Path": "/tmp/file", "Kind": 1}, container.diff())

    def test_stats_and_update(self):
        container = self.sleeper(mem_limit="64m")
        self.assertEqual(container.stats(stream=False)["memory_stats"]["limit"], 64 << 20)
        stream = container.stats(stream=True, decode=True)
        self.assertGreater(next(stream)["pids_stats"]["current"], 0)
        container.update(mem_limit="32m", memswap_limit="32m")
        container.reload()
        self.assertEqual(container.attrs["HostConfig"]["Memory"], 32 << 20)

    def test_commit_export(self):
        container = self.client.containers.run("busybox", "sh -c 'echo x >/x'", detach=True)
        container.wait()
        image = container.commit("commited", "1", message="why")
        self.assertEqual(image.tags, ["commited:1"])
        self.assertEqual(self.client.containers.run("commited:1", "cat /x"), b"x\n")
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
            self.assertEqual(archive.extractfile("x").read(), b"x\n")
        self.sweep()
        self.client.images.remove("commited:1")

    def test_host_config(self):
        container = self.sleeper(
            ports={"8080/tcp": 18080}, cap_drop=["ALL"], read_only=True, tmpfs={"/t": "size=1m"}, mem_limit="64m", nano_cpus=500000000,
            pids_limit=20, ulimits=[docker.types.Ulimit(name="nofile", soft=99, hard=99)], dns=["192.0.2.53"], extra_hosts={"a": "192.0.2.7"},
            healthcheck={"test": "exit 0", "interval": 10**9}, log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 4}, shm_size="1m", init=True, stop_signal="SIGINT", user="7")
        container.reload()
        host = container.attrs["HostConfig"]
        self.assertEqual((host["PidsLimit"], host["NanoCpus"], host["ShmSize"], host["Init"]), (20, 500000000, 1 << 20, True))
        self.assertEqual(host["RestartPolicy"], {"Name": "on-failure", "MaximumRetryCount": 4})
        self.assertEqual(host["LogConfig"]["Config"], {"max-size": "1m"})
        self.assertEqual(container.ports["8080/tcp"][0]["HostPort"], "18080")
        self.assertEqual(container.exec_run("sh -c 'ulimit -n'").output.strip(), b"99")

    def test_events(self):
        seen = []
        stream = self.client.events(decode=True, filters={"type": "container"})
        thread = threading.Thread(target=lambda: seen.extend(iter(lambda: next(stream, None), None)), daemon=True)
        thread.start()
        actions = lambda: [event["Action"] for event in seen]
        container = self.sleeper(name="evented")
        self.assertTrue(_lib.eventually(5, lambda: "start" in actions() or (container.restart(timeout=0) and False)), seen)
        container.kill()
        self.assertTrue(_lib.eventually(5, lambda: "die" in actions()), seen)
        self.assertEqual(seen[0]["Actor"]["Attributes"]["name"], "evented")
        stream.close()

    def test_prune(self):
        self.client.containers.run("busybox", "true")
        self.assertEqual(len(self.client.containers.prune()["ContainersDeleted"]), 1)


class Images(Base):
    def test_list_and_get(self):
        tags = {tag for image in self.client.images.list() for tag in image.tags}
        self.assertLessEqual({"busybox:latest", "spkane/quantum-game:latest", "spkane/quantum-game:latest-plus"}, tags)
        image = self.client.images.get("busybox")
        self.assertEqual(self.client.images.get(image.short_id).id, image.id)
        self.assertEqual(image.attrs["Config"]["Cmd"], ["sh"])
        self.assertTrue(image.history())
        with self.assertRaises(errors.ImageNotFound):
            self.client.images.get("nothing:here")

    def test_tag_save_load_remove(self):
        image = self.client.images.get("busybox")
        self.assertTrue(image.tag("somewhere/else", "v2"))
        archive = b"".join(self.client.images.get("somewhere/else:v2").save(named="somewhere/else:v2"))
        self.client.images.remove("somewhere/else:v2")
        self.assertEqual([i.id for i in self.client.images.load(archive)], [image.id])
        self.assertIn("somewhere/else:v2", self.client.images.get(image.id).tags)
        self.client.images.remove("somewhere/else:v2")

    def test_import(self):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("empty"))
        self.client.api.import_image_from_data(tar.getvalue(), repository="flat", tag="1")
        self.assertEqual(len(self.client.images.get("flat:1").attrs["RootFS"]["Layers"]), 1)
        self.client.images.remove("flat:1")
        self.client.images.prune()


class Networks(Base):
    def test_life(self):
        ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.66.0.0/24", gateway="10.66.0.254")])
        network = self.client.networks.create("blue", driver="bridge", ipam=ipam, labels={"a": "b"}, internal=True, attachable=True)
        self.assertEqual(self.client.networks.list(names=["blue"]), [network])
        container = self.sleeper(name="member", network="blue")
        other = self.sleeper(name="other")
        network.connect(other, aliases=["friend"], ipv4_address="10.66.0.9")
        network.reload()
        self.assertEqual({c.name for c in network.containers}, {"member", "other"})
        self.assertIn(b"10.66.0.9", container.exec_run("nslookup friend").output)
        network.disconnect(other)
        self.assertNotEqual(container.exec_run("nslookup friend").exit_code, 0)
        with self.assertRaises(errors.APIError) as caught:
            network.remove()
        self.assertEqual(caught.exception.status_code, 403)
        container.remove(force=True)
        network.remove()
        with self.assertRaises(errors.NotFound):
            self.client.networks.get("blue")

    def test_prune(self):
        self.client.networks.create("unused")
        self.assertEqual(self.client.networks.prune()["NetworksDeleted"], ["unused"])


class Volumes(Base):
    def test_life(self):
        volume = self.client.volumes.create("kept", labels={"a": "b"})
        self.assertEqual((volume.name, volume.attrs["Driver"], volume.attrs["Labels"]), ("kept", "local", {"a": "b"}))
        self.client.containers.run("busybox", "sh -c 'echo here >/d/file'", volumes={"kept": {"bind": "/d", "mode": "rw"}})
        self.assertEqual(self.client.containers.run("busybox", "cat /d/file", mounts=[docker.types.Mount("/d", "kept", read_only=True)]), b"here\n")
        with self.assertRaises(errors.APIError) as caught:
            volume.remove()
        self.assertEqual(caught.exception.status_code, 409)
        self.sweep()
        volume.remove()
        with self.assertRaises(errors.NotFound):
            self.client.volumes.get("kept")

    def test_prune(self):
        self.client.volumes.create()
        self.assertEqual(len(self.client.volumes.prune()["VolumesDeleted"]), 1)


class System(Base):
    def test_info(self):
        self.assertTrue(self.client.ping())
        self.assertEqual(self.client.info()["OSType"], "linux")
        self.assertRegex(self.client.version()["ApiVersion"], r"^1\.\d+$")
        self.assertTrue(self.client.df()["Images"])


if __name__ == "__main__":
    unittest.main(warnings="ignore")
