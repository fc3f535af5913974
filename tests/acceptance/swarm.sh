#!/bin/bash
# Swarm mode on one node, with the docker client: services and all that belongs to them, until nothing of them is left.
. "$(dirname "$0")/lib.sh"
cd "$LIB" || exit
ID='[0-9a-z]{25}'

service() { docker service "$@"; }
field() { docker service inspect -f "$1" "$2"; }
replicas() { docker service ls --filter name="$1" --format '{{.Replicas}}'; }
tasks() { docker service ps --no-trunc --format '{{.Name}} {{.Image}} {{.Node}} {{.DesiredState}} {{.CurrentState}} {{.Error}} {{.Ports}}' "$@"; }
running() { tasks -f desired-state=running "$@" | grep ' Running Running '; }

cluster() {
  step "docker swarm init"
  check "outside of a swarm there are no services" fails 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.' -- docker service ls
  check "nor nodes" fails 'This node is not a swarm manager' -- docker node ls
  check "nor anything to leave" fails 'not part of a swarm' -- docker swarm leave
  check "an address that is not this machine's is refused" fails '.' -- docker swarm init --advertise-addr 198.51.100.7x
  check "init" says "^Swarm initialized: current node \\($ID\\) is now a manager\\.$" 'docker swarm join --token SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25} 192\.0\.2\.1:2377' \
    "run 'docker swarm join-token manager'" -- docker swarm init --advertise-addr 192.0.2.1 || exit
  check "a second time is a mistake" fails 'This node is already part of a swarm' -- docker swarm init --advertise-addr 192.0.2.1
  local token; token=$(docker swarm join-token -q worker)
  check "join-token" says 'To add a worker to this swarm' "$token 192.0.2.1:2377" -- docker swarm join-token worker
  check "the manager's is another" not same "$token" "$(docker swarm join-token -q manager)"
  check "rotation" eval '[ "$(docker swarm join-token -q --rotate worker)" != "'"$token"'" ] && [ "$(docker swarm join-token -q worker)" != "'"$token"'" ]'
  check "info" says '^ *Swarm: active$' "NodeID: $ID" 'Is Manager: true' "ClusterID: $ID" 'Managers: 1$' 'Nodes: 1$' 'Data Path Port: 4789' \
    'Default Address Pool: 10\.0\.0\.0/8' 'SubnetSize: 24' 'Task History Retention Limit: 5' 'Heartbeat Period: 5 seconds' 'Expiry Duration: 3 months' \
    'Autolock Managers: false' 'Node Address: 192\.0\.2\.1' -- docker info
  check "update" says '^Swarm updated' -- docker swarm update --task-history-limit 3 --dispatcher-heartbeat 7s --cert-expiry 720h
  check "it is told" says 'Task History Retention Limit: 3' 'Heartbeat Period: 7 seconds' 'Expiry Duration: 4 weeks' -- docker info
  check "ca" says 'BEGIN CERTIFICATE' -- docker swarm ca
  check "node ls" says "^$ID \\* +machine +Ready +Active +Leader +" -- docker node ls
  check "node inspect" says "^ID:\\s+$ID" 'Hostname:\s+machine$' ' State:\s+Ready' ' Availability:\s+Active' ' Address:\s+192\.0\.2\.1' ' Operating System:\s+linux' " CPUs:\\s+$(nproc)" \
    ' Network:\s+.*bridge.*host.*null.*overlay' '^Engine Version:' 'BEGIN CERTIFICATE' ' Issuer Subject:' -- docker node inspect --pretty self
  check "labels of a node" eval 'docker node update --label-add tier=front machine && [ "$(docker node inspect -f "{{.Spec.Labels.tier}}" machine)" = front ]'
  check "the last manager stays one" fails '.' -- docker node demote machine
  check "it cannot be removed" fails '.' -- docker node rm machine
  check "networks" says ' ingress +overlay +swarm$' ' docker_gwbridge +bridge +local$' -- docker network ls
}

