#!/bin/bash
# Pods from their PodSpec on one node: init containers and sidecars, volumes and their updates, environment, users,
# probes, host ports, crashes, adoption by the next daemon, and that nothing is left of them.
. "$(dirname "$0")/lib.sh"
[ "$ENGINE" = tripod ] || { check "only for tripod" true; exit; }

need_daemon
export KUBECONFIG=$DATA/kube/admin.conf
k() { timeout -k 5 60 kubectl "$@"; }
main() { k exec big -c main -- "$@"; }
state() { k get pod "$1" -o jsonpath="{.status.containerStatuses[0]$2}"; }

step "pods start"
docker load -qi "$TRIPOD_IMAGES/busybox.tar" >/dev/null
docker load -qi "$TRIPOD_IMAGES/quantum-game.tar" >/dev/null
check "a cluster is made" docker swarm init --advertise-addr 192.0.2.1
soon 10 "the default service account is there" k get serviceaccount default
check "they are created" k apply -f "$LIB/pods.yaml"
check "they get ready" k wait --for=condition=Ready pod/big pod/web --timeout=30s
check "user and groups" says 'uid=1000 gid=0.*2000,3000' '^from-init$' -- k logs big -c main
check "environment" says '^TEXT=red-open$' '^CPU=500$' '^KUBERNETES_SERVICE_HOST=' -- main env
check "a part of a volume" prints hello -- main cat /one.txt
check "the downward API" says 'app="big"' -- main cat /labels/labels
check "modes of secrets" says '^440 2000$' -- main stat -L -c '%a %g' /pass/word
check "memory" says 'tmpfs on /memory .*size=16384k' -- main mount
check "the handler after the start ran" prints post -- main cat /memory/post
check "the root cannot be written" fails 'Read-only' -- main touch /x
check "aliases of hosts" says '1.2.3.4.*foo.test' -- main cat /etc/hosts
check "a status from exec" exits 3 -- main sh -c 'exit 3'

step "changes reach running pods"
check "the ConfigMap changes" k patch configmap settings -p '{"data":{"colour":"blue"}}'
soon 5 "its file follows" prints blue -- main cat /settings/colour

step "network"
check "the pod answers" get "http://$(k get pod web -o jsonpath='{.status.podIP}'):8080/"
check "its host port answers" get http://192.0.2.1:18080/

step "crashes"
soon 10 "back-off" prints CrashLoopBackOff -- state crash .state.waiting.reason
check "exit status" prints 3 -- state crash .lastState.terminated.exitCode
check "termination message" prints oops -- state crash .lastState.terminated.message
check "the previous log" prints run -- k logs crash --previous

step "a killed daemon"
daemon_kill
check "the daemon gets ready again" daemon_up
soon 10 "containers are adopted" prints 0 -- state big .restartCount
soon 10 "they can be used" prints blue -- main cat /settings/colour

step "the end"
check "pods are deleted" k delete pod --all --grace-period=2
soon 5 "no container is left" prints '' -- docker ps -aq
soon 5 "no file is left" prints '' -- ls "$DATA/node/pods"
