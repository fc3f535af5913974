#!/bin/bash
# Called as minikube and kind: their options, output forms and exit statuses.
. "$(dirname "$0")/lib.sh"
cd "$LIB" || exit
export TRIPOD_HOME=$WORK/clusters KUBECONFIG=$WORK/kube DOCKER_CONFIG=$WORK/docker SHELL=/bin/bash
mkdir -p "$WORK/bin" "$WORK/folder"
ln -s "$TRIPOD" "$WORK/bin/minikube"
ln -s "$TRIPOD" "$WORK/bin/kind"
minikube() { timeout -k 5 "${LIMIT:-90}" "$WORK/bin/minikube" "$@"; }
kind() { timeout -k 5 "${LIMIT:-90}" "$WORK/bin/kind" "$@"; }
first() { timeout 60 docker -H "unix://$TRIPOD_HOME/minikube/minikube/nodes/minikube/docker.sock" "$@"; }
echo word >"$WORK/folder/a"

before() {
  step "minikube without a cluster"
  check "status" exits 85 -- minikube status
  check "an address" exits 85 -- minikube ip
  check "the list" exits 14 -- minikube profile list
  check "the list for scripts" prints '{"invalid":[],"valid":[]}' -- minikube profile list -o json
  check "the version for scripts" json '.minikubeVersion | startswith("v")' -- minikube version -o json
  check "the short version" says '^v[0-9.]+$' -- minikube version --short
  check "an option that is none" exits 14 -- minikube start --colour=red
  check "a driver that is none" exits 56 -- minikube start --driver=abacus
  check "more processors than there are" exits 29 -- minikube start --cpus=999
  check "more memory than there is" exits 23 -- minikube start --memory=999t
  check "what cannot be had is named" fails 'MK_USAGE: --static-ip=10.1.2.3 cannot be had' -- minikube start --static-ip=10.1.2.3
  check "a version that is none" fails 'No Major.Minor.Patch' -- minikube start --kubernetes-version=new
  check "a trial makes nothing" says 'dry-run validation complete' -- minikube start --dry-run
  check "nothing was made" prints '{"invalid":[],"valid":[]}' -- minikube profile list -o json
}

started() {
  step "minikube start with options"
  check "it starts" says 'Done! kubectl is now configured' '--driver=docker has no effect' '--extra-config has no effect' '--disk-size has no effect' \
    'Enabled addons: .*registry' -- minikube start --driver=docker --container-runtime=containerd --kubernetes-version=v1.35.2 --cpus=1 --memory=1g \
    --disk-size=20g --addons=registry,metrics-server --wait=all --extra-config=kubelet.max-pods=20 --mount-string "$WORK/folder:/seen" --mount \
    --ports=18088:30088 --embed-certs --force --alsologtostderr -v=7 || exit
  check "with what it was given" prints '1 v1.35.2' -- kubectl get node minikube -o 'jsonpath={.status.capacity.cpu} {.status.nodeInfo.kubeletVersion}'
  check "status for scripts" json '.Name == "minikube" and .Host == "Running" and .Kubelet == "Running" and .APIServer == "Running" and .Kubeconfig == "Configured" and .Worker == false' -- minikube status -o json
  check "a field of it" prints Running -- minikube status --format '{{.Host}}'
  check "profiles for scripts" json '.valid[0] | .Name == "minikube" and .Status == "OK" and .Active and .ActiveKubeContext and .Config.CPUs == 1 and .Config.Memory == 1024 and .Config.Nodes[0].ControlPlane' -- minikube profile list -o json
  check "profiles" says 'PROFILE .*STATUS' 'minikube .*OK' -- minikube profile list
  check "the profile" prints minikube -- minikube profile
  check "what is mounted" prints word -- minikube ssh -- cat /seen/a
  check "kubectl" says '^minikube +Ready' -- minikube kubectl -- get nodes
  check "a command's exit status" exits 3 -- minikube ssh -- exit 3
  check "the environment of docker" says '^export DOCKER_HOST="unix:///' 'MINIKUBE_ACTIVE_DOCKERD="minikube"' -- minikube docker-env
  check "and of fish" says '^set -gx DOCKER_HOST' -- minikube docker-env --shell fish
  check "and for scripts" json '.DOCKER_HOST | startswith("unix://")' -- minikube docker-env -o json
  check "podman's cannot be had" fails 'podman-env cannot be had' -- minikube podman-env
  check "logs" says 'is ready' -- minikube logs
  check "into a file" minikube logs --file "$WORK/logs.txt"
  check "which has them" says 'is ready' -- cat "$WORK/logs.txt"
  check "the context again" says 'context has been updated' -- minikube update-context
  check "again it is idempotent" says 'Done!' 'cannot change the memory size' -- minikube start --memory=2g
}