create() {
  step "docker service create"
  check "an overlay network" says "^$ID\$" -- docker network create -d overlay --attachable front
  check "is listed" says '^[0-9a-z]{12} +front +overlay +swarm$' -- docker network ls
  check "with an address range" json '.[0] | .Scope == "swarm" and .Driver == "overlay" and .Attachable and (.IPAM.Config[0].Subnet | test("^10\\."))' -- docker network inspect front
  check "create prints an id" says "^$ID\$" -- docker service create -d --name quantum --replicas 2 -p 8000:8080 --network front --label a=b spkane/quantum-game
  soon 20 "two tasks run" prints 2/2 -- replicas quantum
  check "ls" says '^ID +NAME +MODE +REPLICAS +IMAGE +PORTS$' '^[0-9a-z]{12} +quantum +replicated +2/2 +spkane/quantum-game:latest +\*:8000->8080/tcp$' -- docker service ls
  check "ps" says '^ID +NAME +IMAGE +NODE +DESIRED STATE +CURRENT STATE +ERROR +PORTS$' '^[0-9a-z]{12} +quantum\.1 +spkane/quantum-game:latest +machine +Running +Running .* ago' \
    '^[0-9a-z]{12} +quantum\.2 ' -- docker service ps quantum
  for address in 192.0.2.1 127.0.0.1; do soon 5 "port 8000 at $address" says blue -- get "http://$address:8000/"; done
  check "from another machine" says blue -- outside curl -fsS -m 5 http://192.0.2.1:8000/
  check "both replicas answer" eval 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do get http://192.0.2.1:8000/whoami; done | sort -u | wc -l | grep -qx 2'
  check "inspect --pretty" says "^ID:\\s+$ID" '^Name:\s+quantum$' '^Labels:' ' a=b' '^Service Mode:\s+Replicated' '^ Replicas:\s+2' '^UpdateConfig:' '^ Parallelism:\s+1' \
    '^ On failure:\s+pause' '^ Monitoring Period: 5s' '^ Max failure ratio: 0' '^ Update order: +stop-first' '^RollbackConfig:' '^ Rollback order: +stop-first' '^ContainerSpec:' \
    '^ Image:\s+spkane/quantum-game:latest' '^Networks: front' '^Endpoint Mode:\s+vip' 'PublishedPort = 8000' 'Protocol = tcp' 'TargetPort = 8080' 'PublishMode = ingress' -- docker service inspect --pretty quantum
  check "the containers are seen" says 'quantum\.[12]\.[0-9a-z]{25}$' -- docker ps
  check "with labels" json '.[0].Config.Labels["com.docker.swarm.service.name"] == "quantum" and (.[0].Config.Labels["com.docker.swarm.task.name"] | test("^quantum\\.1\\."))' -- \
    eval 'docker inspect $(docker ps -q --filter label=com.docker.swarm.service.name=quantum --filter name=quantum.1)'
  check "a name is used once" fails 'name conflicts with an existing object: service quantum already exists' -- docker service create -d --name quantum spkane/quantum-game
  check "a port too" fails 'port .8000. is already in use by service .quantum' -- docker service create -d --name other -p 8000:80 busybox
  check "a bad name" fails 'name must be valid as a DNS name component|must be' -- docker service create -d --name 'un der' busybox
  check "no such network" fails 'network nowhere not found' -- docker service create -d --network nowhere busybox
  check "an attached container reaches it by name" says blue -- docker run --rm --network front busybox wget -T 5 -qO- http://quantum:8080/
  check "and each task" eval '[ "$(docker run --rm --network front busybox nslookup tasks.quantum 127.0.0.11 | grep -c "^Address.*: 10\.")" -ge 2 ]'
  check "the VIP is one address" eval 'vip=$(field "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}" quantum); a=$(docker run --rm --network front busybox nslookup quantum | awk "/^Address/ { print \$NF }" | tail -n 1); [[ " $vip" == *" $a/24 "* ]]'
  check "logs of a service" says '^' -- docker service logs quantum
}

