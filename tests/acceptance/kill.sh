#!/bin/bash
# The daemon, the keeper, or both are killed with SIGKILL at random instants while services are updated: containers go
# on, no line of a log is lost, exit codes are known, what was acknowledged is there, and nothing is left in the end.
. "$(dirname "$0")/lib.sh"
[ "$ENGINE" = tripod ] || { check "only for tripod" true; exit; }

keeper() { pgrep -f "keeper /run/tripod/" | head -n 1; }
keeper_kill() { local pid; pid=$(keeper); [ -n "$pid" ] && kill -KILL "$pid"; }
again() { daemon_up || { FAILED=$((FAILED + 1)); echo "not ok - the daemon gets ready again"; exit; }; }
state() { inspect '{{.State.Status}} {{.State.ExitCode}}' "$1"; }
# whole FILE: it holds the numbers 1, 2, 3 ... in order
whole() { awk '$1 != NR { print "line " NR " is " $1; exit 1 } END { if (NR < 10) { print NR " lines"; exit 1 } }' "$1"; }
counted() { docker logs "$1" >"$WORK/counted" 2>/dev/null && whole "$WORK/counted"; }

standing() {
  step "the daemon is killed"
  docker run -d --name counter busybox sh -c 'i=0; while :; do i=$((i + 1)); echo $i; usleep 2000; done' >/dev/null
  docker run -d --name web -p 8001:8080 spkane/quantum-game >/dev/null
  docker run -d --name later busybox sh -c 'while [ ! -e /go ]; do sleep 0.05; done; exit 7' >/dev/null
  docker run -d --name restarted --restart always busybox sh -c 'while [ ! -e /go ]; do sleep 0.05; done; rm /go; exit 1' >/dev/null
  docker run -d --name killed busybox sleep 1000 >/dev/null
  docker run -dt --name terminal busybox sh >/dev/null
  local pid code; pid=$(inspect '{{.State.Pid}}' counter)
  local later; later=$(inspect '{{.State.Pid}}' later)
  local due; due=$(inspect '{{.State.Pid}}' restarted)
  sleep 1
  daemon_kill
  check "containers go on" kill -0 "$pid"
  check "their ports answer" says blue -- get http://192.0.2.1:8001/
  touch "/proc/$later/root/go"
  kill -KILL "$(pgrep -f '^sleep 1000$')"
  touch "/proc/$due/root/go"
  timeout 10 tail --pid="$later" -f /dev/null
  sleep 1
  check "it starts again" daemon_up
  check "the same process runs" prints "running $pid" -- inspect '{{.State.Status}} {{.State.Pid}}' counter
  soon 5 "an exit code that fell in between" prints 'exited 7' -- state later
  soon 5 "a kill that fell in between" prints 'exited 137' -- state killed
  soon 10 "a restart that was due" eval '[ "$(inspect "{{.State.Running}}" restarted)" = true ] && [ "$(inspect "{{.State.Pid}}" restarted)" != '"$due"' ]'
  check "no line of the log is lost" counted counter
  check "following goes on" eval 'docker logs -f --tail 1 counter >"$WORK/follow" & sleep 1; kill $!; [ "$(wc -l <"$WORK/follow")" -gt 10 ]'
  check "exec works" prints yes -- docker exec counter echo yes
  check "the port answers" says blue -- get http://192.0.2.1:8001/
  check "a terminal works" eval 'docker exec terminal true && [ "$(inspect "{{.State.Running}}" terminal)" = true ]'
  check "stop works" docker stop -t 0 counter
  check "the whole log" counted counter
  check "one daemon per data root" fails 'another daemon' -- "$TRIPOD" daemon --data-root "$DATA" --host "unix://$WORK/second.sock"
  check "all can be removed" docker rm -f counter web later restarted killed terminal
  soon 5 "nothing is left" prints '' -- leftovers

  step "the keeper is killed"
  docker run -d --name counter busybox sh -c 'i=0; while :; do i=$((i + 1)); echo $i; usleep 2000; done' >/dev/null
  pid=$(inspect '{{.State.Pid}}' counter)
  check "there is one" keeper_kill
  soon 10 "another comes" eval '[ -n "$(keeper)" ]'
  check "the container goes on" kill -0 "$pid"
  soon 10 "it is known" prints "running $pid" -- inspect '{{.State.Status}} {{.State.Pid}}' counter
  soon 10 "its output goes on" eval 'n=$(docker logs counter | wc -l); sleep 0.5; [ "$(docker logs counter | wc -l)" -gt "$n" ]'
  check "exec works" prints yes -- docker exec counter echo yes
  check "new containers run" prints hello -- docker run --rm busybox echo hello
  check "it can be stopped" docker stop -t 0 counter
  check "the log is whole" counted counter
  check "and removed" docker rm counter

  step "both are killed at once"
  docker run -d --name both busybox sleep 1000 >/dev/null
  docker run -d --name ended busybox sleep 2000 >/dev/null
  pid=$(inspect '{{.State.Pid}}' both)
  kill -KILL "$DAEMON" "$(keeper)"; wait "$DAEMON" 2>/dev/null; DAEMON=''
  check "the container goes on" kill -0 "$pid"
  kill -KILL "$(pgrep -f '^sleep 2000$')"
  check "the daemon starts again" daemon_up
  soon 5 "and knows it" prints "running $pid" -- inspect '{{.State.Status}} {{.State.Pid}}' both
  soon 5 "and that the other ended" says '^exited' -- state ended
  check "removed" docker rm -f both ended
  soon 5 "nothing is left" prints '' -- leftovers
}

