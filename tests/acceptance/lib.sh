# Helpers of the acceptance scripts, which begin with: . "$(dirname "$0")/lib.sh"
#
# The script then runs on a machine of its own (see _machine), starts daemons with `daemon_up` and makes checks:
#
#   check TEXT PREDICATE...             one check
#   soon SECONDS TEXT PREDICATE...      one check that may need that long to come true
#
# Predicates run a command and look at it (its output is $OUT afterwards, errors included, its status $RC):
#
#   says RE... -- COMMAND...       it succeeds, and each expression matches a line
#   lacks RE... -- COMMAND...      it succeeds, and none matches
#   prints TEXT -- COMMAND...      it succeeds and prints exactly that
#   fails RE... -- COMMAND...      it fails, and each expression matches a line
#   exits STATUS -- COMMAND...     it exits so
#   json FILTER -- COMMAND...      it succeeds, and jq's filter is true of what it prints
#   anything else                  is a command that has to succeed
#
# ENGINE=dockerd runs a script against Docker's own engine, where it is installed: what fails there too is a
# mistake of the script.
# shellcheck shell=bash
set -uo pipefail

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROJECT=$(cd "$LIB/../.." && pwd)
export TRIPOD=${TRIPOD:-$PROJECT/target/release/tripod} TRIPOD_IMAGES=${TRIPOD_IMAGES:-$PROJECT/target/images}
[ -n "${TRIPOD_MACHINE-}" ] || exec "$LIB/_machine" bash "$0" "$@"

ENGINE=${ENGINE:-tripod}
PASSED=0 FAILED=0 OUT='' RC=0 DAEMON=''
DATA=$WORK/data SOCKET=$WORK/docker.sock
export DOCKER_HOST=unix://$SOCKET
mkfifo "$WORK/silence" # an input that says nothing, and does not end
trap finish EXIT

finish() {
  trap - EXIT
  [ -z "$DAEMON" ] || [ "$FAILED" -eq 0 ] || { echo "# the end of the daemon's log:"; tail -n 15 "$WORK/daemon.log"; }
  echo
  echo "$PASSED passed, $FAILED failed"
  exit $((FAILED > 0))
}

step() { printf '\n# %s\n' "$*"; }

# ---- checks --------------------------------------------------------------------------------------------------------

verdict() { # verdict STATUS TEXT
  if [ "$1" -eq 0 ]; then
    PASSED=$((PASSED + 1)); echo "ok - $2"; return 0
  fi
  FAILED=$((FAILED + 1)); echo "not ok - $2"
  head -n 20 "$WORK/said" | cut -c -600 | sed 's/^/    /'
  return 1
}
check() { local text=$1; shift; "$@" >"$WORK/said" 2>&1; verdict $? "$text"; }
soon() {
  local end=$((SECONDS + $1)) text=$2; shift 2
  until "$@" >"$WORK/said" 2>&1; do
    [ $SECONDS -lt $end ] || { verdict 1 "$text"; return 1; }
    sleep 0.1
  done
  verdict 0 "$text"
}
# stays SECONDS TEXT PREDICATE...: true all that time
stays() {
  local end=$((SECONDS + $1)) text=$2; shift 2
  while [ $SECONDS -lt $end ]; do
    "$@" >"$WORK/said" 2>&1 || { verdict 1 "$text"; return 1; }
    sleep 0.2
  done
  verdict 0 "$text"
}
quiet() { # leaves OUT and RC
  timeout -k 5 "${LIMIT:-30}" "$@" >"$WORK/out" 2>&1 </dev/null
  RC=$?
  OUT=$(tr -d '\0\r' <"$WORK/out")
}
shown() { printf '$ %s\n%s\n(exit status %s)\n' "${COMMAND[*]}" "$OUT" "$RC"; }
# split_ WORDS... -- COMMAND...: sets WORDS and COMMAND, and runs it
split_() {
  WORDS=()
  while [ "$1" != -- ]; do WORDS+=("$1"); shift; done
  COMMAND=("${@:2}")
  if [[ $(type -t "$2") = @(function|builtin) ]]; then
    OUT=$("${COMMAND[@]}" 2>&1 </dev/null); RC=$?
  else
    quiet "${COMMAND[@]}"
  fi
}
matches() { local re; for re in "${WORDS[@]}"; do grep -qE -- "$re" <<<"$OUT" || { echo "no line matches: $re"; shown; return 1; }; done; }
says() { split_ "$@"; [ "$RC" -eq 0 ] || { shown; return 1; }; matches; }
fails() { split_ "$@"; [ "$RC" -ne 0 ] || { echo "succeeded"; shown; return 1; }; matches; }
lacks() {
  local re
  split_ "$@"; [ "$RC" -eq 0 ] || { shown; return 1; }
  for re in "${WORDS[@]}"; do ! grep -qE -- "$re" <<<"$OUT" || { echo "a line matches: $re"; shown; return 1; }; done
}
prints() { split_ "$@"; [ "$RC" -eq 0 ] && [ "$OUT" = "${WORDS[0]}" ] || { echo "wanted: ${WORDS[0]}"; shown; return 1; }; }
exits() { split_ "$@"; [ "$RC" -eq "${WORDS[0]}" ] || { echo "wanted status ${WORDS[0]}"; shown; return 1; }; }
json() { split_ "$@"; [ "$RC" -eq 0 ] && jq -e "${WORDS[0]}" <<<"$OUT" >/dev/null || { echo "not true: ${WORDS[0]}"; shown; return 1; }; }
same() { [ "$1" = "$2" ] || { printf 'wanted: %s\ngot:    %s\n' "$1" "$2"; return 1; }; }
not() { ! "$@"; }

