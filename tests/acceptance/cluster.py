"""Managers that agree: joining, promotion and demotion, loss of the leader, partitions, locks, recovery.

Three managers and a worker, each on a host of its own, and the real docker client.
"""

import subprocess
import sys
import time

import _cluster
import _lib

NO_LEADER = "does not have a leader"


def refused(host, *arguments, stdin=None):
    """What the client says of a command that fails; empty when it succeeds."""
    done = subprocess.run(["docker", "-H", host.url, *arguments], capture_output=True, text=True, timeout=60, input=stdin or "")
    return done.stderr + done.stdout if done.returncode else ""


def reachable(host, count):
    """Whether so many managers are ready and answer, one of them leading."""
    managers = [node for node in host.nodes().values() if node[2]]
    return (len(managers) == count and all(node[0] == "Ready" for node in managers)
            and sorted(node[2] for node in managers) == ["Leader"] + ["Reachable"] * (count - 1))


def membership(check, hosts):
    check.step("Roles")
    h1, h2, h3, h4 = hosts
    check.soon(10, "three managers and a worker", lambda: all(reachable(h, 3) for h in (h1, h2, h3)) and h2.nodes()["h4"][0] == "Ready",
               lambda: [h.nodes() for h in hosts[:3]])
    token = h1.docker("swarm", "join-token", "-q", "worker")
    check("a worker shows nothing of the cluster", "Worker nodes can't be used" in refused(h4, "node", "ls"))
    check("a member does not join again", "already part of a swarm" in refused(h4, "swarm", "join", "--token", token, h1.address))
    check("a node that is up is not removed", "is not down and can't be removed" in refused(h1, "node", "rm", "h4"))
    check("nor is a manager", "is a cluster manager and is a member of the raft cluster" in refused(h1, "node", "rm", "h2"))
    h2.docker("node", "promote", "h4")
    check.soon(15, "a worker becomes a manager", lambda: reachable(h4, 4), h4.nodes)
    h4.docker("node", "demote", "h4")
    check.soon(15, "and a worker again, by its own word", lambda: h1.nodes()["h4"] == ("Ready", "Active", "") and not h4.nodes(), h1.nodes)
    for by_itself in (True, False):
        leader = _cluster.leader_of([h1, h2, h3])
        rest = [h for h in (h1, h2, h3) if h is not leader]
        began = time.monotonic()
        (leader if by_itself else rest[0]).docker("node", "demote", leader.name)
        who = "itself" if by_itself else "another"
        check.soon(20, f"the leader is demoted by {who}", lambda: rest[0].nodes()[leader.name] == ("Ready", "Active", "")
                   and reachable(rest[1], 2) and not leader.nodes(), rest[0].nodes)
        print(f"    took {time.monotonic() - began:.1f} s")
        rest[0].docker("node", "promote", leader.name)
        check.soon(20, "and promoted again", lambda: all(reachable(h, 3) for h in (h1, h2, h3)), rest[0].nodes)
    leader = _cluster.leader_of([h1, h2, h3])
    again = next(h for h in (h1, h2, h3) if h is not leader)
    again.docker("swarm", "leave", "--force")
    check.soon(15, "a manager that leaves is down", lambda: leader.nodes()[again.name][0] == "Down", leader.nodes)
    # Its standing may change at the same moment, and then the client is asked to say it again.
    check.soon(10, "can be demoted", lambda: not refused(leader, "node", "demote", again.name), lambda: refused(leader, "node", "demote", again.name))
    check.soon(10, "and can be removed", lambda: not refused(leader, "node", "rm", again.name), lambda: refused(leader, "node", "rm", again.name))
    manager_token = leader.docker("swarm", "join-token", "-q", "manager")
    wrong = manager_token[:-4] + "zzzz"
    check("a wrong token is refused", "A valid join token is necessary" in refused(again, "swarm", "join", "--token", wrong, leader.address))
    check("a node does not join itself", refused(again, "swarm", "join", "--token", manager_token, again.address))
    leader.docker("swarm", "join-token", "--rotate", "-q", "manager")
    check("a token that was replaced is refused",
          "A valid join token is necessary" in refused(again, "swarm", "join", "--token", manager_token, leader.address))
    manager_token = leader.docker("swarm", "join-token", "-q", "manager")
    again.docker("swarm", "join", "--token", manager_token, leader.address)
    check.soon(15, "it joins anew", lambda: all(reachable(h, 3) for h in (h1, h2, h3)), leader.nodes)