updates() {
  step "fifty updates of services, with kills in between"
  docker swarm init --advertise-addr 192.0.2.1 >/dev/null
  docker service create -d -q --name web --replicas 3 -p 8000:8080 --update-monitor 100ms --update-delay 0s spkane/quantum-game >/dev/null
  docker service create -d -q --name counter --stop-grace-period 1s busybox sh -c 'i=0; while :; do i=$((i + 1)); echo $i; usleep 5000; done' >/dev/null
  soon 30 "two services run" eval '[ "$(docker service ls --format "{{.Replicas}}" | sort | xargs)" = "1/1 3/3" ]'
  local n acknowledged='' task pid unserved=0 kills=0
  task=$(docker ps -q --filter name=counter.1)
  pid=$(inspect '{{.State.Pid}}' "$task")
  RANDOM=${SEED:-4711}
  (while [ ! -e "$WORK/enough" ]; do # kills, each after a random while
    busybox usleep $((RANDOM * 30))
    echo $((RANDOM % 3)) >"$WORK/strike"
    while [ -e "$WORK/strike" ] && [ ! -e "$WORK/enough" ]; do sleep 0.02; done
  done) &
  local killer=$!
  for ((n = 1; n <= 50; n++)); do
    if docker service update -d -q --env-add "N=$n" --label-add "n=$n" web >"$WORK/updated" 2>&1; then
      acknowledged=$n
    elif [ -n "$DAEMON" ] && kill -0 "$DAEMON" 2>/dev/null && ! grep -qE 'Cannot connect|EOF|reset|update out of sequence|context' "$WORK/updated"; then
      echo "    update $n: $(cat "$WORK/updated")"
      unserved=$((unserved + 1))
    fi
    if [ $((n % 5)) -eq 0 ] && docker secret create "s$n" /etc/hostname >/dev/null 2>&1; then echo "s$n" >>"$WORK/secrets"; fi
    if [ -s "$WORK/strike" ]; then
      case $(<"$WORK/strike") in
      0) daemon_kill ;;
      1) keeper_kill ;;
      2) local k; k=$(keeper); kill -KILL "$DAEMON" $k 2>/dev/null; wait "$DAEMON" 2>/dev/null; DAEMON='' ;;
      esac
      kills=$((kills + 1))
      [ -n "$DAEMON" ] || again
      rm -f "$WORK/strike"
      n_seen=$(docker service inspect -f '{{index .Spec.Labels "n"}}' web 2>/dev/null)
      [ -z "$acknowledged" ] || [ "${n_seen:-0}" -ge "$acknowledged" ] || echo "$acknowledged was acknowledged, $n_seen is there" >>"$WORK/lost"
    fi
    sleep 0.1
  done
  touch "$WORK/enough"
  kill "$killer" 2>/dev/null
  check "there were kills ($kills)" test "$kills" -ge 5
  check "no update was refused" same 0 "$unserved"
  check "nothing acknowledged is lost" eval '[ ! -e "$WORK/lost" ] || { cat "$WORK/lost"; false; }'
  check "secrets are there" eval 'for s in $(cat "$WORK/secrets"); do docker secret inspect "$s" >/dev/null || break; done'
  check "a last update" docker service update -d -q --env-add N=last --label-add n=last --force web
  soon 60 "comes to its end" eval '[ "$(docker service inspect -f "{{.UpdateStatus.State}}" web)" = completed ]'
  soon 20 "three run" eval '[ "$(docker ps --filter name=web. -q | wc -l)" = 3 ] && [ "$(docker service ls --filter name=web --format "{{.Replicas}}")" = 3/3 ]'
  check "all of them are new" eval '[ "$(docker inspect -f "{{.Config.Env}}" $(docker ps -q --filter name=web.) | grep -c "N=last")" = 3 ]'
  check "the port answers" says blue -- get http://192.0.2.1:8000/
  check "the other service was left alone" prints "running $pid" -- inspect '{{.State.Status}} {{.State.Pid}}' "$task"
  check "its log is whole" counted "$task"
  check "no process that nobody knows" eval '[ "$(pgrep -fc "^/bin/quantum")" = 3 ]'
  docker service rm web counter >/dev/null
  soon 20 "no container" prints '' -- docker ps -aq
  check "nothing answers" fails . -- get http://192.0.2.1:8000/
  check "leave" docker swarm leave --force
  soon 10 "nothing is left" prints '' -- leftovers
}

need_daemon
load busybox quantum-game
standing
updates
check "the daemon ends when asked" daemon_down