changes() {
  step "scale, update, rollback"
  check "scale, with its progress" says '^quantum scaled to 4' 'overall progress: 4 out of 4 tasks' '1/4: running' '4/4: running' 'verify: Service .*converged' -- \
    tty "docker service scale -d=false quantum=4"
  check "four tasks" prints 4/4 -- replicas quantum
  local s=$SECONDS
  check "update, start-first, one by one" says '^quantum' 'overall progress: 4 out of 4 tasks' 'verify: Service .*converged' -- \
    tty "docker service update --update-delay 1s --update-monitor 1s --update-order start-first --update-failure-action rollback -d=false --image spkane/quantum-game:latest-plus quantum"
  check "it waits between tasks" test $((SECONDS - s)) -ge 3
  check "the page is green" says green -- get http://192.0.2.1:8000/
  check "only that image runs" eval '[ "$(running quantum | grep -c latest-plus)" = 4 ] && [ "$(running quantum | wc -l)" = 4 ]'
  check "those before are history" says '\\_ quantum\.[1-4] +spkane/quantum-game:latest .*Shutdown +Shutdown' -- docker service ps quantum
  soon 10 "the update is told" says 'State:\s+completed' '^ Delay:\s+1s' 'On failure:\s+rollback' 'Update order: +start-first' -- docker service inspect --pretty quantum
  check "rollback" says 'rollback: manually requested rollback' 'verify: Service .*converged' -- tty "docker service rollback quantum"
  soon 5 "it is blue again" says blue -- get http://192.0.2.1:8000/
  soon 20 "and that is told" prints rollback_completed -- field '{{.UpdateStatus.State}}' quantum
  LIMIT=90 check "rolled back once more is green" eval 'docker service rollback -q -d=false quantum && get http://192.0.2.1:8000/ | grep -q green'
  soon 20 "and is over" prints rollback_completed -- field '{{.UpdateStatus.State}}' quantum
  LIMIT=90 check "an update that fails is rolled back" says 'rollback' -- tty "docker service update -d=false --update-delay 0s --update-monitor 2s --update-failure-action rollback --image busybox --args \"sh -c 'exit 3'\" quantum"
  soon 20 "it ends so" says '^rollback_completed$' -- field '{{.UpdateStatus.State}}' quantum
  soon 10 "all four run" prints 4/4 -- replicas quantum
  check "the same page" says green -- get http://192.0.2.1:8000/
  check "its failures are history" says 'Failed .*task: non-zero exit \(3\)' -- docker service ps --no-trunc quantum
  check "paused by a failure" eval 'docker service update -d --update-failure-action pause --update-monitor 2s --image busybox --args "sh -c \"exit 4\"" quantum'
  soon 20 "says so" says '^paused update paused due to failure' -- field '{{.UpdateStatus.State}} {{.UpdateStatus.Message}}' quantum
  check "three go on" eval '[ "$(running quantum | grep -c latest-plus)" -ge 3 ]'
  check "a correct one goes on" eval 'LIMIT=60 docker service update -q -d=false --image spkane/quantum-game --args "" --update-delay 0s --update-monitor 1s quantum'
  soon 20 "and completes" prints completed -- field '{{.UpdateStatus.State}}' quantum
  check "an out-of-date version is refused" eval 'v=$(field "{{.Version.Index}}" quantum); docker service inspect quantum | jq .[0].Spec |
    curl -sS --unix-socket "$SOCKET" -H "Content-Type: application/json" -d @- "http://d/v1.41/services/quantum/update?version=$((v - 1))" | grep "update out of sequence"'
  check "force runs all anew" eval 'before=$(docker ps -q --filter name=quantum | sort | xargs); LIMIT=60 docker service update -q --force -d=false --update-parallelism 0 quantum;
    [ -n "$before" ] && for id in $before; do [[ " $(docker ps -q --filter name=quantum | xargs) " != *" $id "* ]] || false || break; done'
  before=$(docker service ps -q -f desired-state=running quantum | sort)
  check "scaling starts what is missing" eval 'LIMIT=40 docker service scale -d=false quantum=5'
  check "and leaves what runs alone" test "$before" = "$(comm -12 <(echo "$before") <(docker service ps -q -f desired-state=running quantum | sort))"
  check "to none" eval 'docker service scale -d quantum=0'
  soon 30 "no container" prints '' -- docker ps -q --filter name=quantum
  check "and back" eval 'LIMIT=40 docker service scale -d=false quantum=2' && soon 10 "they answer" says blue -- get http://192.0.2.1:8000/
  check "a service on the machine's own network" eval 'docker service create -q -d=false --name own --network host busybox sleep 100000'
  check "sees its interfaces" eval '[ "$(docker exec "$(docker ps -q --filter name=own)" cat /proc/net/dev | wc -l)" = "$(wc -l </proc/net/dev)" ]'
  check "and is inspected with it" prints host -- field '{{range .Spec.TaskTemplate.Networks}}{{.Target}}{{end}}' own
  check "removed" docker service rm own
  check "the published port changes" eval 'docker service update -q -d=false --publish-rm 8080 --publish-add 8005:8080 --update-monitor 1s quantum'
  soon 10 "it is there" says blue -- get http://192.0.2.1:8005/
  soon 5 "and not where it was" fails . -- get http://192.0.2.1:8000/
}

