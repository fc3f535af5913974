# Hosts of the acceptance scripts of clusters, which begin with: . "$(dirname "$0")/lib.sh" and . "$LIB/_hosts.sh"
#
# A host is a machine with network, mounts, processes, host name and cgroups of its own, on a switch that the script's
# machine is plugged into as 192.0.3.254. Its files are below $WORK/hN, its engine's socket is $WORK/hN.sock.
#
#   hosts_up N                 hosts 1 to N, h1 to hN at 192.0.3.1 to 192.0.3.N
#   host_off N, host_up N      as if its power failed; as if it came back
#   unplug N, plug N           its cable
#   node_up N [OPTION...]      its daemon; node_down N as an init system would, node_kill N as a fault would
#   cluster_up N M             all of that, as a cluster of N nodes, the first M of them managers
#   on N COMMAND...            a command with that host's engine; inside N COMMAND... on that host
#   pool N FILE...             archives of $TRIPOD_IMAGES loaded on that host
# shellcheck shell=bash

SWITCH=192.0.3.254
HOSTS=() NODES=()

address() { echo "192.0.3.$1"; }
on() { DOCKER_HOST=unix://$WORK/h$1.sock "${@:2}"; }
inside() { nsenter -t "${HOSTS[$1]}" -m -u -i -n -p --wdns=/ -- "${@:2}"; }

hosts_up() {
  local n
  ip link add sw0 type bridge
  ip addr add "$SWITCH/24" dev sw0
  ip link set sw0 up
  for ((n = 1; n <= $1; n++)); do host_up "$n" || return; done
}
host_up() {
  local n=$1 shell
  mkdir -p "$WORK/h$n" "/tmp/h$n-$TRIPOD_MACHINE"
  HOST=h$n HOST_ADDRESS=$(address "$n") HOST_SWITCH=$SWITCH unshare --mount "$LIB/_machine" --groups "h$n-$TRIPOD_MACHINE" \
    bash -c 'sleep infinity & wait' </dev/null >"$WORK/h$n/init.log" 2>&1 &
  shell=$!
  # The last of the stages is `unshare`, whose child is the host's first process.
  until grep -q -- --inside "/proc/$shell/cmdline" && HOSTS[n]=$(pgrep -P "$shell"); do
    kill -0 "$shell" || { cat "$WORK/h$n/init.log"; return 1; }
    sleep 0.02
  done
  ip link add "h$n" type veth peer name eth0 netns "/proc/${HOSTS[n]}/ns/net"
  ip link set "h$n" master sw0 up
  until inside "$n" ip route 2>/dev/null | grep -q ^default; do
    kill -0 "$shell" || { cat "$WORK/h$n/init.log"; return 1; }
    sleep 0.02
  done
}
host_off() {
  kill -KILL "${HOSTS[$1]}"
  tail --pid="${HOSTS[$1]}" -f /dev/null
  unset "HOSTS[$1]" "NODES[$1]"
  ip link del "h$1" 2>/dev/null # goes with its other end, in a moment
  local top tries
  for top in $(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts); do
    for tries in {1..50}; do
      [ -d "$top/h$1-$TRIPOD_MACHINE" ] || break
      find "$top/h$1-$TRIPOD_MACHINE" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
  done
}
unplug() { ip link set "h$1" down; }
plug() { ip link set "h$1" up; }

node_up() {
  local n=$1 end=$((SECONDS + 30)); shift
  rm -f "$WORK/h$n.sock"
  inside "$n" "$TRIPOD" daemon --data-root "$WORK/h$n/data" --host "unix://$WORK/h$n.sock" "$@" \
    >>"$WORK/h$n/daemon.log" 2>&1 </dev/null &
  NODES[n]=$!
  until curl -fs -m 2 -o /dev/null --unix-socket "$WORK/h$n.sock" http://d/_ping; do
    kill -0 "${NODES[n]}" && [ $SECONDS -lt "$end" ] || { echo "node $n does not serve:"; tail -n 20 "$WORK/h$n/daemon.log"; return 1; }
    sleep 0.02
  done
}
# The daemon runs in a process namespace: nsenter waits for it, and does not pass signals on.
node_signal() { kill "-$2" "$(pgrep -P "${NODES[$1]}")"; }
node_down() { node_signal "$1" TERM && wait "${NODES[$1]}"; }
node_kill() { node_signal "$1" KILL; wait "${NODES[$1]}" 2>/dev/null; }

cluster_up() {
  local n role
  check "hosts start" hosts_up "$1" || exit
  for ((n = 1; n <= $1; n++)); do check "the daemon of h$n gets ready" node_up "$n" || exit; done
  check "h1 makes the cluster" says 'is now a manager' -- on 1 docker swarm init --advertise-addr "$(address 1)" || exit
  for ((n = 2; n <= $1; n++)); do
    role=worker
    [ "$n" -gt "$2" ] || role=manager
    check "h$n joins as a $role" says 'This node joined a swarm' -- \
      on "$n" docker swarm join --token "$(on 1 docker swarm join-token -q $role)" "$(address 1):2377" || exit
  done
  soon 20 "all nodes are ready" prints "$1" -- eval "on 1 docker node ls --format '{{.Status}}' | grep -c Ready"
}
pool() {
  local n=$1 name; shift
  for name; do check "$name.tar is loaded on h$n" says 'Loaded image' -- on "$n" docker load -i "$TRIPOD_IMAGES/$name.tar" || exit; done
}
node_logs() { local n; for n in "${!NODES[@]}"; do echo "# the end of h$n's log:"; tail -n "${1:-15}" "$WORK/h$n/daemon.log"; done; }
