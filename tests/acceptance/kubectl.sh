#!/bin/bash
# The Kubernetes API with the real kubectl: discovery, the verbs, patches, apply, access, errors, and the streams of a pod.
. "$(dirname "$0")/lib.sh"
cd "$LIB" || exit

k() { timeout -k 5 "${LIMIT:-30}" kubectl "$@"; }
raw() { k get --raw "$1"; }

command -v kubectl >/dev/null || { echo "skipped: no kubectl"; exit 0; }
need_daemon --advertise-addr 192.0.2.1
check "no cluster, no kubeconfig" fails 'serves no Kubernetes API' -- "$TRIPOD" kubeconfig --data-root "$DATA"
check "a cluster" says 'Swarm initialized' -- docker swarm init --advertise-addr 192.0.2.1 || exit
export KUBECONFIG=$WORK/kubeconfig
soon 10 "kubeconfig" eval '"$TRIPOD" kubeconfig --data-root "$DATA" >"$KUBECONFIG"' || exit

discovery() {
  step "Discovery"
  check "version" says '^Server Version: v1\.' -- k version
  check "api-resources" says '^NAME +SHORTNAMES +APIVERSION +NAMESPACED +KIND$' '^services +svc +v1 +true +Service$' '^pods +po +v1 +true +Pod$' \
    '^nodes +no +v1 +false +Node$' '^deployments +deploy +apps/v1 +true +Deployment$' '^swarmservices +swarm\.tripod\.dev/v1 +true +SwarmService$' -- k api-resources
  check "api-versions" says '^apps/v1$' '^autoscaling/v1$' '^autoscaling/v2$' '^v1$' -- k api-versions
  check "explain" says '^KIND: +Pod$' '^FIELD: image <string>$' -- k explain pod.spec.containers.image
  check "ready" prints ok -- raw /readyz
  check "verbosely" says '^\[\+\]etcd ok$' 'readyz check passed' -- raw '/readyz?verbose'
  check "metrics" says '^apiserver_request_total' -- raw /metrics
  check "the old list of versions" json '.versions == ["v1"]' -- raw /api
  check "OpenAPI 3" json '.paths["apis/apps/v1"].serverRelativeURL | startswith("/openapi/v3/apis/apps/v1")' -- raw /openapi/v3
  check "OpenAPI 2" json '.definitions["io.k8s.api.core.v1.Pod"].properties.spec' -- raw /openapi/v2
  check "unknown kinds" fails "the server doesn't have a resource type \"nonsense\"" -- k get nonsense
  check "unknown paths" fails 'NotFound' -- raw /apis/nope/v1
  soon 10 "namespaces" says '^default +Active' '^kube-system +Active' -- k get namespaces
}

