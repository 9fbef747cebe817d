# shellcheck shell=bash disable=SC2034 # the other parts use what is set here
# Paths, messages and waiting: what every part of the local Kubernetes uses.

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)
HERE=$CHECKOUT/tests/kubernetes
LOCAL=$CHECKOUT/.local                                   # everything that runs
STATE=$LOCAL/kubernetes
CACHE=${QUORATE_CACHE:-${HOME:?}/.cache/quorate}         # everything that is built once
VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$CHECKOUT/Cargo.toml")
NODES=3

# What tells this checkout's cgroups and processes from another checkout's.
ID=quorate-$(printf %s "$CHECKOUT" | sha256sum | cut -c1-8)

say() { printf '%s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# No command fails in silence.
set -o errtrace
trap 'printf "error: %s, line %s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "${BASH_COMMAND:0:80}" >&2' ERR

# die_with_log LOG MESSAGE: says what failed, and shows the end of what it had to say itself.
die_with_log() {
  local log=$1; shift
  if [[ -s $log ]]; then
    printf -- '--- the last lines of %s:\n' "${log##*/}" >&2
    tail -n 15 "$log" | cut -c1-300 >&2
    printf -- '---\n' >&2
  fi
  die "$@"
}

# run_logged LOG WHAT COMMAND...: quiet when all is well.
run_logged() {
  local log=$1 what=$2; shift 2
  "$@" >"$log" 2>&1 || die_with_log "$log" "$what failed"
}

# SECONDS are what a quiet machine needs with a wide margin; QUORATE_PATIENCE multiplies them for the others.
patient() { echo $(($1 * ${QUORATE_PATIENCE:-3})); }

# wait_until SECONDS WHAT LOG COMMAND...: asks COMMAND until it says yes. Whoever writes LOG must not end meanwhile.
wait_until() {
  local seconds what=$2 log=$3 deadline
  seconds=$(patient "$1")
  shift 3
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [[ ! -e ${log%.log}.ended ]] || die_with_log "$log" "$what: $(basename "$log" .log) has ended"
    ((SECONDS < deadline)) || die_with_log "$log" "$what: not within $seconds s"
    sleep 0.2
  done
}

# One run at a time in this checkout. Processes that stay must not inherit the lock: they are started with {LOCK}>&-.
lock() {
  mkdir -p "$LOCAL"
  exec {LOCK}>"$LOCAL/lock"
  flock --nonblock "$LOCK" || { say "waiting for another run in this checkout"; flock "$LOCK"; }
}

# In clock ticks since the machine came up: with the process's ID, a name that is never used twice.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }   # the command, in brackets, may hold spaces
  cut -d' ' -f20 <<<"$stat"
}

# The first port from the one given on which nothing listens.
free_port() {
  local port
  for ((port = $1; port < 65000; port++)); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

is_up() { host_pid control >/dev/null; }

# The cluster's own kubectl and kubeconfig, whatever the user's environment says.
kubectl() { KUBECACHEDIR=$STATE/cache "$LOCAL/bin/kubectl" --kubeconfig "$LOCAL/kubeconfig" "$@"; }