addons() {
  step "minikube addons"
  check "for scripts" json '.registry == {"Profile":"minikube","Status":"enabled"} and .dashboard.Status == "enabled"' -- minikube addons list -o json
  check "as a table" says 'ADDON NAME .*STATUS' 'registry .*enabled' -- minikube addons list
  check "disabled" says "'registry' addon is disabled" -- minikube addons disable registry
  check "told" json '.registry.Status == "disabled"' -- minikube addons list -o json
  check "enabled" says "'registry' addon is enabled" -- minikube addons enable registry
  check "one that is none" fails "'nonsense' is not a valid minikube addon" -- minikube addons enable nonsense
}

images() {
  step "minikube image"
  check "an archive" minikube image load "$TRIPOD_IMAGES/busybox.tar"
  check "is listed by its whole name" says '^docker.io/library/busybox:latest$' -- minikube image ls
  check "for scripts" json 'any(.repoTags[] == "docker.io/library/busybox:latest")' -- minikube image ls --format json
  check "as a table" says 'Image ID' 'busybox .*latest' -- minikube image ls --format table
  check "a further name" minikube image tag busybox:latest tool:v1
  check "is there" says '/tool:v1$' -- minikube image ls
  check "saved" minikube image save tool:v1 "$WORK/tool.tar"
  check "removed" minikube image rm tool:v1
  check "is gone" lacks '/tool:v1$' -- minikube image ls
  check "loaded from standard input" sh -c "'$WORK/bin/minikube' image load - <'$WORK/tool.tar'"
  check "is there again" says '/tool:v1$' -- minikube image ls
  check "what is nowhere" fails 'GUEST_IMAGE_LOAD.*nowhere' -- minikube image load nowhere:1
  check "building is named as what cannot be had" fails 'image build cannot be had' -- minikube image build -t x .
}

# held NAME COMMAND...: runs it in the background, as a terminal would
held() { local name=$1; shift; "$WORK/bin/minikube" "$@" >"$WORK/$name.out" 2>&1 & HELD=$!; }
let_go() { kill -INT "$HELD"; wait "$HELD"; }

services() {
  step "minikube service, tunnel, mount, cp"
  kubectl create deployment web --image=busybox -- sh -c 'mkdir -p /w; echo hello >/w/index.html; httpd -f -p 80 -h /w' >/dev/null
  kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"busybox","imagePullPolicy":"Never"}]}}}}' >/dev/null
  kubectl create service nodeport web --tcp=80:80 --node-port=30088 >/dev/null
  check "its address" says "^http://[0-9.]+:30088$" -- minikube service web --url
  soon 40 "it answers on the port that was mapped" prints hello -- curl -sf -m 2 http://127.0.0.1:18088/
  check "by a template" says '^[0-9.]+ 30088$' -- minikube service web --url --format '{{.IP}} {{.Port}}'
  check "for scripts" json 'any(.Name == "web" and (.URLs[0] | endswith(":30088")))' -- minikube service list -o json
  check "one that is none" exits 115 -- minikube service nothing --url
  check "one without a port" exits 113 -- minikube service kubernetes --url
  held tunnel tunnel
  soon 10 "a tunnel is not needed" grep -q 'No tunnel is needed' "$WORK/tunnel.out"
  check "it stays" kill -0 "$HELD"
  check "until it is interrupted" let_go
  held mount mount "$WORK/folder:/later"
  soon 10 "a mount" grep -q 'Successfully mounted' "$WORK/mount.out"
  check "is there" prints word -- minikube ssh -- cat /later/a
  minikube ssh -- 'echo back >/later/b'
  check "for writing too" prints back -- cat "$WORK/folder/b"
  check "it ends with the command" let_go
  check "then it is gone" fails -- minikube ssh -- cat /later/a
  check "a folder that is none" fails 'Cannot find directory' -- minikube mount /nowhere:/x
  check "a file goes to the node" minikube cp "$WORK/folder/a" /srv/copied
  check "and is there" prints word -- minikube ssh -- cat /srv/copied
  check "and back" minikube cp minikube:/srv/copied "$WORK/copied"
  check "unchanged" prints word -- cat "$WORK/copied"
  check "tripod's own mount" fails 'no cluster' -- "$TRIPOD" mount "$WORK/folder:/own"
}