objects() {
  step "Objects"
  check "create" prints 'configmap/one created' -- k create configmap one --from-literal=a=1
  check "a name is taken once" fails 'configmaps "one" already exists' -- k create configmap one
  check "get" json '.data == {"a": "1"} and (.metadata.uid | length) == 36 and .metadata.namespace == "default"' -- k get cm one -o json
  check "table" says '^NAME +DATA +AGE$' '^one +1 +[0-9]+s' -- k get cm one
  check "who wrote it" json '[.metadata.managedFields[].manager] | index("kubectl-create") != null' -- k get cm one -o json --show-managed-fields
  check "label" prints 'configmap/one labeled' -- k label cm one tier=front
  check "selectors" says '^configmap/one$' -- k get cm -l 'tier in (front,back),!none' -o name
  check "field selectors" prints 'configmap/one' -- k get cm --field-selector metadata.name=one -o name
  check "that there are not" fails 'field label not supported: data.a' -- k get cm --field-selector data.a=1
  check "merge patch" eval 'k patch cm one --type merge -p "{\"data\":{\"b\":\"2\"}}" && k get cm one -o json | jq -e ".data == {a: \"1\", b: \"2\"}"'
  check "JSON patch" eval 'k patch cm one --type json -p "[{\"op\":\"remove\",\"path\":\"/data/b\"}]" && k get cm one -o json | jq -e ".data == {a: \"1\"}"'
  check "a patch that does not fit" fails '.' -- k patch cm one --type json -p '[{"op":"remove","path":"/data/nope"}]'
  check "dry run" prints 'configmap/two created (server dry run)' -- k create configmap two --dry-run=server
  check "leaves nothing" fails 'configmaps "two" not found' -- k get cm two
  for i in 1 2 3 4 5; do k create configmap page$i >/dev/null; done
  check "pages" json '(.items | length) == 2 and .metadata.continue != null and .metadata.remainingItemCount >= 3' -- raw '/api/v1/namespaces/default/configmaps?limit=2'
  check "all pages" eval '[ "$(k get cm --chunk-size=2 -o name | grep -c page)" = 5 ]'
  check "a stale write" fails 'the object has been modified' -- eval 'k get cm one -o json | jq ".metadata.resourceVersion = \"1\" | .data.c = \"3\"" | k replace -f -'
  check "secrets" json '.data.p == "cHc=" and .type == "Opaque"' -- eval 'k create secret generic s --from-literal=p=pw -o json'
  (k get cm --watch --output-watch-events >"$WORK/watched" 2>&1 & echo $! >"$WORK/pid")
  soon 10 "a watch begins" grep -q one "$WORK/watched"
  k create cm seen >/dev/null; k delete cm seen >/dev/null
  soon 10 "and tells" eval 'grep -q "^ADDED *seen" "$WORK/watched" && grep -q "^DELETED *seen" "$WORK/watched"'
  kill "$(cat "$WORK/pid")"
  check "delete" prints 'configmap "one" deleted' -- k delete cm one
  check "it is gone" fails 'NotFound' -- k get cm one
  check "delete many" says 'configmap "page1" deleted' 'configmap "page5" deleted' -- k delete cm page1 page2 page3 page4 page5
}

apply() {
  step "Apply"
  printf '%s\n' 'apiVersion: v1' 'kind: Service' 'metadata: {name: web}' 'spec: {selector: {app: web}, ports: [{port: 80}], type: NodePort}' >"$WORK/service.yaml"
  check "apply" prints 'service/web created' -- k apply -f "$WORK/service.yaml"
  check "again" prints 'service/web unchanged' -- k apply -f "$WORK/service.yaml"
  check "an address and a port" json '(.spec.clusterIP | startswith("10.96.")) and .spec.ports[0].nodePort >= 30000 and .spec.ports[0].targetPort == 80 and .spec.sessionAffinity == "None"' -- k get svc web -o json
  check "change" prints 'service/web configured' -- eval 'sed -i "s/port: 80/port: 81/" "$WORK/service.yaml"; k apply -f "$WORK/service.yaml"'
  check "diff" exits 1 -- eval 'sed "s/port: 81/port: 82/" "$WORK/service.yaml" | k diff -f -'
  printf '%s\n' 'apiVersion: v1' 'kind: ConfigMap' 'metadata: {name: owned}' 'data: {k: "1"}' >"$WORK/owned.yaml"
  check "server-side" prints 'configmap/owned serverside-applied' -- k apply --server-side --field-manager=one -f "$WORK/owned.yaml"
  sed -i 's/"1"/"2"/' "$WORK/owned.yaml"
  check "what another owns" fails 'conflict with "one": \.data\.k|conflict with "one"' -- k apply --server-side --field-manager=two -f "$WORK/owned.yaml"
  check "by force" prints 'configmap/owned serverside-applied' -- k apply --server-side --field-manager=two --force-conflicts -f "$WORK/owned.yaml"
  check "the owner changed" json '[.metadata.managedFields[] | select(.fieldsV1["f:data"]["f:k"])] | length == 1 and .[0].manager == "two"' -- k get cm owned -o json --show-managed-fields
  check "delete" says 'service "web" deleted' -- k delete -f "$WORK/service.yaml"
}

