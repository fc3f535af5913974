#!/bin/bash
# Containers of one node, with the docker client: their life, their limits, their networks, volumes and images.
. "$(dirname "$0")/lib.sh"

life() {
  step "run, wait, exit codes"
  check "run prints what the container does" prints hello -- docker run --rm busybox echo hello
  check "its exit code is run's" exits 3 -- docker run --rm busybox sh -c 'exit 3'
  check "a signal's is 128 more" exits 137 -- docker run --rm --init busybox sh -c 'kill -9 $$'
  check "a program that is not there: 127" exits 127 -- docker run --rm busybox /no/such/program
  check "one that cannot be run: 126" exits 126 -- docker run --rm busybox /etc
  check "a mistake in the options: 125" exits 125 -- docker run --rm --memory 1 busybox true
  check "an image that is not there: 125" exits 125 -- docker run --rm --pull never no.such/image:1
  check "nothing remains of --rm" prints '' -- docker ps -aq
  check "stdout and stderr are apart" eval '[ "$(docker run --rm busybox sh -c "echo out; echo err >&2" 2>/dev/null)" = out ]'
  check "stdin goes in" eval '[ "$(echo through | docker run --rm -i busybox cat)" = through ]'
  check "large input comes back whole" eval '[ "$(head -c 20000000 /dev/zero | docker run --rm -i busybox sh -c "cat | wc -c")" = 20000000 ]'
  check "a terminal" says '^/dev/pts/0$' '^40 200$' -- tty "docker run --rm -it busybox sh -c 'sleep 0.5; tty; stty size'"
  check "-d prints an id" says '^[0-9a-f]{64}$' -- docker run -d --name worker --label role=test -e COLOUR=red busybox sh -c 'trap "exit 4" TERM; echo started; while :; do sleep 0.1; done'
  check "the name is taken" fails 'Conflict. The container name "/worker" is already in use by container' -- docker run --name worker busybox true
  check "ps" says '^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES$' '^[0-9a-f]{12} +busybox +"sh -c .* Up .*second.* +worker$' -- docker ps
  check "ps filters" prints worker -- docker ps --filter label=role=test --filter status=running --format '{{.Names}}'
  check "ps filters out" prints '' -- docker ps --filter label=role=other -q
  check "top" says 'PID' 'sh -c trap' -- docker top worker
  check "exec" prints red -- docker exec worker sh -c 'echo $COLOUR'
  check "exec's environment, user and directory" prints 'blue nobody /tmp' -- docker exec -e X=blue -u nobody -w /tmp worker sh -c 'echo $X $(whoami) $PWD'
  check "exec's exit code" exits 9 -- docker exec worker sh -c 'exit 9'
  check "exec of what is not there" fails 'no such file' -- docker exec worker /no/such/program
  check "exec with stdin" eval '[ "$(echo in | docker exec -i worker cat)" = in ]'
  check "exec on a terminal" says '^/dev/pts/' -- tty docker exec -it worker tty
  check "detached exec" docker exec -d worker touch /tmp/made
  soon 5 "it happens" docker exec worker test -e /tmp/made
  check "inspect" json '.[0] | .State.Running and .State.Pid > 1 and .Name == "/worker" and .Config.Labels.role == "test" and
    (.Config.Env | index("COLOUR=red")) and .HostConfig.NetworkMode != null and .Path == "sh" and (.Args | length) == 2' -- docker inspect worker
  check "stats" says 'worker' '[0-9.]+(KiB|MiB) / ' -- docker stats --no-stream
  check "stats in detail" json '.memory_stats.usage > 0 and .cpu_stats.cpu_usage.total_usage > 0 and .pids_stats.current > 0' -- \
    curl -sS --unix-socket "$SOCKET" "http://d/v1.41/containers/worker/stats?stream=false"
  check "pause" docker pause worker
  check "it is paused" prints 'paused true' -- inspect '{{.State.Status}} {{.State.Paused}}' worker
  check "a paused one has no exec" fails 'is paused' -- docker exec worker true
  check "unpause" docker unpause worker
  check "rename" docker rename worker renamed
  check "the old name is free" fails 'No such (container|object): worker' -- docker inspect worker
  check "the new one works" says '^started$' -- docker logs renamed
  docker wait renamed >"$WORK/waited" & local wait=$!
  check "stop sends SIGTERM" prints renamed -- docker stop renamed
  check "wait tells the exit code" eval 'wait $wait; [ "$(cat "$WORK/waited")" = 4 ]'
  check "it has exited" prints 'exited 4 false' -- inspect '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' renamed
  check "ps -a" says 'Exited \(4\) .* ago +renamed$' -- docker ps -a
  check "exec in a stopped one" fails 'is not running' -- docker exec renamed true
  check "start again" prints renamed -- docker start renamed
  check "kill -s" docker kill -s TERM renamed
  check "the signal's handler ran" prints 4 -- docker wait renamed
  check "restart starts one that has ended" docker restart -t 1 renamed
  check "running, not removed without force" fails '(is running|You cannot remove a running container|cannot remove container)' -- docker rm renamed
  check "rm -f" prints renamed -- docker rm -f renamed
  check "then there is none" fails 'No such container: renamed' -- docker rm renamed
  check "one that ignores SIGTERM is killed when time is over" eval '
    docker run -d --name stubborn busybox sh -c "trap \"\" TERM; while :; do sleep 0.2; done" && s=$EPOCHREALTIME && docker stop -t 1 stubborn &&
    [ "$(inspect "{{.State.ExitCode}}" stubborn)" = 137 ] && [ $((${EPOCHREALTIME%.*} - ${s%.*})) -le 3 ]'
  check "start -a attaches" eval 'docker create --name again busybox echo twice && [ "$(docker start -a again)" = twice ] && [ "$(docker start -a again)" = twice ]'
  docker rm -f stubborn again >/dev/null 2>&1
}

