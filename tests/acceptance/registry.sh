#!/bin/bash
# Push and pull against a registry on a loopback port, with and without a password.
. "$(dirname "$0")/lib.sh"

R=127.0.0.1:5000
serve() { # serve PORT FOLDER [LINE...]: a registry, with these lines of configuration
  local port=$1 folder=$2; shift 2
  mkdir -p "$folder"
  printf '%s\n' 'version: 0.1' 'log: {level: error, accesslog: {disabled: true}}' "storage: {filesystem: {rootdirectory: $folder}, delete: {enabled: true}}" \
    "http: {addr: '127.0.0.1:$port'}" "$@" >"$folder.yml"
  docker-registry serve "$folder.yml" >"$folder.log" 2>&1 &
}

plain() {
  step "push and pull"
  serve 5000 "$WORK/plain"
  soon 10 "a registry serves" get http://$R/v2/
  check "push needs a name of that registry" docker tag spkane/quantum-game $R/games/quantum:1
  check "push" says '^1: digest: sha256:[0-9a-f]{64} size: [0-9]+$' -- docker push $R/games/quantum:1
  local digest; digest=$(docker push $R/games/quantum:1 | grep -oE 'sha256:[0-9a-f]{64}' | tail -n 1)
  check "the registry has it" json '.tags == ["1"]' -- get http://$R/v2/games/quantum/tags/list
  check "pushed again, layers are there" says 'Layer already exists' -- docker push $R/games/quantum:1
  check "the digest is told" says "$R/games/quantum +1 +$digest" -- docker images --digests
  check "distribution inspect" json ".Descriptor.digest == \"$digest\" and .Platforms[0].os == \"linux\"" -- curl -sS --unix-socket "$SOCKET" "http://d/v1.41/distribution/$R/games/quantum:1/json"
  docker rmi $R/games/quantum:1 spkane/quantum-game:latest spkane/quantum-game:latest-plus >/dev/null
  check "pull" says 'Pull complete|Download complete|Already exists' "^Digest: $digest$" "^Status: Downloaded newer image for $R/games/quantum:1$" "^$R/games/quantum:1$" -- docker pull $R/games/quantum:1
  check "pull again" says "^Status: Image is up to date for $R/games/quantum:1$" -- docker pull $R/games/quantum:1
  check "it runs" eval 'docker run -d --name pulled -p 8001:8080 $R/games/quantum:1 && for i in 1 2 3 4 5 6 7 8 9; do get http://127.0.0.1:8001/ | grep blue && break; sleep 0.2; done; docker rm -f pulled'
  check "pull by digest" says "^Digest: $digest$" -- docker pull "$R/games/quantum@$digest"
  check "run by digest" exits 1 -- docker run --rm "$R/games/quantum@$digest" /bin/quantum /nothing
  check "run pulls what is missing" eval 'docker rmi -f $(docker images -q $R/games/quantum) >/dev/null; { docker run --rm $R/games/quantum:1 /bin/quantum /nothing 2>&1 || true; } | grep -q "Status: Downloaded newer image"'
  check "all tags" eval 'docker tag $R/games/quantum:1 $R/games/quantum:2 && docker push -a $R/games/quantum && get http://$R/v2/games/quantum/tags/list | jq -e "(.tags | length) == 2"'
  check "a tag that is not there" fails 'manifest( for .*)? ?(unknown|not found)|not found' -- docker pull $R/games/quantum:nothing
  check "a repository that is not there" fails 'not found|repository does not exist|unknown' -- docker pull $R/no/such
  check "a registry that is not there" fails 'refused' -- docker pull 127.0.0.1:5999/a
  check "a bad name" fails 'invalid reference format' -- docker pull $R/UPPER
  check "pushing what is not there" fails 'An image does not exist locally with the tag|does not exist' -- docker push $R/nothing:1
  check "a service pins the digest" eval 'docker swarm init --advertise-addr 192.0.2.1 && docker service create -d -q --name pinned $R/games/quantum:1 && docker service inspect -f "{{.Spec.TaskTemplate.ContainerSpec.Image}}" pinned | grep -q "$R/games/quantum:1@sha256:"'
  soon 20 "and runs" says '1/1' -- docker service ls
  docker service rm pinned >/dev/null; docker swarm leave --force >/dev/null
}

secured() {
  step "a registry with a password"
  python3 -W ignore -c 'import crypt; print("ann:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))' >"$WORK/htpasswd"
  serve 5001 "$WORK/secured" "auth: {htpasswd: {realm: test, path: $WORK/htpasswd}}"
  soon 10 "it serves" eval '[ "$(curl -s -o /dev/null -w "%{http_code}" http://127.0.0.1:5001/v2/)" = 401 ]'
  docker tag $R/games/quantum:1 127.0.0.1:5001/q:1
  check "push without" fails 'no basic auth credentials|unauthorized|authentication required' -- docker push 127.0.0.1:5001/q:1
  check "a wrong password" fails 'unauthorized|incorrect|401' -- docker login -u ann -p wrong 127.0.0.1:5001
  check "login" says 'Login Succeeded' -- docker login -u ann -p secret 127.0.0.1:5001
  check "push" says '^1: digest: sha256:' -- docker push 127.0.0.1:5001/q:1
  docker rmi 127.0.0.1:5001/q:1 >/dev/null
  check "pull" says '^Status: Downloaded newer image' -- docker pull 127.0.0.1:5001/q:1
  docker rmi 127.0.0.1:5001/q:1 >/dev/null
  check "a service with credentials" eval 'docker swarm init --advertise-addr 192.0.2.1 && docker service create -d -q --with-registry-auth --name secured 127.0.0.1:5001/q:1'
  soon 20 "runs" says '1/1' -- docker service ls
  docker service rm secured >/dev/null; docker swarm leave --force >/dev/null
  check "logout" docker logout 127.0.0.1:5001
  soon 20 "no container" prints '' -- docker ps -aq
  docker rmi -f 127.0.0.1:5001/q:1 >/dev/null 2>&1
  check "pull without" fails 'no basic auth credentials|unauthorized|authentication required|denied' -- docker pull 127.0.0.1:5001/q:1
}

check "there is a registry to install" command -v docker-registry || exit
need_daemon
load quantum-game busybox
plain
secured
check "the daemon ends when asked" daemon_down
