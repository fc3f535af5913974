"""Three managers and a published service of four replicas under load: a node is lost, cut off, drained, restarted.

Clients on a neighbour fetch pages from nodes that stay, with a new connection for each request. What a node's loss may
cost is connections to its own replicas, and for a second those to it that others still make.
"""

import sys
import time

import _cluster
import _lib

REPLICAS = 4


def running(host):
    return int(host.docker("service", "ls", "--format", "{{.Replicas}}", "--filter", "name=web").split("/")[0])


def placed(host):
    """On which nodes replicas are to run, by name, once all do."""
    lines = host.docker("service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}").splitlines()
    nodes = [line.split()[0] for line in lines if " Running " in line]
    return nodes if len(nodes) == REPLICAS else []


def others(hosts, host):
    return [h for h in hosts if h is not host]


def ready(hosts):
    return all(node[0] == "Ready" for h in hosts for node in h.nodes().values()) and all(len(h.nodes()) == len(hosts) for h in hosts)


def spread(check, hosts):
    """Brings replicas onto every node again, which Swarm does not do by itself."""
    for replicas in (1, REPLICAS):
        hosts[0].docker("service", "scale", "-d=false", f"web={replicas}", timeout=120)
    check.soon(20, "replicas on every node", lambda: set(placed(hosts[0])) == {h.name for h in hosts}, lambda: placed(hosts[0]))


def lost(check, hosts, host, how):
    check.step(f"{host.name} is {how} under load")
    rest = others(hosts, host)
    with _cluster.Load(rest) as load:
        moment = time.monotonic()
        host.power_off() if how == "switched off" else host.cut()
        away = lambda: host.name not in placed(rest[0]) and placed(rest[0])
        check.soon(30, "its replicas are replaced elsewhere", away, lambda: rest[0].docker("service", "ps", "web"))
        print(f"    after {time.monotonic() - moment:.1f} s")
        time.sleep(1)
    load.lost_only_before(check, how, moment, 1)
    if how == "switched off":
        host.power_on()
        host.start()
    else:
        host.cut(False)
    check.soon(30, "it returns", lambda: ready(hosts), lambda: [h.nodes() for h in hosts])
    check.soon(20, "nothing runs twice", lambda: sum(h.containers() for h in hosts) == REPLICAS and running(rest[0]) == REPLICAS,
               lambda: [h.docker("ps") for h in hosts])


def restarts(check, hosts):
    check.step("All daemons are restarted, one after the other")
    before = {c["Id"] for h in hosts for c in h.get("/containers/json").json}
    with _cluster.Load(hosts, 24) as load:
        for host in hosts:
            check(f"{host.name} ends in order", host.stop() == 0)
            host.start()
            check.soon(20, f"{host.name} is there again", lambda: ready(hosts), lambda: [h.nodes() for h in hosts])
        time.sleep(1)
    load.none_lost(check, "restarts")
    check("no container was started again", before == {c["Id"] for h in hosts for c in h.get("/containers/json").json})


def drained(check, hosts):
    check.step("A node is drained")
    host = hosts[1]
    with _cluster.Load(hosts, 24) as load:
        hosts[0].docker("node", "update", "--availability", "drain", host.name)
        check.soon(30, "its replicas run elsewhere", lambda: placed(hosts[0]) and host.name not in placed(hosts[0]), lambda: placed(hosts[0]))
        check.soon(30, "and none is left there", lambda: host.containers() == 0)
        time.sleep(1)
    load.none_lost(check, "drain")
    hosts[0].docker("node", "update", "--availability", "active", host.name)


def walk(check, hosts):
    hosts += _cluster.cluster(3, 0, "quantum-game")
    hosts[0].docker("service", "create", "--name", "web", "--replicas", str(REPLICAS), "-d=false", "-q", "-p", f"{_cluster.PORT}:8080",
                    "--update-monitor", "300ms", "--update-order", "start-first", "spkane/quantum-game", timeout=120)
    check.soon(20, "replicas on every node", lambda: set(placed(hosts[0])) == {h.name for h in hosts}, lambda: placed(hosts[0]))
    restarts(check, hosts)
    drained(check, hosts)
    spread(check, hosts)
    leader = _cluster.leader_of(hosts)
    lost(check, hosts, next(h for h in hosts if h is not leader), "switched off")
    spread(check, hosts)
    leader = _cluster.leader_of(hosts)
    lost(check, hosts, next(h for h in hosts if h is not leader), "cut off")
    hosts[0].docker("service", "rm", "web")
    check.soon(20, "no container is left", lambda: sum(h.containers() for h in hosts) == 0)


if __name__ == "__main__":
    sys.exit(_cluster.main(walk))