kinds() {
  step "global, jobs, dnsrr, host ports, constraints"
  check "global" docker service create -d --name everywhere --mode global -p mode=host,published=8006,target=8080 spkane/quantum-game
  soon 15 "one on the node" says 'everywhere +global +1/1' -- docker service ls
  soon 5 "its host port" says blue -- get http://192.0.2.1:8006/
  check "is told by ps" says '\*:8006->8080/tcp' -- docker service ps everywhere
  check "a job" docker service create -d --name job --mode replicated-job --replicas 3 --max-concurrent 2 busybox sh -c 'echo done; sleep 0.2'
  soon 20 "is completed" says 'job +replicated job +0/2 \(3/3 completed\)' -- docker service ls
  check "its tasks" says '^job\.[0-9a-z]+ .* Complete Complete' -- tasks job
  check "its logs" says 'done$' -- docker service logs job
  check "a global job" docker service create -d --name chore --mode global-job --restart-condition none busybox true
  soon 15 "is completed" says 'chore +global job +0/0 \(1/1 completed\)' -- docker service ls
  check "dnsrr" docker service create -d --name robin --endpoint-mode dnsrr --network front --replicas 2 spkane/quantum-game
  soon 15 "runs" prints 2/2 -- replicas robin
  check "its name is its tasks" eval '[ "$(docker run --rm --network front busybox nslookup robin 127.0.0.11 | grep -c "^Address.*: 10\.")" -ge 2 ]'
  check "a published ingress port does not fit" fails 'port published with ingress mode can.t be used with dnsrr mode|dnsrr' -- docker service create -d --endpoint-mode dnsrr -p 8010:80 busybox
  check "a constraint that cannot be met" docker service create -d --name nowhere --constraint node.labels.tier==back busybox sleep 1000
  soon 10 "the task says why" says 'nowhere.1 .* Running Pending .*no suitable node \(scheduling constraints not satisfied on 1 node\)' -- tasks nowhere
  check "it runs when a node fits" docker node update --label-add tier=back machine
  soon 15 "at once" prints 1/1 -- replicas nowhere
  check "more memory than there is" docker service create -d --name huge --reserve-memory 100TB busybox sleep 1000
  soon 10 "the task says why" says 'no suitable node \(insufficient resources on 1 node\)' -- tasks huge
  check "at most so many on a node" docker service create -d --name few --replicas 3 --replicas-max-per-node 2 busybox sleep 1000
  soon 15 "two run" says '^2/3' -- replicas few
  check "the third says why" says 'max replicas per node' -- tasks few
  check "a program that is missing" docker service create -d --name broken --restart-max-attempts 1 --restart-delay 100ms busybox /no/such/program
  soon 15 "is told" says 'Failed|Rejected' 'no such file' -- tasks broken
  check "an image that is missing" docker service create -d --name absent --restart-condition none no.such/image:1
  soon 20 "is told" says 'Rejected .*([Nn]o such image|not found|pull)' -- tasks absent
  check "templates" docker service create -d --name template --hostname '{{.Service.Name}}-{{.Task.Slot}}' -e 'NODE={{.Node.Hostname}}' busybox sh -c 'echo $(hostname) $NODE; sleep 1000'
  soon 15 "are filled in" says 'template-1 machine$' -- docker service logs template
  check "settings of a container" docker service create -d --name set -u nobody -w /tmp --read-only --limit-memory 32m --limit-pids 50 --limit-cpu 0.5 --cap-drop CHOWN --ulimit nofile=99 --init \
    --mount type=tmpfs,dst=/t --mount type=volume,src=vol,dst=/v --stop-grace-period 1s --stop-signal INT --dns 192.0.2.53 --host extra:192.0.2.9 --sysctl net.ipv4.ip_default_ttl=44 \
    --log-opt max-size=1m --health-cmd true --health-interval 1s busybox sh -c 'echo $(whoami) $PWD $(ulimit -n) $(cat /proc/sys/net/ipv4/ip_default_ttl); exec sleep 1000'
  soon 20 "it runs" prints 1/1 -- replicas set
  check "as it should" says 'nobody /tmp 99 44$' -- docker service logs set
  check "and is healthy" json '.[0] | .State.Health.Status == "healthy" and .HostConfig.Memory == 33554432 and .HostConfig.PidsLimit == 50 and .HostConfig.ReadonlyRootfs and .HostConfig.NanoCpus == 500000000' -- \
    eval 'docker inspect $(docker ps -q --filter name=set.1)'
  check "a health check that never passes" docker service create -d --name sick --health-cmd false --health-interval 200ms --health-retries 2 --restart-condition none busybox sleep 1000
  soon 20 "fails the task" says 'Failed .*unhealthy container' -- tasks sick
  check "one that ends is started again" docker service create -d --name again --restart-delay 200ms busybox sh -c 'sleep 0.3; exit 1'
  soon 15 "with its history" eval '[ "$(tasks again | grep -c "non-zero exit (1)")" -ge 2 ]'
  check "all are removed" docker service rm everywhere job chore robin nowhere huge few broken absent template set sick again
  check "no such service" fails 'service nobody not found|no such service: nobody' -- docker service inspect nobody
}

