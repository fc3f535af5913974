#!/bin/bash
# Images of a cluster: what is loaded on one node runs on all of them, without any registry.
. "$(dirname "$0")/lib.sh"
. "$LIB/_hosts.sh"
trap '[ "$FAILED" -eq 0 ] || node_logs; finish' EXIT

replicas() { on 1 docker service ls --filter name="$1" --format '{{.Replicas}}'; }
nodes_of() { on 1 docker service ps -f desired-state=running --format '{{.Node}} {{.CurrentState}}' "$1" | awk '$2 == "Running" { print $1 }' | sort -u | xargs; }
image_id() { on "$1" docker image inspect -f '{{.Id}}' "$2"; }
kube() { inside 1 env KUBECONFIG="$WORK/kubeconfig" "$(command -v kubectl)" "$@"; }

step "A cluster of two, an image on one of them"
cluster_up 2 1
pool 1 quantum-game busybox
check "the other does not have it" fails 'No such image' -- on 2 docker image inspect spkane/quantum-game

step "A Swarm service"
check "a service with four replicas" says '.' -- on 1 docker service create -d --name quantum --replicas 4 spkane/quantum-game
soon 60 "all run" prints 4/4 -- replicas quantum
check "on both nodes" prints "h1 h2" -- nodes_of quantum
check "the other node has the same image now" same "$(image_id 1 spkane/quantum-game)" "$(image_id 2 spkane/quantum-game)"
check "and the same digests of layers" same "$(on 1 docker image inspect -f '{{.RootFS.Layers}}' spkane/quantum-game)" "$(on 2 docker image inspect -f '{{.RootFS.Layers}}' spkane/quantum-game)"
check "it was taken over once" same 1 "$(grep -c 'quantum-game:latest is taken over from another node' "$WORK/h2/daemon.log")"
check "no task failed on the way" same 4 "$(on 1 docker service ps -q quantum | wc -l)"

step "An image that a worker has"
check "made there" says '.' -- eval 'tar -C "$LIB" -c lib.sh | on 2 docker import --change "CMD [\"/sh\"]" - only/there:1'
check "another, of a container" says '.' -- eval 'on 2 docker pull busybox >/dev/null 2>&1; on 1 docker save busybox | on 2 docker load'
check "with changes" says '.' -- eval 'on 2 docker run --name changed busybox touch /mark && on 2 docker commit changed mine:2 && on 2 docker rm changed'
check "a service of it, on the manager" says '.' -- on 1 docker service create -d --name mine --constraint node.role==manager mine:2 sh -c 'ls /mark && sleep 3600'
soon 60 "runs there" prints 1/1 -- replicas mine
check "from the worker's changes" says '^/mark$' -- on 1 eval 'docker exec $(docker ps -qf name=mine.1) ls /mark'

step "An image that nobody has"
check "a service of it" says '.' -- on 1 docker service create -d --name none --restart-condition none nobody/has:it
soon 20 "its task says so" says 'Rejected' 'No such image: nobody/has:it' -- on 1 docker service ps --no-trunc --format '{{.CurrentState}} {{.Error}}' none
check "an image that is the other node's is no image of docker run" fails 'nable to find image|No such image|pull' -- on 1 docker run --rm only/there:1

step "A worker may have what its pods want, and nothing else"
check "the worker has not taken what it does not run" fails 'No such image' -- on 1 docker image inspect only/there:1

step "Pods"
if command -v kubectl >/dev/null; then
  check "a kubeconfig" eval 'inside 1 "$TRIPOD" kubeconfig --data-root "$WORK/h1/data" >"$WORK/kubeconfig"'
  pod() { kube run "$1" --image="$2" --image-pull-policy="$3" --restart=Never --overrides "{\"spec\": {\"nodeName\": \"$4\"}}" -- "${@:5}"; }
  check "IfNotPresent, elsewhere" says created -- pod absent mine:2 IfNotPresent h2 sleep 3600
  on 2 docker rmi -f spkane/quantum-game >/dev/null 2>&1
  check "IfNotPresent, on the manager only" says created -- pod present busybox:latest IfNotPresent h1 sleep 3600
  check "the worker imports one" says '.' -- eval 'on 1 docker save busybox | on 2 docker load && on 2 docker tag busybox other:1 && on 2 docker tag busybox other:2'
  check "IfNotPresent, on the worker only" says created -- pod taken other:1 IfNotPresent h1 sleep 3600
  check "Always, no registry answers" says created -- pod always other:2 Always h1 sleep 3600
  check "the worker commits one" says '.' -- eval 'on 2 docker run --name again busybox touch /two && on 2 docker commit again other:3 && on 2 docker rm again'
  check "Never means here" says created -- pod never other:3 Never h1 sleep 3600
  for name in absent present taken always; do soon 60 "$name runs" prints Running -- kube get pod "$name" -o 'jsonpath={.status.phase}'; done
  soon 20 "never waits" prints ErrImageNeverPull -- kube get pod never -o 'jsonpath={.status.containerStatuses[0].state.waiting.reason}'
  check "and nothing was taken over for it" fails 'No such image' -- on 1 docker image inspect other:3
else
  echo "# skipped: no kubectl"
fi

step "A node that goes while its image is needed"
check "an image of 96 MB of noise on the worker" says '.' -- eval 'mkdir "$WORK/noise" && head -c 96M /dev/urandom >"$WORK/noise/data" && tar -C "$WORK/noise" -c data | on 2 docker import - noise:1'
check "its holder is cut off" unplug 2
check "a service of it" says '.' -- on 1 docker service create -d --name noise --constraint node.hostname==h1 --restart-delay 1s noise:1 /nothing
soon 40 "its task fails with a reason" says 'No such image: noise:1' -- on 1 docker service ps --no-trunc --format '{{.Error}}' noise
check "the holder comes back" plug 2
soon 60 "and the image is fetched" says '^sha256:' -- image_id 1 noise:1
check "whole" same "$(image_id 2 noise:1)" "$(image_id 1 noise:1)"

step "A worker that joins later"
check "h3 starts" eval 'host_up 3 && node_up 3'
check "and joins" says 'joined a swarm' -- on 3 docker swarm join --token "$(on 1 docker swarm join-token -q worker)" "$(address 1):2377"
check "a global service of an image that others have" says '.' -- on 1 docker service create -d --name everywhere --mode global busybox:latest sleep 3600
soon 60 "runs on it too" prints "h1 h2 h3" -- nodes_of everywhere
