#!/bin/bash
# Three nodes: moving replicas to a node that came back, logs of all nodes and what is missing of them, and what
# kubectl and docker reach on a node from another one.
. "$(dirname "$0")/lib.sh"
. "$LIB/_hosts.sh"
trap '[ "$FAILED" -eq 0 ] || node_logs; finish' EXIT

replicas() { on 1 docker service ls --filter name="$1" --format '{{.Replicas}}'; }
counts() { on 1 docker service ps -f desired-state=running --format '{{.Node}} {{.CurrentState}}' "$1" | awk '$2 == "Running" { n[$1]++ } END { for (h in n) print h, n[h] }' | sort | xargs; }
logs() { timeout -k 5 20 env DOCKER_HOST="unix://$WORK/h$1.sock" docker service logs "${@:2}"; }

step "Three nodes, two of them managers"
cluster_up 3 2
pool 1 quantum-game busybox

step "tripod rebalance"
check "a node is drained" says h3 -- on 1 docker node update --availability drain h3
check "a service" says '.' -- on 1 docker service create -d --name web --replicas 6 -p 8000:8080 spkane/quantum-game
soon 60 "runs on the others" prints "h1 3 h2 3" -- counts web
check "the node takes tasks again" says h3 -- on 1 docker node update --availability active h3
stays 3 "and nothing moves by itself" prints "h1 3 h2 3" -- counts web
check "what would move" says '^web\.[0-9] +h[12] -> h3$' '^2 would move\.$' -- inside 1 "$TRIPOD" rebalance --dry-run --host "unix://$WORK/h1.sock"
check "nothing moved" prints "h1 3 h2 3" -- counts web
(while [ ! -e "$WORK/enough" ]; do
  for n in 1 2 3; do curl -fsS -m 5 -o /dev/null "http://$(address $n):8000/" 2>>"$WORK/failed" && echo >>"$WORK/served"; done
done) &
CLIENT=$!
check "it moves" says '^2 to move' -- inside 1 "$TRIPOD" rebalance --host "unix://$WORK/h1.sock"
soon 60 "one by one" prints "h1 2 h2 2 h3 2" -- counts web
soon 20 "none is missing" prints 6/6 -- replicas web
touch "$WORK/enough"; wait "$CLIENT"
check "no request failed meanwhile" eval '[ ! -s "$WORK/failed" ] || { cat "$WORK/failed"; false; }'
check "of many" test "$(wc -l <"$WORK/served")" -gt 20
check "there is nothing more to move" prints "Nothing to move." -- inside 1 "$TRIPOD" rebalance --host "unix://$WORK/h1.sock"
check "that was no update" fails 'No such|UpdateStatus|<no value>|nil' -- on 1 docker service inspect -f '{{.UpdateStatus.State}}' web
check "as JSON, from the other manager" json '.moves == []' -- inside 2 "$TRIPOD" rebalance --dry-run --output json --host "unix://$WORK/h2.sock"
check "a worker says what it is" fails 'not a swarm manager' -- inside 3 "$TRIPOD" rebalance --host "unix://$WORK/h3.sock"
check "the service goes" says web -- on 1 docker service rm web

step "docker service logs"
check "a service on each node" says '.' -- on 1 docker service create -d --name talk --mode global busybox \
  sh -c 'echo "first of $(hostname)"; while sleep 1; do echo "more of $(hostname)"; done'
soon 60 "runs" prints 3/3 -- replicas talk
for n in 1 2; do
  soon 10 "logs of all nodes, asked at h$n" eval "says '@h1 +\\| first of' '@h2 +\\| first of' '@h3 +\\| first of' -- logs $n talk"
done
logs 2 -f --tail 0 talk >"$WORK/followed" 2>&1 &
FOLLOWER=$!
for h in h1 h2 h3; do soon 10 "that of $h is followed" grep -q "@$h .*more of" "$WORK/followed"; done
kill "$FOLLOWER"; wait "$FOLLOWER" 2>/dev/null
(timeout -k 5 120 env DOCKER_HOST="unix://$WORK/h1.sock" docker service logs -f talk >"$WORK/later" 2>&1) &
FOLLOWER=$!
check "a node joins later" eval 'host_up 4 && node_up 4'
check "it is a worker" says 'joined a swarm' -- on 4 docker swarm join --token "$(on 1 docker swarm join-token -q worker)" "$(address 1):2377"
soon 60 "and its task is followed too, from its beginning" grep -q '@h4 .*first of' "$WORK/later"
check "a node is cut off" unplug 3
soon 30 "what is missing is told" fails 'incomplete log stream' 'node [0-9a-z]{25} is not available' -- logs 1 talk
check "after what there is" says '@h2 +\| first of' -- eval 'logs 1 talk 2>/dev/null; true'
check "the node comes back" plug 3
soon 30 "nothing is missing" says '@h3 +\| more of' -- logs 1 talk
BEFORE=$(wc -l <"$WORK/later")
soon 30 "who followed hears of it again" eval 'tail -n +'"$BEFORE"' "$WORK/later" | grep -q "@h3 .*more of"'
kill "$FOLLOWER" 2>/dev/null; wait "$FOLLOWER" 2>/dev/null
check "no line came twice" eval '[ "$(grep -c "@h3 .*first of" "$WORK/later")" -eq 1 ]'

step "kubectl, by any manager"
if command -v kubectl >/dev/null; then
  KUBECTL=$(command -v kubectl)
  for n in 1 2; do
    check "a kubeconfig of h$n" eval "inside $n \"\$TRIPOD\" kubeconfig --data-root \"\$WORK/h$n/data\" >\"\$WORK/kubeconfig$n\""
  done
  kube() { inside "$1" env KUBECONFIG="$WORK/kubeconfig$1" "$KUBECTL" "${@:2}"; }
  check "a pod on the worker" says created -- kube 1 run far --image=busybox --restart=Never --overrides '{"spec": {"nodeName": "h3"}}' -- \
    sh -c 'mkdir /www; echo far >/www/index.html; echo ready; httpd -f -p 8080 -h /www'
  soon 60 "runs" prints Running -- kube 1 get pod far -o 'jsonpath={.status.phase}'
  for n in 1 2; do
    soon 10 "its log, at h$n" prints ready -- kube "$n" logs far
    check "a process in it, at h$n" prints far -- kube "$n" exec far -- hostname
    inside "$n" env KUBECONFIG="$WORK/kubeconfig$n" "$KUBECTL" port-forward --address 0.0.0.0 pod/far 9000:8080 >"$WORK/forward$n" 2>&1 &
    FORWARD=$!
    soon 10 "a port of it, at h$n" prints far -- get "http://$(address "$n"):9000/"
    kill "$FORWARD"; wait "$FORWARD" 2>/dev/null
  done
  check "the worker is cut off" unplug 3
  soon 30 "then its log cannot be had, and that is told" fails 'h3' -- kube 1 logs far
  check "it comes back" plug 3
  soon 30 "and the log is there" prints ready -- kube 2 logs far
else
  echo "# skipped: no kubectl"
fi