data() {
  step "secrets and configs"
  check "create" eval 'printf hidden | docker secret create password - | grep -qE "^$ID\$"'
  check "config" eval 'printf "colour=red\n" | docker config create settings - | grep -qE "^$ID\$"'
  check "a template" eval 'echo "I am {{.Service.Name}}, {{secret \"password\"}}, {{env \"X\"}}" | docker config create --template-driver golang greeting -'
  check "a name is used once" eval '! docker secret create password /etc/hostname >"$WORK/x" 2>&1 && grep -q "already exists" "$WORK/x"'
  check "too large" eval '! head -c 600000 /dev/zero | docker secret create large - >"$WORK/x" 2>&1 && grep -q "secret data must be larger than 0 and less than 512000 bytes" "$WORK/x"'
  check "its content is not told" json '.[0].Spec.Data == null and .[0].Spec.Name == "password"' -- docker secret inspect password
  check "a config's is" says '^colour=red$' -- docker config inspect --pretty settings
  check "a service with them" docker service create -d --name keeper -e X=y --secret source=password,target=pw,mode=0400,uid=65534 --config src=settings,target=/etc/settings --config source=greeting,target=/greeting --secret password \
    busybox sh -c 'cat /run/secrets/pw; echo; cat /etc/settings /greeting; stat -c "%a %u" /run/secrets/pw; exec sleep 1000'
  soon 15 "runs" prints 1/1 -- replicas keeper
  soon 5 "and has them" says 'hidden$' 'colour=red$' 'I am keeper, hidden, y$' '400 65534$' -- docker service logs keeper
  check "memory is where secrets are" says '^tmpfs /run/secrets' -- eval 'docker exec $(docker ps -q --filter name=keeper.1) grep /run/secrets /proc/mounts'
  check "a secret in use" fails "secret 'password' is in use by the following service: keeper" -- docker secret rm password
  check "a config in use" fails "config 'settings' is in use by the following service: keeper" -- docker config rm settings
  check "no such secret" fails 'secret not found|secrets? .*not found' -- docker service create -d --secret nothing busybox
  check "they are free after removal" eval 'docker service rm keeper && docker secret rm password && docker config rm settings greeting'
}