def loss_of_the_leader(check, hosts):
    check.step("The leader is killed under 16 writers")
    managers = hosts[:3]
    leader = _cluster.leader_of(managers)
    rest = [h for h in managers if h is not leader]
    with _cluster.Writers(rest) as writers:
        killed = time.monotonic()
        leader.kill()
        time.sleep(5)
    kept = {c["Spec"]["Name"] for c in rest[0].get("/configs").json}
    lost = [name for _, name in writers.acknowledged if name not in kept]
    gap = writers.gap(killed)
    print(f"    {len(writers.acknowledged)} writes, gap {gap:.2f} s, {dict(writers.errors)}")
    check("no acknowledged write is lost", not lost and len(writers.acknowledged) > 50, lost[:5])
    check("writes go on within 3 s", gap <= 3, f"{gap:.2f} s")
    check("none is refused but those that were with the leader", sum(writers.errors.values()) <= 16
          and all(NO_LEADER in text for text in writers.errors), writers.errors)
    check.soon(15, "its loss is seen", lambda: rest[0].nodes()[leader.name][2] == "Unreachable", rest[0].nodes)
    leader.start()
    check.soon(15, "it returns and follows", lambda: all(reachable(h, 3) for h in managers), leader.nodes)
    names = lambda host: sorted(c["Spec"]["Name"] for c in host.get("/configs").json)
    check.soon(10, "with what was written meanwhile", lambda: names(leader) == names(rest[0]))


def partition(check, hosts, which):
    check.step(f"The {which} is cut off")
    managers = hosts[:3]
    leader = _cluster.leader_of(managers)
    alone = leader if which == "leader" else next(h for h in managers if h is not leader)
    rest = [h for h in managers if h is not alone]
    before = rest[0].get("/configs").json
    alone.cut()
    said = refused(alone, "config", "create", f"lost-{which}", "-", stdin="x")
    if "could not be reached" in said:  # it did not know yet: nobody can say what becomes of that write
        said = refused(alone, "config", "create", f"lost-{which}", "-", stdin="x")
    check("the minority refuses writes", NO_LEADER in said, said)
    check("the majority takes them", _lib.eventually(10, _cluster.quietly(lambda: not refused(rest[0], "config", "create", f"kept-{which}", "-", stdin="x"))))
    said = refused(alone, "node", "ls")
    print(f"    the minority says of `node ls`: {said.strip()[-120:] or 'nothing'}")
    check.soon(10, "and sees the other as unreachable", lambda: rest[1].nodes()[alone.name][2] == "Unreachable", rest[1].nodes)
    alone.cut(False)
    check.soon(20, "together again", lambda: all(reachable(h, 3) for h in managers), alone.nodes)
    names = {c["Spec"]["Name"] for c in alone.get("/configs").json}
    check.soon(10, "all agree on what was written", lambda: len({str(sorted(c["Spec"]["Name"] for c in h.get("/configs").json)) for h in managers}) == 1)
    check("nothing more than that", f"lost-{which}" not in names and len(rest[0].get("/configs").json) == len(before) + 1, sorted(names)[:5])


def locks(check, hosts):
    check.step("A locked manager")
    h1, h2, h3 = hosts[:3]
    h1.docker("swarm", "update", "--autolock=true")
    key = h2.docker("swarm", "unlock-key", "-q")
    check("there is a key", key.startswith("SWMKEY-1-"), key)
    h3.stop()
    h3.start()
    check("a manager that was started again is locked", h3.docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "locked")
    check("and says so", "needs to be unlocked" in refused(h3, "node", "ls"))
    check("a wrong key is refused", "invalid key" in refused(h3, "swarm", "unlock", stdin="SWMKEY-1-" + "A" * 43 + "\n"))
    check("the right one is not", not refused(h3, "swarm", "unlock", stdin=key + "\n"))
    check.soon(15, "it follows again", lambda: all(reachable(h, 3) for h in hosts[:3]), h3.nodes)
    h1.docker("swarm", "update", "--autolock=false")


def recovery(check, hosts):
    check.step("Two of three managers are lost for good")
    h1, h2, h3, h4 = hosts
    names = lambda: {c["Spec"]["Name"] for c in h1.get("/configs").json}
    before = names()
    h2.power_off()
    h3.power_off()
    said = refused(h1, "config", "create", "late", "-", stdin="x")
    # A leader has it in its log already, and does not know what becomes of it.
    check("a minority acknowledges nothing", NO_LEADER in said or "too few managers answer" in said, said)
    h1.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", h1.address)
    check.soon(10, "the cluster goes on with one", lambda: h1.nodes()["h1"][2] == "Leader", h1.nodes)
    check("with all that was written", names() >= before)
    check.soon(20, "the worker finds it", lambda: h1.nodes()["h4"][0] == "Ready", h1.nodes)
    check.soon(20, "the lost ones are down", lambda: h1.nodes()["h2"][0] == h1.nodes()["h3"][0] == "Down", h1.nodes)
    check("the last manager stays one", "attempting to demote the last manager" in refused(h1, "node", "demote", "h1"))
    h1.post("/configs/create", {"Name": "after", "Data": "eA==", "Labels": {}})
    check("it takes writes", "after" in names())


def walk(check, hosts):
    hosts += _cluster.cluster(3, 1)
    membership(check, hosts)
    loss_of_the_leader(check, hosts)
    partition(check, hosts, "leader")
    partition(check, hosts, "follower")
    locks(check, hosts)
    recovery(check, hosts)


if __name__ == "__main__":
    sys.exit(_cluster.main(walk))
