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
  check "add-ons are built in" says 'dashboard +enabled' -- tripod addons list
  check "and cannot be disabled" fails 'built in' -- tripod addons disable dashboard
  check "an add-on that is none" fails 'no add-on' -- tripod addons enable nonsense
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
  check "a folder is mounted on both nodes" says 'tripod, tripod-m02' -- tripod mount "$WORK/folder:/own" --read-only
  check "it is there" prints word -- tripod ssh -n tripod-m02 -- cat /own/a
  check "not for writing" fails 'Read-only' -- tripod ssh -- 'echo x >/own/a'
  check "not twice" fails 'is a mount already' -- tripod mount "$WORK/folder:/own"
  check "a second one" tripod mount "$WORK/folder:/second" -n tripod
  check "is taken away" says 'taken away' -- tripod mount --remove /second -n tripod
  check "and is gone" fails -- tripod ssh -- ls /second/a
  check "a relative path on a node" fails 'begins with a slash' -- tripod cp "$WORK/back" tripod:a
  check "an image is loaded" says 'Loaded image: busybox:latest' -- tripod image load "$TRIPOD_IMAGES/busybox.tar"
  check "it is listed on all nodes" json 'any(.name == "busybox:latest" and (.nodes | length == 2))' -- tripod image ls --output json
  check "it is removed" says 'Removed image: busybox:latest' -- tripod image rm busybox
  check "it is gone" json 'any(.name == "busybox:latest") | not' -- tripod image ls --output json
  check "an image that is nowhere" fails 'no node has' -- tripod image rm nowhere
}