stack() {
  step "docker stack"
  check "deploy" says '^Creating network chat_default$' '^Creating secret chat_password$' '^Creating config chat_motto$' '^Creating service chat_(hubot|mongodb|rocketchat|zmachine)$' -- \
    docker stack deploy -c stack.yaml chat
  check "ls" says '^NAME +SERVICES' '^chat +4' -- docker stack ls
  soon 30 "all come up" eval '[ "$(docker stack services chat --format "{{.Name}} {{.Replicas}}" | sort | xargs)" = "chat_hubot 1/1 chat_mongodb 1/1 chat_rocketchat 2/2 chat_zmachine 1/1" ]'
  soon 10 "rocketchat found mongodb" says 'reached mongodb:27017' -- get http://192.0.2.1:3000/
  soon 10 "hubot found both" says 'reached rocketchat:3000' 'reached games:80' -- get http://192.0.2.1:3001/
  check "stack ps" says '^ID +NAME +IMAGE +NODE +DESIRED STATE' 'chat_rocketchat\.[12] +rocketchat/rocket.chat:6.5.2 +machine +Running +Running .*ago' -- docker stack ps chat
  check "deployed again, nothing changes" eval 'before=$(docker ps -q | sort | xargs); docker stack deploy -c stack.yaml chat; sleep 2; [ "$(docker ps -q | sort | xargs)" = "$before" ]'
  check "rm" says '^Removing service chat_rocketchat$' '^Removing network chat_default$' '^Removing secret chat_password$' '^Removing config chat_motto$' -- docker stack rm chat
  soon 20 "no container" prints '' -- docker ps -aq --filter name=chat_
  soon 20 "no network" lacks chat_ -- docker network ls
  check "no stack" lacks chat -- docker stack ls
  docker volume rm chat_data >/dev/null 2>&1
}

drain() {
  step "docker node update --availability"
  check "drain" prints machine -- docker node update --availability drain machine
  soon 20 "no task runs" prints '' -- docker ps -q --filter name=quantum
  soon 10 "the tasks say why" says 'quantum\.[12] .*Running Pending .*no suitable node \(1 node not available for new tasks\)' -- tasks quantum
  check "the node says so" says 'Availability:\s+Drain' -- docker node inspect --pretty self
  check "what docker run makes runs on" prints fine -- docker run --rm busybox echo fine
  check "active" docker node update --availability active machine
  soon 20 "they run again" prints 2/2 -- replicas quantum
  soon 10 "and answer" says blue -- get http://192.0.2.1:8005/
}

restart() {
  step "the daemon is restarted"
  local before; before=$(docker ps -q | sort | xargs)
  check "it ends when asked" daemon_down
  check "containers go on meanwhile" says blue -- get http://192.0.2.1:8005/
  check "it starts" daemon_up
  soon 10 "the same containers" prints "$before" -- eval 'docker ps -q | sort | xargs'
  soon 10 "the service is whole" prints 2/2 -- replicas quantum
  check "and answers" says blue -- get http://192.0.2.1:8005/
}

removal() {
  step "removal"
  check "rm" prints quantum -- docker service rm quantum
  check "there is no such service" fails 'no such service: quantum' -- docker service ps quantum
  soon 20 "no container" prints '' -- docker ps -aq
  soon 10 "the network goes" prints front -- docker network rm front
  check "no port" fails . -- get http://192.0.2.1:8005/
  check "a manager leaves by force only" fails 'You are attempting to leave the swarm on a node that is participating as a manager' -- docker swarm leave
  check "with it" says '^Node left the swarm' -- docker swarm leave --force
  check "swarm is inactive" says '^ *Swarm: inactive' -- docker info
  check "a new swarm is empty" eval 'docker swarm init --advertise-addr 192.0.2.1 && [ -z "$(docker service ls -q)$(docker secret ls -q)$(docker config ls -q)" ]'
  check "autolock" says 'SWMKEY-1-' -- docker swarm update --autolock=true
  local key; key=$(docker swarm unlock-key -q)
  check "after a restart it is locked" eval 'daemon_down && daemon_up && docker info | grep -q "Swarm: locked" && ! docker node ls'
  check "until it is unlocked" eval 'unlock() { curl -fsS --unix-socket "$SOCKET" -H "Content-Type: application/json" -d "{\"UnlockKey\": \"$1\"}" http://d/v1.41/swarm/unlock; }; ! unlock SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA && unlock '"$key"
  soon 10 "it is a manager again" says 'Leader' -- docker node ls
  docker swarm leave --force >/dev/null
  docker volume rm vol >/dev/null
  soon 10 "nothing is left" prints '' -- leftovers
}

need_daemon
load busybox quantum-game rocketchat-stack
cluster
create
changes
kinds
data
stack
drain
[ "$ENGINE" = dockerd ] || restart
removal
check "the daemon ends when asked" daemon_down