more_nodes() {
  step "minikube node, pause, stop"
  check "a node is added" says 'Successfully added m02' -- minikube node add
  check "it is listed" says '^minikube-m02' -- minikube node list
  check "status of a worker" json '.[1] | .Worker and .APIServer == "Irrelevant"' -- minikube status -o json
  check "one node's" prints minikube-m02 -- minikube status -n m02 --format '{{.Name}}'
  check "it is stopped" says 'Successfully stopped node m02' -- minikube node stop m02
  check "status says so" exits 3 -- minikube status
  check "it is started" says 'Successfully started node m02' -- minikube node start m02
  check "it is deleted" says 'Node m02 was successfully deleted' -- minikube node delete m02
  check "one that is none" fails 'Could not find node m09' -- minikube node delete m09
  check "containers are paused" says 'Paused [0-9]+ containers' -- minikube pause
  check "status says so" exits 2 -- minikube status
  check "and go on" says Unpaused -- minikube unpause
  check "a second cluster" says 'Done!' -- minikube start -p other --keep-context
  check "the context stays" prints minikube -- kubectl config current-context
  check "it is chosen" says 'set to other' -- minikube profile other
  check "it is meant now" prints other -- minikube status --format '{{.Name}}'
  check "and the first again" says 'set to minikube' -- minikube profile minikube
  check "the cluster stops" says '1 nodes stopped' -- minikube stop
  check "what needs it says so" exits 83 -- minikube ip
  check "all are deleted" says 'Successfully deleted all profiles' -- minikube delete --all --purge
  check "none is left" prints '{"invalid":[],"valid":[]}' -- minikube profile list -o json
}

with_kind() {
  step "kind"
  check "its version" says '^kind v[0-9.]+ .*linux/' -- kind version
  check "only the number" says '^[0-9.]+$' -- kind version -q
  check "by an option" says '^kind version [0-9.]+$' -- kind --version
  check "no clusters" says 'No kind clusters found' -- kind get clusters
  check "building nodes is named as what cannot be had" fails 'build node-image.*not' -- kind build node-image
  check "a wait that is none" fails 'invalid argument "soon"' -- kind create cluster --wait soon
  check "a file that is none" fails 'nowhere.yaml' -- kind create cluster --config nowhere.yaml
  cat >"$WORK/kind.yaml" <<'YAML'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: filed
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer: {}
nodes:
- role: control-plane
  kubeadmConfigPatches:
  - |
    kind: InitConfiguration
    nodeRegistration:
      kubeletExtraArgs:
        node-labels: "ingress-ready=true,tier=front"
- role: worker
  labels: {tier: back}
YAML
  check "quietly, but for what has no effect" prints 'WARNING: kubeadmConfigPatches: ClusterConfiguration.apiServer has no effect: there is no kubeadm or kubelet to configure' -- \
    kind create cluster -q --config "$WORK/kind.yaml" --wait 1m --kubeconfig "$WORK/own" || return
  check "the user's kubeconfig is left alone" fails -- kubectl config get-contexts kind-filed
  check "the labels of the patch" prints 'true front' -- kubectl --kubeconfig "$WORK/own" get node filed-control-plane -o 'jsonpath={.metadata.labels.ingress-ready} {.metadata.labels.tier}'
  check "its nodes" says '^filed-control-plane$' '^filed-worker$' -- kind get nodes --name filed
  check "of all clusters" says '^filed-worker$' -- kind get nodes -A
  check "a kubeconfig for nodes" says 'server: https://192.168.[0-9.]+:6443' -- kind get kubeconfig --name filed --internal
  check "exported" says 'Set kubectl context to "kind-filed"' -- kind export kubeconfig --name filed
  check "it is current" prints kind-filed -- kubectl config current-context
  check "an image archive" kind load image-archive "$TRIPOD_IMAGES/busybox.tar" --name filed --nodes filed-worker
  check "is on that node" says busybox -- docker -H "unix://$TRIPOD_HOME/kind/filed/nodes/filed-worker/docker.sock" images
  check "and on no other" lacks busybox -- docker -H "unix://$TRIPOD_HOME/kind/filed/nodes/filed-control-plane/docker.sock" images
  daemon_up || return
  docker load -i "$TRIPOD_IMAGES/busybox.tar" >/dev/null
  check "an image of docker" says 'Image: "busybox:latest" with ID "sha256:[0-9a-f]+" not yet present on node "filed-control-plane", loading' -- kind load docker-image busybox:latest --name filed
  check "one that is none" fails 'image: "none:1" not present locally' -- kind load docker-image none:1 --name filed
  daemon_down
  check "a cluster that is none" fails 'no nodes found for cluster "gone"' -- kind load image-archive "$TRIPOD_IMAGES/busybox.tar" --name gone
  check "the same name again" fails 'already exist for a cluster with the name "filed"' -- kind create cluster --name filed
  check "all are deleted" says 'Deleted clusters: \["filed"\]' -- kind delete clusters --all
  check "again is no error" says 'Deleting cluster "filed"' -- kind delete cluster --name filed
}

before
started
addons
images
services
more_nodes
with_kind