registry() {
  step "A registry whose images every node has"
  local api=http://localhost:5005/v2 digest answer
  check "the add-on is off" json '.registry.Status == "disabled"' -- tripod addons list -o json
  check "it is opened" says 'answers at localhost:5005' -- tripod registry --port 5005 || return
  check "the add-on is on" json '.registry.Status == "enabled"' -- tripod addons list -o json
  check "it speaks the API" says 'HTTP/1.1 200' 'registry/2.0' -- curl -si "$api/"
  check "nothing is in it" prints '{"repositories":[]}' -- curl -s "$api/_catalog"
  tripod image load "$TRIPOD_IMAGES/busybox.tar" >/dev/null
  inside tag busybox localhost:5005/team/tool:v1
  check "an image is pushed" says 'v1: digest: sha256:' -- inside push localhost:5005/team/tool:v1
  check "it is listed" prints '{"repositories":["team/tool"]}' -- curl -s "$api/_catalog"
  check "with its tag" prints '{"name":"team/tool","tags":["v1"]}' -- curl -s "$api/team/tool/tags/list"
  digest=$(curl -sI "$api/team/tool/manifests/v1" | tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }')
  check "the manifest is what its digest says" same "${digest#sha256:}" "$(curl -s "$api/team/tool/manifests/$digest" | sha256sum | cut -d' ' -f1)"
  inside rmi -f localhost:5005/team/tool:v1 >/dev/null
  check "what docker removes is gone from it" says MANIFEST_UNKNOWN -- curl -s "$api/team/tool/manifests/v1"
  # Another engine on this machine pushes what the cluster has not.
  daemon_up --insecure-registry localhost:5005 || return
  tar -C "$WORK/folder" -cf "$WORK/thing.tar" a
  check "an engine of this machine has an image" says sha256 -- docker import -c 'CMD ["/a"]' "$WORK/thing.tar" localhost:5005/other/thing:1
  check "and pushes it" says '1: digest: sha256:' -- docker push localhost:5005/other/thing:1
  check "the cluster has it at once" says 'localhost:5005/other/thing' -- inside images
  docker load -i "$TRIPOD_IMAGES/busybox.tar" >/dev/null
  docker tag busybox localhost:5005/tools/box:2
  check "another" says 'digest' -- docker push localhost:5005/tools/box:2
  kubectl run far --image=localhost:5005/tools/box:2 --restart=Never --overrides='{"spec":{"nodeName":"tripod-m02"}}' -- echo far >/dev/null
  soon 30 "a pod on another node runs it" says Succeeded -- kubectl get pod far -o 'jsonpath={.status.phase}'
  kubectl delete pod far --now >/dev/null
  docker rmi -f localhost:5005/tools/box:2 >/dev/null
  check "the engine pulls it again" says 'Downloaded newer image' -- docker pull localhost:5005/tools/box:2
  check "what is not there" fails 'not found|manifest unknown' -- docker pull localhost:5005/tools/none
  answer=$(curl -s -X POST -o /dev/null -w '%header{location}' "$api/raw/x/blobs/uploads/")
  check "bytes are taken in pieces" says '202' -- curl -s -X PATCH --data-binary hello -o /dev/null -w '%{http_code}' "http://localhost:5005$answer"
  check "out of order they are not" says 'RANGE_INVALID' -- curl -s -X PATCH -H 'Content-Range: 9-12' --data-binary oops "http://localhost:5005$answer"
  check "a digest that is not theirs" says 'DIGEST_INVALID' -- curl -s -X PUT "http://localhost:5005$answer?digest=sha256:$(printf '0%.0s' {1..64})"
  check "a manifest whose blobs are missing" says 'MANIFEST_BLOB_UNKNOWN' -- curl -s -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' "$api/raw/x/manifests/v1" \
    -d "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"size\":1,\"digest\":\"sha256:$(printf '1%.0s' {1..64})\"},\"layers\":[]}"
  check "a name that is none" says 'NAME_INVALID' -- curl -s "$api/UPPER/tags/list"
  check "an artifact that is no image" artifact "$api"
  check "a port in use is said" fails 'cannot listen on 127.0.0.1:.*--port' -- tripod registry --port "$(busy_port)"
  check "it is closed" says closed -- tripod addons disable registry
  check "nobody answers" fails -- curl -s -m 2 "$api/"
  check "it is opened again" says 5005 -- tripod registry --port 5005
  daemon_down
}
busy_port() { python3 -c 'import socket,os,sys
s=socket.create_server(("127.0.0.1",0)); print(s.getsockname()[1], flush=True)
if os.fork()==0:
    import time; sys.stdout.close(); os.close(1); time.sleep(15)'; }
# artifact API: a chart is pushed as it is, and comes back so; what is about it is listed
artifact() {
  local api=$1 digest blob document
  blob=$(printf '{}' | sha256sum | cut -d' ' -f1)
  curl -sf -X POST --data-binary '{}' "$api/chart/blobs/uploads/?digest=sha256:$blob" || return
  document="{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.cncf.helm.config.v1+json\",\"size\":2,\"digest\":\"sha256:$blob\"},\"layers\":[]}"
  curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "$document" "$api/chart/manifests/1.0" || return
  same "$document" "$(curl -sf "$api/chart/manifests/1.0")" || return
  digest=sha256:$(printf %s "$document" | sha256sum | cut -d' ' -f1)
  document="${document%\}},\"subject\":{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"size\":1,\"digest\":\"$digest\"},\"artifactType\":\"application/sig\"}"
  curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "$document" "$api/chart/manifests/sig" || return
  same application/sig "$(curl -sf "$api/chart/referrers/$digest" | jq -r '.manifests[0].artifactType')" || return
  curl -sf -X DELETE "$api/chart/manifests/$digest" || return
  ! curl -sf "$api/chart/manifests/1.0"
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
  check "the registry is there again" says tools/box -- curl -s http://localhost:5005/v2/_catalog
  check "the mount is there again" prints word -- tripod ssh -n tripod-m02 -- cat /own/a
  check "the files of the node stay" says '^word$' -- tripod ssh -n tripod-m02 -- cat /srv/folder/a
  check "it is deleted" says 'is deleted' -- tripod delete
  check "no cluster is left" json '. == []' -- tripod profile list --output json
}
all_answer() { local i; for i in {1..20}; do curl -sfm 2 "http://$ADDRESS:$((18000 + i))/" -o /dev/null || return 1; done; }

settings
limits
nodes
files
registry
again
