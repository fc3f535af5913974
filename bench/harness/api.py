"""A client of the Docker Engine API: HTTP/1.1 over a unix socket, with nothing between it and the measure."""

import http.client
import json
import socket
import urllib.parse

VERSION = "v1.41"


class ApiError(Exception):
    """An answer with a status of 400 or more."""

    def __init__(self, method, path, status, body):
        super().__init__(f"{method} {path}: {status} {body[:300]!r}")
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """One connection, kept alive; reconnects when the engine closed it. Not for use by several threads."""

    def __init__(self, path, timeout=300):
        self._connection = _UnixConnection(path, timeout)

    def call(self, method, path, body=None, raw=None, **query):
        """Sends a request and returns the decoded answer (None where it is empty)."""
        url = f"/{VERSION}{path}"
        if query:
            texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
            url += "?" + urllib.parse.urlencode(texts)
        headers = {}
        data = raw
        if raw is not None:
            headers["Content-Type"] = "application/x-tar"
        elif body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        for last in (False, True):
            try:
                self._connection.request(method, url, data, headers)
                answer = self._connection.getresponse()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self._connection.close()
                if last:
                    raise
        content = answer.read()
        if answer.status >= 400:
            raise ApiError(method, path, answer.status, content)
        try:
            return json.loads(content) if content.strip() else None
        except ValueError:
            return content  # a progress stream, or the plain text of _ping

    def get(self, path, **query):
        return self.call("GET", path, **query)

    def post(self, path, body=None, **query):
        return self.call("POST", path, body, **query)

    def delete(self, path, **query):
        return self.call("DELETE", path, **query)

    def close(self):
        self._connection.close()


# The few things that several measures do.

def run_container(api, name, command, image="busybox:latest", **host):
    """Creates and starts a container; returns its identifier."""
    spec = {"Image": image, "Cmd": command, "HostConfig": host}
    made = api.post("/containers/create", spec, name=name)
    api.post(f"/containers/{made['Id']}/start")
    return made["Id"]


def service_spec(name, replicas, command, image="busybox:latest", networks=(), ports=()):
    """A replicated service as the API takes it."""
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "Command": command, "StopGracePeriod": 0},
            "Networks": [{"Target": n} for n in networks],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Ports": list(ports)},
    }


def running_tasks(api, name):
    """How many replicas of the service run, by the engine's own count."""
    for service in api.get("/services", filters={"name": [name]}, status="true"):
        if service["Spec"]["Name"] == name:
            return service["ServiceStatus"]["RunningTasks"]
    return 0