# tty COMMAND...: the command on a terminal; control sequences are taken out of what it prints
tty() {
  TERM=xterm timeout -k 5 "${LIMIT:-30}" script -qec "stty rows 40 cols 200; $*" /dev/null <>"$WORK/silence" |
    sed -E 's/\x1b\[[0-9;?]*[A-Za-z]//g; s/\r/\n/g; s/^(\^@)*//'
  return "${PIPESTATUS[0]}"
}
docker() { timeout -k 5 "${LIMIT:-30}" docker "$@"; }
outside() { ip netns exec outside "$@"; }
inspect() { docker inspect -f "$1" "${@:2}"; }
get() { curl -fsS -m 5 "$@"; }

# ---- the daemon ----------------------------------------------------------------------------------------------------

# daemon_up [OPTION...]: starts it and waits until it serves; its log is $WORK/daemon.log
daemon_up() {
  local began=$EPOCHREALTIME
  if [ "$ENGINE" = dockerd ]; then
    dockerd --data-root "$DATA" -H "$DOCKER_HOST" >>"$WORK/daemon.log" 2>&1 </dev/null &
  else
    "$TRIPOD" daemon --data-root "$DATA" --host "$DOCKER_HOST" "$@" >>"$WORK/daemon.log" 2>&1 </dev/null &
  fi
  DAEMON=$!
  until curl -fs -m 2 -o /dev/null --unix-socket "$SOCKET" http://d/_ping; do
    kill -0 "$DAEMON" 2>/dev/null && [ "${EPOCHREALTIME%.*}" -lt $((${began%.*} + 30)) ] || {
      echo "the daemon does not serve:"; tail -n 20 "$WORK/daemon.log"; return 1
    }
    sleep 0.02
  done
}
# daemon_down: ends it as an init system would; its status is the result
daemon_down() {
  local pid=$DAEMON
  DAEMON=''
  kill -TERM "$pid" && timeout 20 tail --pid="$pid" -f /dev/null && wait "$pid"
}
daemon_kill() { kill -KILL "$DAEMON"; wait "$DAEMON" 2>/dev/null; DAEMON=''; }

need_daemon() {
  [ "$ENGINE" != tripod ] || check "there is a binary" test -x "$TRIPOD" || exit
  check "the daemon gets ready" daemon_up "$@" || exit
}
load() {
  local name
  for name; do check "$name.tar is loaded" says 'Loaded image' -- docker load -i "$TRIPOD_IMAGES/$name.tar" || exit; done
}

# leftovers: what is there of a daemon's work although nothing runs; its own processes and the networks of every
# engine aside
leftovers() {
  local keeper
  keeper=$(pgrep -f "$TRIPOD|keeper /run/tripod" | paste -sd '|')
  ps -eo pid,ppid,comm,args --no-headers | awk -v own="^($$|1|${keeper:-none})\$" '$1 !~ own && $2 == 1 { print "process:", $0 }'
  grep -E " ($DATA|/run/tripod)/[^ ]*" /proc/mounts | awk '$2 !~ /\/keep|\/(ns|netns)$/ { print "mount:", $2, $3 }'
  ip -o link | grep -oE ' (veth|tp)[^:@]*' | sed 's/^/link:/'
  find /sys/fs/cgroup -mindepth 2 -type d -regextype egrep -regex '.*/[0-9a-f]{64}.*' 2>/dev/null | sed 's/^/cgroup: /'
}