access() {
  step "Access"
  check "the administrator" says '^Username +kubernetes-admin$' -- k auth whoami
  check "may" says "^yes$" -- k auth can-i delete nodes
  check "nobody may" fails '^no$' -- k auth can-i get pods --as=bob
  check "refused" fails 'User "bob" cannot list resource "pods" in API group "" in the namespace "default"' -- k get pods --as=bob
  check "without certificate" eval 'curl -sk https://192.0.2.1:6443/api/v1/nodes | jq -e ".code == 403 and .reason == \"Forbidden\""'
  check "a bad token" eval 'curl -sk -H "Authorization: Bearer x.y.z" https://192.0.2.1:6443/api | jq -e ".code == 401"'
  k create serviceaccount robot >/dev/null
  local token; token=$(k create token robot)
  check "a service account" says 'system:serviceaccount:default:robot' -- k auth whoami --token "$token" --kubeconfig /dev/null --server https://192.0.2.1:6443 --insecure-skip-tls-verify
  k create rolebinding robot --clusterrole=view --serviceaccount=default:robot >/dev/null
  check "with a role" prints yes -- k auth can-i list pods --as=system:serviceaccount:default:robot
  check "which has its end" fails '^no$' -- k auth can-i list secrets --as=system:serviceaccount:default:robot
  k create clusterrole binder --verb=create --resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io >/dev/null
  k create clusterrolebinding binder --clusterrole=binder --user=carol >/dev/null
  check "nobody gives what they lack" fails 'attempting to grant RBAC permissions not currently held' -- k create role more --verb=get --resource=secrets --as=carol
}

mistakes() {
  step "Mistakes"
  local deployment='{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}'
  check "selector and labels differ" fails '`selector` does not match template `labels`' -- eval "k create -f - <<<'$deployment'"
  check "an unknown field" fails 'unknown field "spec.nonsense"' -- eval "k create -f - <<<'{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"s\"},\"spec\":{\"nonsense\":1,\"ports\":[{\"port\":80}]}}'"
  check "a bad name" fails 'metadata.name: Invalid value: "Upper"' -- k create configmap Upper
  check "a bad image" fails 'spec.containers\[0\].image: Required value' -- eval "k create -f - <<<'{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\"},\"spec\":{\"containers\":[{\"name\":\"c\"}]}}'"
  check "a namespace that is not there" fails 'namespaces "nowhere" not found' -- k create configmap x -n nowhere
  check "an immutable secret" fails 'field is immutable when `immutable` is set' -- eval 'k create -f - <<<"{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"i\"},\"immutable\":true,\"stringData\":{\"a\":\"b\"}}" && k patch secret i -p "{\"stringData\":{\"a\":\"c\"}}"'
  check "a method that is none" fails 'MethodNotAllowed|not allow' -- k delete --raw /api/v1/namespaces
  check "a selector that is none" fails 'unable to parse requirement' -- raw '/api/v1/pods?labelSelector=a%20b'
  check "a token of a list that is none" fails 'continue key is not valid' -- raw '/api/v1/pods?continue=xyz'
}

streams() {
  step "Streams"
  load busybox
  cat >"$WORK/pod.yaml" <<'YAML'
apiVersion: v1
kind: Pod
metadata: { name: talk }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo begun; mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"]
YAML
  check "a pod" prints 'pod/talk created' -- k apply -f "$WORK/pod.yaml"
  soon 30 "runs" says '^talk +1/1 +Running' -- k get pod talk
  check "its log" prints begun -- k logs talk
  check "with times" says '^20[0-9-]+T[0-9:.]+Z begun$' -- k logs talk --timestamps
  check "exec" prints hello -- k exec talk -- echo hello
  check "its status" exits 7 -- k exec talk -- sh -c 'exit 7'
  check "input" same "through" "$(echo through | k exec -i talk -- cat)"
  check "over SPDY too" same "through" "$(echo through | KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false timeout 20 kubectl exec -i talk -- cat)"
  check "its status there" exits 7 -- env KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec talk -- sh -c 'exit 7'
  check "a container that it does not have" fails 'container nope is not valid for pod talk' -- k exec talk -c nope -- true
  local how
  for how in true false; do
    KUBECTL_PORT_FORWARD_WEBSOCKETS=$how timeout 30 kubectl port-forward talk 18080:8080 >"$WORK/forward" 2>&1 &
    soon 10 "port-forward (WebSocket: $how)" eval '[ "$(get http://127.0.0.1:18080/)" = served ]'
    kill $!; wait $! 2>/dev/null
  done
  check "the proxy" prints served -- raw /api/v1/namespaces/default/pods/talk:8080/proxy/
  check "delete" says 'pod "talk" deleted' -- k delete pod talk
}

discovery
objects
apply
access
mistakes
streams
check "the daemon ends" daemon_down
