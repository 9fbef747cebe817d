# shellcheck shell=bash
# A host: a network, a mount and a process namespace, which stand for a machine. The control plane has one, and each node.
#
# Its first process is `pause`. Killing that ends every process in the host, and with the last of them go its network
# devices, its mounts and the loop devices under these: that is the whole of taking a host down. Nothing is left on the
# machine but the cgroups, which have a name of their own.

# The process ID of a host's first process; fails if the host is not up. A PID file may outlive its process, and the
# process ID may then be another's: the time at which the process began tells them apart.
host_pid() {
  local pid began
  read -r pid began 2>/dev/null <"$STATE/pid/$1" || return 1
  [[ $(start_time "$pid") == "$began" ]] && echo "$pid"
}

# inside HOST COMMAND...
inside() {
  local pid
  pid=$(host_pid "$1") || die "$1 is not up: run make cluster"
  shift
  PATH=/run/bin:$PATH HOME=/run nsenter --target "$pid" --net --mount --pid "$@"
}

# start HOST NAME COMMAND...: a process of the host, with its log in log/NAME.log; log/NAME.ended says that it has ended.
# Ahead of what compiles beside it: leases run out, and nodes seem to be lost, when these have to wait for a processor.
start() {
  local host=$1 name=$2; shift 2
  rm -f "$STATE/log/$name.ended"
  {
    status=0
    inside "$host" nice -n -5 "$@" || status=$?
    echo "$status" >"$STATE/log/$name.ended"
  } </dev/null >"$STATE/log/$name.log" 2>&1 {LOCK}>&- &
  disown
}

host_start() {
  local name=$1 parent child
  mkdir -p "$STATE"/{log,pid} "$STATE/$name"/{lib,log}
  setsid unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc \
    "$BIN/pause" "$ID" "$name" of "$CHECKOUT" </dev/null >"$STATE/log/$name.log" 2>&1 {LOCK}>&- &
  parent=$!
  disown
  wait_until 10 "the namespaces of $name" "$STATE/log/$name.log" first_process_of "$parent"
  child=$(first_process_of "$parent")
  echo "$child $(start_time "$child")" >"$STATE/pid/$name"
  host_mounts "$name"
  inside "$name" ip link set lo up
}

# The child that `unshare` has made, once it has become `pause`.
first_process_of() {
  local child
  child=$(cat "/proc/$1/task/$1/children")
  child=${child%% *}
  [[ -n $child ]] && grep -qz "^$ID\$" "/proc/$child/cmdline" && echo "$child"
}

# Programs find their usual places, with short paths (a Unix socket's has at most 107 bytes), and write nothing to the
# machine's. /var/lib comes last: the checkout or the cache may lie under it.
host_mounts() {
  # shellcheck disable=SC2016 # for the shell inside
  inside "$1" sh -euc '
    mount -t tmpfs run /run
    mkdir /run/bin /run/netns
    mount --bind "$2" /run/bin
    mount --bind "$1/log" /var/log
    mount --bind "$1/lib" /var/lib' - "$STATE/$1" "$BIN"
}

# Ends a host as a power cut does.
host_kill() {
  local pid
  pid=$(host_pid "$1") || return 0
  kill -KILL "$pid"
  wait_until 20 "the end of $1" "$STATE/log/$1.log" host_is_gone "$1"
  rm -f "$STATE/pid/$1"
}

host_is_gone() { ! host_pid "$1"; }