attach_and_logs() {
  step "attach, logs"
  docker create -i --name echo busybox sh -c 'while read line; do echo "got $line"; done; exit 6' >/dev/null
  check "start -ai carries input, output and the exit code" eval '
    printf "a\nb\n" | docker start -ai echo >"$WORK/attached"; [ $? -eq 6 ] && [ "$(cat "$WORK/attached")" = "got a
got b" ]'
  docker run -d --name talker busybox sh -c 'for i in 1 2 3 4 5; do echo line $i; done; sleep 0.3; echo oops >&2; sleep 0.5; echo last' >/dev/null
  check "logs -f ends with the container" says '^line 1$' '^last$' -- docker logs -f talker
  check "--tail" prints $'oops\nlast' -- docker logs --tail 2 talker
  check "--timestamps" says '^20[0-9-]{8}T[0-9:.]+Z line 3$' -- docker logs -t talker
  check "--since the future is nothing" prints '' -- docker logs --since 2100-01-01T00:00:00Z talker
  check "--until the past is nothing" prints '' -- docker logs --until 2000-01-01T00:00:00Z talker
  check "stderr is told apart" eval '[ "$(docker logs talker 2>&1 >/dev/null)" = oops ]'
  check "a line without its end" eval 'docker run --name unended busybox printf abc && [ "$(docker logs unended)" = abc ]'
  check "a very long line stays one" eval '
    docker run --name long busybox sh -c "head -c 100000 /dev/zero | tr \"\\000\" x; echo" >/dev/null && [ "$(docker logs long | awk "{ print length }")" = 100000 ]'
  check "rotation" eval '
    docker run --name rotated --log-opt max-size=20k --log-opt max-file=2 busybox seq 1 20000 >/dev/null &&
    docker logs rotated >"$WORK/rotated" && [ "$(tail -n 1 "$WORK/rotated")" = 20000 ] && [ "$(wc -l <"$WORK/rotated")" -lt 5000 ]'
  check "the local driver" eval 'docker run --name locally --log-driver local busybox echo kept >/dev/null && [ "$(docker logs locally)" = kept ]'
  check "no log at all" eval 'docker run --name silent --log-driver none busybox echo lost >/dev/null'
  check "then there is nothing to read" fails 'does not support reading' -- docker logs silent
  docker rm -f echo talker unended long rotated locally silent >/dev/null 2>&1
}

files() {
  step "cp, diff, commit, export, import"
  docker run -d --name box busybox sh -c 'mkdir /made; echo one >/made/file; rm /etc/group; exec sleep 1000' >/dev/null
  soon 5 "diff" says '^A /made$' '^A /made/file$' '^C /etc$' '^D /etc/group$' -- docker diff box
  mkdir -p "$WORK/tree/sub"; echo two >"$WORK/tree/sub/two"; ln -s two "$WORK/tree/sub/link"
  check "cp in" docker cp "$WORK/tree" box:/made/tree
  check "it is there" prints two -- docker exec box cat /made/tree/sub/link
  check "cp out" eval 'docker cp box:/made "$WORK/came" && [ "$(cat "$WORK/came/file")$(cat "$WORK/came/tree/sub/two")$(readlink "$WORK/came/tree/sub/link")" = onetwotwo ]'
  check "cp to stdout is tar" eval 'docker cp box:/made/file - | tar -xO | grep -qx one'
  check "cp of what is not there" fails '(Could not find|No such|no such)' -- docker cp box:/no/such/file "$WORK/nothing"
  check "cp from a stopped container" eval 'docker stop -t 0 box && docker cp box:/made/file "$WORK/stopped" && [ "$(cat "$WORK/stopped")" = one ] && docker start box'
  check "commit" says '^sha256:[0-9a-f]{64}$' -- docker commit -m 'made it' -c 'ENV COLOUR=green' -c 'CMD ["cat","/made/file"]' box made:1
  check "its container runs" prints one -- docker run --rm made:1
  check "with the change" prints green -- docker run --rm made:1 sh -c 'echo $COLOUR'
  check "history" says 'made it' -- docker history made:1
  check "export and import" eval 'docker export box | docker import -c "CMD [\"cat\",\"/made/file\"]" - flat:1 && [ "$(docker run --rm flat:1)" = one ]'
  check "a flat image has one layer" prints 1 -- docker image inspect -f '{{len .RootFS.Layers}}' flat:1
  docker rm -f box >/dev/null 2>&1
  check "rmi" says 'Untagged: flat:1' 'Deleted: sha256:' -- docker rmi flat:1
}

images() {
  step "images"
  check "ls" says '^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE$' '^busybox +latest +[0-9a-f]{12} +.* ago +[0-9.]+[kM]B$' -- docker image ls
  check "inspect" json '.[0] | .Os == "linux" and (.RepoTags | index("busybox:latest")) and .RootFS.Type == "layers" and .Size > 100000 and
    .Config.Cmd == ["sh"] and .Architecture == "amd64" or .Architecture == "arm64"' -- docker image inspect busybox
  check "tag" docker tag busybox example.com:5000/some/where:v1
  check "filters" prints example.com:5000/some/where:v1 -- docker images --filter 'reference=example.com:5000/*/*' --format '{{.Repository}}:{{.Tag}}'
  check "save, remove, load" eval '
    docker save -o "$WORK/saved.tar" example.com:5000/some/where:v1 made:1 && docker rmi example.com:5000/some/where:v1 made:1 &&
    docker load -i "$WORK/saved.tar" | grep -c "Loaded image: \(example.com:5000/some/where\|made\):" | grep -qx 2 && [ "$(docker run --rm made:1)" = one ]'
  check "save streams, gzip is loaded" eval 'docker save made:1 | gzip | docker load | grep "Loaded image" >/dev/null'
  check "an image in use stays" eval 'docker run -d --name user made:1 sleep 1000 >/dev/null; ! docker rmi $(docker images -q made:1) >"$WORK/rmi" 2>&1 && grep -q "conflict" "$WORK/rmi"'
  check "its only tag too" fails 'conflict: unable to (remove repository reference|delete)' -- docker rmi made:1
  docker rm -f user >/dev/null
  check "no such image" fails 'No such image: no.such/image:latest' -- docker image inspect no.such/image
  docker tag made:1 other:1 && docker rmi other:1 >/dev/null
  check "prune of dangling ones" eval 'docker commit $(docker create made:1) made:1 >/dev/null && docker container prune -f && docker image prune -f | grep "^deleted: sha256\|^Total reclaimed space" >/dev/null'
  check "prune -a keeps what is used" eval 'docker run -d --name user busybox sleep 1000 && docker image prune -a -f --filter until=0s >/dev/null;
    docker image prune -af >/dev/null && docker image inspect busybox >/dev/null && ! docker image inspect made:1 >/dev/null 2>&1'
  docker rm -f user >/dev/null
  load busybox quantum-game
}

limits() {
  step "limits and security"
  check "memory" prints $((64 << 20)) -- docker run --rm -m 64m busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
  check "one that takes too much is killed" exits 137 -- docker run --name greedy -m 16m --memory-swap 16m busybox sh -c 'x=$(head -c 60000000 /dev/zero | tr "\000" x); echo ${#x}'
  check "it says so" prints true -- inspect '{{.State.OOMKilled}}' greedy
  check "cpus" eval '[ "$(docker run --rm --cpus 0.5 busybox sh -c "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d\  -f1 /sys/fs/cgroup/cpu.max")" = 50000 ]'
  check "pids" fails "(can't fork|Resource temporarily)" -- docker run --rm --pids-limit 8 busybox sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done 2>&1'
  check "ulimits" prints 123 -- docker run --rm --ulimit nofile=123:456 busybox sh -c 'ulimit -n'
  check "user and groups" prints '1000:1000 7' -- docker run --rm -u 1000:1000 --group-add 7 busybox sh -c 'echo $(id -u):$(id -g) $(id -G | tr " " "\n" | grep -x 7)'
  check "a named user" prints nobody -- docker run --rm -u nobody busybox whoami
  check "an unknown user" fails 'unable to find user nonesuch' -- docker run --rm -u nonesuch busybox true
  check "host name" prints 'thing thing.example' -- docker run --rm -h thing --domainname example busybox sh -c 'echo $(hostname) $(hostname).example'
  check "working directory" prints /some/where -- docker run --rm -w /some/where busybox pwd
  check "entrypoint" prints 'a b' -- docker run --rm --entrypoint echo busybox a b
  check "environment file" eval 'printf "A=1\nB=2\n" >"$WORK/env"; [ "$(docker run --rm --env-file "$WORK/env" busybox sh -c "echo \$A\$B")" = 12 ]'
  check "read-only" fails 'Read-only file system' -- docker run --rm --read-only busybox touch /file
  check "with a tmpfs" says '^tmpfs /scratch tmpfs rw.*size=1024k' -- docker run --rm --read-only --tmpfs /scratch:size=1m busybox sh -c 'touch /scratch/file && grep /scratch /proc/mounts'
  check "capabilities dropped" fails 'not permitted' -- docker run --rm --cap-drop CHOWN busybox chown 1:1 /tmp
  check "and default ones" eval '[ $((0x$(docker run --rm busybox awk "/CapEff/ { print \$2 }" /proc/self/status))) -eq $((0x00000000a80425fb & 0x$(awk "/CapBnd/ { print \$2 }" /proc/self/status))) ]'
  check "mounting is not allowed" fails 'denied|not permitted' -- docker run --rm busybox mount -t tmpfs x /mnt
  check "privileged may" docker run --rm --privileged busybox sh -c 'mkdir -p /m && mount -t tmpfs x /m'
  check "masked paths" prints 0 -- docker run --rm busybox sh -c 'cat /proc/keys 2>/dev/null | wc -l'
  check "/proc/sys is read-only" fails 'Read-only' -- docker run --rm busybox sh -c 'echo 1 >/proc/sys/kernel/domainname'
  check "sysctls" prints 42 -- docker run --rm --sysctl net.ipv4.ip_default_ttl=42 busybox cat /proc/sys/net/ipv4/ip_default_ttl
  check "no new privileges" prints 1 -- docker run --rm --security-opt no-new-privileges busybox awk '/NoNewPrivs/ { print $2 }' /proc/self/status
  check "seccomp is on" prints 2 -- docker run --rm busybox awk '/Seccomp:/ { print $2 }' /proc/self/status
  check "and may be off" prints 0 -- docker run --rm --security-opt seccomp=unconfined busybox awk '/Seccomp:/ { print $2 }' /proc/self/status
  check "--init reaps" says 'init' -- docker run --rm --init busybox ps
  check "host's pid namespace" says "_machine" -- docker run --rm --pid host busybox ps
  check "a container's pid namespace" eval 'docker run -d --name first busybox sleep 1234 && docker run --rm --pid container:first busybox ps | grep -q "sleep 1234"'
  check "shm size" says ' 8192 ' -- docker run --rm --shm-size 8m busybox df -k /dev/shm
  check "devices" says '^c' -- docker run --rm --device /dev/null:/dev/naught busybox sh -c 'ls -l /dev/naught'
  check "update" docker update -m 32m --memory-swap 64m --restart on-failure:3 first
  check "it is told" prints "$((32 << 20)) on-failure" -- inspect '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}' first
  check "and works" prints $((32 << 20)) -- docker exec first sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
  docker rm -f greedy first >/dev/null 2>&1
}

volumes() {
  step "volumes and mounts"
  check "create" prints kept -- docker volume create --label a=b kept
  check "it keeps what is written" eval 'docker run --rm -v kept:/data busybox sh -c "echo precious >/data/file" && [ "$(docker run --rm -v kept:/d:ro busybox cat /d/file)" = precious ]'
  check "read-only is" fails 'Read-only' -- docker run --rm -v kept:/d:ro busybox touch /d/x
  check "ls and inspect" json '.[0] | .Driver == "local" and .Labels.a == "b" and .Scope == "local" and (.Mountpoint | test("kept"))' -- docker volume inspect kept
  check "a volume that is new gets the image's files" says '^passwd$' -- docker run --rm -v copied:/etc busybox ls /etc
  check "--mount" prints precious -- docker run --rm --mount type=volume,src=kept,dst=/d,readonly busybox cat /d/file
  mkdir -p "$WORK/bound"; echo host >"$WORK/bound/file"
  check "bind" prints host -- docker run --rm -v "$WORK/bound:/b" busybox cat /b/file
  check "bind --mount of what is not there" fails 'bind source path does not exist' -- docker run --rm --mount "type=bind,src=$WORK/absent,dst=/b" busybox true
  check "bind -v makes it" eval 'docker run --rm -v "$WORK/absent:/b" busybox touch /b/x && [ -e "$WORK/absent/x" ]'
  check "volumes-from" eval 'docker run -d --name holder -v kept:/data busybox sleep 1000 && [ "$(docker run --rm --volumes-from holder busybox cat /data/file)" = precious ]'
  check "in use" fails 'volume is in use' -- docker volume rm kept
  docker rm -f holder >/dev/null
  check "an anonymous one goes with --rm" eval 'n=$(docker volume ls -q | wc -l); docker run --rm -v /anonymous busybox true; [ "$(docker volume ls -q | wc -l)" = "$n" ]'
  check "rm" prints kept -- docker volume rm kept
  check "no such volume" fails '[Nn]o such volume' -- docker volume inspect kept
  check "prune" eval 'docker run --name mounted -v /anonymous busybox true; docker rm mounted; docker volume prune -f && ! docker volume ls -q | grep -qx "[0-9a-f]\{64\}"'
  docker volume rm copied >/dev/null 2>&1
}

networks() {
  step "networks"
  check "the default ones" says '^[0-9a-f]{12} +bridge +bridge +local$' ' host +host +local$' ' none +null +local$' -- docker network ls
  check "create" says '^[0-9a-f]{64}$' -- docker network create --subnet 10.55.0.0/24 --gateway 10.55.0.1 --label a=b blue
  check "an id for another" says '^[0-9a-f]{64}$' -- docker network create red
  check "a name is used once" fails 'already exists' -- docker network create blue
  check "an overlap" fails 'Pool overlaps|overlap' -- docker network create --subnet 10.55.0.0/25 overlapping
  docker run -d --name game --network blue --network-alias play --network-alias fun spkane/quantum-game >/dev/null
  docker run -d --name visitor --network blue --ip 10.55.0.77 busybox sleep 1000 >/dev/null
  docker run -d --name stranger --network red busybox sleep 1000 >/dev/null
  check "the address that was asked for" prints 10.55.0.77 -- inspect '{{.NetworkSettings.Networks.blue.IPAddress}}' visitor
  check "it has it" says 'inet 10\.55\.0\.77/24' -- docker exec visitor ip addr
  check "an address that is taken" fails 'Address already in use' -- docker run --rm --network blue --ip 10.55.0.77 busybox true
  check "an address outside" fails '(no configured subnet|not in|does not belong|invalid)' -- docker run --rm --network blue --ip 10.56.0.7 busybox true
  for name in game play fun; do check "name $name answers" says blue -- docker exec visitor wget -qO- "http://$name:8080/"; done
  check "its id too" says blue -- docker exec visitor wget -qO- "http://$(docker ps -q --filter name=game):8080/"
  check "the way back" says 'game.blue' -- docker exec visitor nslookup "$(inspect '{{.NetworkSettings.Networks.blue.IPAddress}}' game)"
  check "an unknown name does not" fails "bad address|can't resolve" -- docker exec visitor wget -T 5 -qO- http://nowhere:8080/
  check "another network does not know it" fails "bad address" -- docker exec stranger wget -T 5 -qO- http://game:8080/
  check "nor reaches it" fails 'timed out|unreachable|refused|reset' -- docker exec stranger wget -T 2 -qO- "http://$(inspect '{{.NetworkSettings.Networks.blue.IPAddress}}' game):8080/"
  check "connect" docker network connect --alias guest red game
  check "now it does" says blue -- docker exec stranger wget -T 5 -qO- http://guest:8080/
  check "inspect lists who is there" json '.[0] | .IPAM.Config[0].Subnet == "10.55.0.0/24" and ([.Containers[].Name] | sort) == ["game","visitor"] and .Labels.a == "b"' -- docker network inspect blue
  check "disconnect" docker network disconnect red game
  check "and no more" fails "bad address" -- docker exec stranger wget -T 5 -qO- http://game:8080/
  check "a network in use stays" fails 'has active endpoints' -- docker network rm blue
  check "none" prints 'lo' -- docker run --rm --network none busybox sh -c 'ls /sys/class/net | grep -v "^sit\|^tunl\|^ip6\|^gre\|^erspan" | xargs'
  check "host" says 'eth0' 'inet 192.0.2.1/24' -- docker run --rm --network host busybox ip addr
  check "another container's" says 'inet 10\.55\.0\.77/24' -- docker run --rm --network container:visitor busybox ip addr
  check "/etc/hosts" says '^10\.55\.0\.77\s+' -- docker exec visitor cat /etc/hosts
  check "extra hosts" says '^192\.0\.2\.9\s+extra$' -- docker run --rm --add-host extra:192.0.2.9 busybox cat /etc/hosts
  check "name servers of one's own" says '^nameserver 192.0.2.53$' '^search example.net$' -- docker run --rm --dns 192.0.2.53 --dns-search example.net busybox cat /etc/resolv.conf
  check "a fixed MAC address" says '02:42:ac:11:00:99' -- docker run --rm --mac-address 02:42:ac:11:00:99 busybox ip link
  check "the outside is reached" says '^ok' -- reach_out
  docker network create --internal closed >/dev/null
  check "but not from an internal network" fails '.' -- docker run --rm --network closed busybox wget -T 2 -qO- http://192.0.2.2:7777/
  docker rm -f game visitor stranger >/dev/null
  check "with IPv6" docker network create --ipv6 --subnet 2001:db8:7::/64 six
  docker run -d --name one6 --network six --ip6 2001:db8:7::77 busybox sleep 1000 >/dev/null
  check "the address that was asked for" prints '2001:db8:7::77 2001:db8:7::1' -- inspect '{{.NetworkSettings.Networks.six.GlobalIPv6Address}} {{.NetworkSettings.Networks.six.IPv6Gateway}}' one6
  check "it answers by name" says ' 0% packet loss' -- docker run --rm --network six busybox ping6 -c 1 -W 2 one6
  docker rm -f one6 >/dev/null; docker network rm six >/dev/null
  check "rm" says '^blue$' '^closed$' -- docker network rm blue closed
  check "prune" says '^red$' -- docker network prune -f
  check "none of them remain" lacks ' (blue|red|closed) ' -- docker network ls
  check "a default one stays" fails 'pre-defined network' -- docker network rm bridge
}
reach_out() {
  local server status
  mkdir -p "$WORK/site"; echo ok >"$WORK/site/index.html"
  ip netns exec outside busybox httpd -f -p 7777 -h "$WORK/site" & server=$!
  for _ in {1..5}; do docker run --rm busybox wget -T 2 -qO- http://192.0.2.2:7777/ && break; sleep 0.2; done
  status=$?
  kill "$server"
  return $status
}

# Debian's busybox has no netcat for UDP.
UDP_ECHO='import socket
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("", 9999))
while True: s.sendto(*s.recvfrom(99))'
ports() {
  step "published ports"
  docker run -d --name web -p 8081:8080 -p 127.0.0.1:8082:8080 -p 8080 spkane/quantum-game >/dev/null
  check "port" says '8080/tcp -> 0.0.0.0:8081' '8080/tcp -> 127.0.0.1:8082' -- docker port web
  soon 5 "at the machine's address" says blue -- get http://192.0.2.1:8081/
  check "at 127.0.0.1" says blue -- get http://127.0.0.1:8081/
  check "from another machine" says blue -- outside curl -fsS -m 5 http://192.0.2.1:8081/
  check "a loopback port is for this machine" says blue -- get http://127.0.0.1:8082/
  check "and not for others" fails '.' -- outside curl -fsS -m 2 http://192.0.2.1:8082/
  random=$(docker port web 8080/tcp | grep -vE ':808[12]$' | head -n 1); random=${random##*:}
  check "a port that was chosen" says blue -- get "http://192.0.2.1:$random/"
  check "from another container, through the machine" says blue -- docker run --rm busybox wget -T 5 -qO- http://192.0.2.1:8081/
  check "a port that is taken" fails 'port is already allocated|address already in use' -- docker run --name taken -p 8081:80 busybox true
  busybox httpd -f -p 8083 -h / & local other=$!
  soon 5 "somebody else listens" get -o /dev/null http://127.0.0.1:8083/etc/passwd
  check "that is not taken away" fails 'already in use' -- docker run --name taken2 -p 8083:80 busybox true
  kill $other
  check "the port is free after removal" eval 'docker rm -f web taken taken2 >/dev/null && ! get http://127.0.0.1:8081/'
  load httpbin
  docker run -d --name udp -p 8084:9999/udp --entrypoint python3 kennethreitz/httpbin -c "$UDP_ECHO" >/dev/null
  soon 10 "udp" prints ping -- python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(1); s.sendto(b"ping", ("127.0.0.1", 8084)); print(s.recv(9).decode())'
  docker rm -f udp >/dev/null 2>&1
}

health_and_restart() {
  step "health checks and restart policies"
  docker run -d --name healthy --health-cmd 'test -e /tmp/well' --health-interval 300ms --health-retries 2 --health-timeout 2s busybox sleep 1000 >/dev/null
  check "it starts" says '^(starting|unhealthy)$' -- inspect '{{.State.Health.Status}}' healthy
  soon 10 "it becomes unhealthy" prints unhealthy -- inspect '{{.State.Health.Status}}' healthy
  check "ps says so" says '\(unhealthy\)' -- docker ps
  docker exec healthy touch /tmp/well
  soon 10 "and healthy" prints healthy -- inspect '{{.State.Health.Status}}' healthy
  check "the log of the checks" json '.[0].State.Health | .FailingStreak == 0 and (.Log[-1].ExitCode == 0) and (.Log | length) <= 5' -- docker inspect healthy
  docker run -d --name retried --restart on-failure:2 busybox sh -c 'echo try; exit 5' >/dev/null
  soon 15 "on-failure ends after its tries" prints '2 exited 5' -- inspect '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' retried
  check "it ran three times" prints $'try\ntry\ntry' -- docker logs retried
  docker run -d --name always --restart always busybox sh -c 'echo run; sleep 0.1' >/dev/null
  soon 15 "always comes back" eval '[ "$(docker logs always | grep -c run)" -ge 3 ]'
  check "until it is stopped" docker stop -t 1 always
  local before; before=$(docker logs always | wc -l)
  stays 2 "then it stays so" eval '[ "$(docker logs always | wc -l)" = '"$before"' ]'
  check "--rm with a policy is a mistake" exits 125 -- docker run --rm --restart always busybox true
  docker rm -f healthy retried always >/dev/null
}

system() {
  step "system"
  command docker events --format '{{.Type}} {{.Action}} {{index .Actor.Attributes "name"}}' >"$WORK/events" & local events=$!
  sleep 0.5
  docker run --name evented busybox true; docker rm evented >/dev/null; docker volume create vol >/dev/null; docker volume rm vol >/dev/null
  docker network create net >/dev/null; docker network rm net >/dev/null
  for line in 'container create evented' 'container start evented' 'container die evented' 'container destroy evented' 'volume create' 'volume destroy' 'network create net' 'network destroy net'; do
    soon 3 "event: $line" grep -qE "^$line" "$WORK/events"
  done
  kill $events
  check "events of the past" says 'container create' 'container die .*exitCode=0' -- docker events --since 1m --until "$(date -u +%FT%T.%NZ)" --filter container=evented
  check "version" says '^Client' '^Server' 'API version: +1\.[0-9]+ \(minimum version 1\.' 'OS/Arch: +linux/' -- docker version
  check "info" says '^ *Containers: 0' '^ *Images: [0-9]+' '^ *Storage Driver: overlay' '^ *Swarm: inactive' '^ *Operating System: ' "^ *CPUs: $(nproc)" '^ *Name: machine' "^ *Docker Root Dir: $DATA" -- docker info
  check "system df" says '^Images +[0-9]+' '^Containers +0' '^Local Volumes +' '^Build Cache' -- docker system df
  check "system df -v" says 'busybox' -- docker system df -v
  check "system prune" says 'Total reclaimed space' -- docker system prune -f
  check "an older client" json '.Version != null' -- curl -sS --unix-socket "$SOCKET" http://d/v1.24/version
  check "nothing is left" prints '' -- leftovers
}

need_daemon
load busybox quantum-game
life
attach_and_logs
files
images
limits
volumes
networks
ports
health_and_restart
system
check "the daemon ends when asked" daemon_down
