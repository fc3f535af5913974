#!/bin/bash
# Local clusters by tripod's own commands: nodes added and taken away, files and images, settings, and all of it again
# after a stop.
. "$(dirname "$0")/lib.sh"
cd "$LIB" || exit
export TRIPOD_HOME=$WORK/clusters KUBECONFIG=$WORK/kube DOCKER_CONFIG=$WORK/docker
tripod() { timeout -k 5 "${LIMIT:-90}" "$TRIPOD" "$@"; }
inside() { timeout 60 docker -H "unix://$TRIPOD_HOME/tripod/tripod/nodes/tripod/docker.sock" "$@"; }

settings() {
  step "Settings"
  check "amounts are checked" fails 'memory .*unknown unit' -- tripod config set memory 2x
  check "a setting is kept" tripod config set nodes 2
  check "and told" says '^2$' -- tripod config get nodes
  check "a setting that is none" fails 'no setting "colour".*nodes' -- tripod config set colour red
  check "a number that is none" fails 'nodes takes a number' -- tripod config set nodes many
  check "add-ons are built in" says 'dashboard +enabled' -- tripod addons list
  check "and cannot be disabled" fails 'built in' -- tripod addons disable dashboard
  check "an add-on that is none" fails 'no add-on' -- tripod addons enable nonsense
}

limits() {
  step "Nodes with a part of the machine"
  local group
  check "more processors than there are" fails 'cpu count 999 .*available cpus' -- tripod start --name part --cpus 999
  check "more memory than there is" fails 'memory allocation .* more than your system' -- tripod start --name part --memory 999t
  check "neither leaves anything" json '. == []' -- tripod profile list --output json
  check "a cluster with a part" says 'is ready' -- tripod start --name part --cpus 1 --memory 512m || return
  part() { timeout 60 docker -H "unix://$TRIPOD_HOME/tripod/part/nodes/part/docker.sock" "$@"; }
  check "docker says so" prints "1000000000 $((512 << 20))" -- part node inspect part -f '{{.Description.Resources.NanoCPUs}} {{.Description.Resources.MemoryBytes}}'
  check "and of the engine" prints "1 $((512 << 20))" -- part info -f '{{.NCPU}} {{.MemTotal}}'
  check "kubectl too" prints "1 524288Ki" -- kubectl get node part -o 'jsonpath={.status.capacity.cpu} {.status.capacity.memory}'
  tripod image load "$TRIPOD_IMAGES/busybox.tar" --name part >/dev/null
  check "a container does not get more processors" fails 'there are only 1 CPUs' -- part run --rm --cpus 2 busybox true
  check "nor all containers more memory" exits 137 -- part run --rm busybox tail -c 700m /dev/zero
  kubectl run big --image=busybox --image-pull-policy=Never --restart=Never --overrides='{"spec":{"containers":[{"name":"big","image":"busybox","imagePullPolicy":"Never","command":["true"],"resources":{"requests":{"cpu":"1500m"}}}]}}' >/dev/null
  soon 15 "a pod that asks for more waits, and is told why" says 'Insufficient cpu' -- kubectl describe pod big
  kubectl delete pod big --now >/dev/null
  kubectl run wide --image=busybox --restart=Never --overrides='{"spec":{"containers":[{"name":"wide","image":"busybox","imagePullPolicy":"Never","command":["true"],"resources":{"limits":{"cpu":"4"},"requests":{"cpu":"100m"}}}]}}' >/dev/null
  soon 30 "one that may use more than there is runs" says 'Succeeded' -- kubectl get pod wide -o 'jsonpath={.status.phase}'
  check "changing them later is refused" fails 'cannot be changed' -- tripod start --name part --cpus 2
  check "it is deleted" tripod delete --name part
  group=$(find /sys/fs/cgroup -type d -name 'tripod-*')
  check "nothing is left of its cgroup" same '' "$group"
}

nodes() {
  step "Nodes"
  check "a cluster of two, as the setting says" json '.nodes | length == 2' -- tripod start --output json || exit
  check "it is listed" json '.[0] | .name == "tripod" and .nodes == 2 and .status == "Running"' -- tripod profile list --output json
  check "a node is added" says 'Node tripod-m03 is ready' -- tripod node add
  check "it is listed" json 'length == 3 and .[2].host == "Running" and .[2].role == "worker"' -- tripod node list --output json
  soon 10 "kubectl sees it" says 'tripod-m03 +Ready' -- kubectl get nodes
  check "it is deleted" says 'deleted' -- tripod node delete tripod-m03
  check "docker sees it no more" lacks tripod-m03 -- inside node ls
  check "the first node stays" fails "first node" -- tripod node delete tripod
  check "a node that is none" fails 'nowhere' -- tripod node delete nowhere
}

files() {
  step "Files and images"
  mkdir -p "$WORK/folder"; echo word >"$WORK/folder/a"
  check "a folder goes to a node" tripod cp "$WORK/folder" tripod-m02:/srv/folder
  check "it is there" says '^word$' -- tripod ssh -n tripod-m02 -- cat /srv/folder/a
  check "and back" tripod cp tripod-m02:/srv/folder/a "$WORK/back"
  check "unchanged" says '^word$' -- cat "$WORK/back"
  check "a relative path on a node" fails 'begins with a slash' -- tripod cp "$WORK/back" tripod:a
  check "an image is loaded" says 'Loaded image: busybox:latest' -- tripod image load "$TRIPOD_IMAGES/busybox.tar"
  check "it is listed on all nodes" json 'any(.name == "busybox:latest" and (.nodes | length == 2))' -- tripod image ls --output json
  check "it is removed" says 'Removed image: busybox:latest' -- tripod image rm busybox
  check "it is gone" json 'any(.name == "busybox:latest") | not' -- tripod image ls --output json
  check "an image that is nowhere" fails 'no node has' -- tripod image rm nowhere
}

again() {
  step "Stop and start"
  tripod image load "$TRIPOD_IMAGES/quantum-game.tar" >/dev/null
  local i
  for i in {1..20}; do inside service create -d -q --name "s$i" -p "$((18000 + i)):8080" spkane/quantum-game >/dev/null 2>&1 || exit; done
  ADDRESS=$(tripod ip)
  soon 60 "twenty services answer" all_answer
  check "the cluster stops" says 'is stopped' -- tripod stop
  check "it is told as stopped" json '.[0].status == "Stopped"' -- tripod profile list --output json
  check "it starts" says 'is ready' -- tripod start
  soon 20 "all twenty answer again" all_answer
  check "the files of the node stay" says '^word$' -- tripod ssh -n tripod-m02 -- cat /srv/folder/a
  check "it is deleted" says 'is deleted' -- tripod delete
  check "no cluster is left" json '. == []' -- tripod profile list --output json
}
all_answer() { local i; for i in {1..20}; do curl -sfm 2 "http://$ADDRESS:$((18000 + i))/" -o /dev/null || return 1; done; }

settings
limits
nodes
files
again
