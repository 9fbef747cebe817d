# shellcheck shell=bash
# A client that writes all the time, and remembers what has been acknowledged. It reaches the pods by port-forward,
# as on any cluster; each way in is opened again when its pod has been away.

ENDPOINTS=
BACKGROUND=()

etcdctl() { "$BIN/etcdctl" --endpoints "$ENDPOINTS" --dial-timeout 2s --command-timeout 8s "$@"; }

open_ways_in() { # POD...
  local pod port=23790
  for pod in "$@"; do
    port=$(free_port $((port + 1)))
    ENDPOINTS+=${ENDPOINTS:+,}127.0.0.1:$port
    way_in "$pod" "$port" >"$WORK/forward-$pod.log" 2>&1 &
    BACKGROUND+=($!)
  done
}

way_in() { # POD PORT
  local forward=
  trap 'kill "$forward"; exit' TERM
  while :; do
    "${KUBECTL[@]}" port-forward "pod/$1" "$2:2379" &
    forward=$!
    wait "$forward" || sleep 0.3   # the pod is away: until it is back
  done
}

start_writer() {
  : >"$WORK/acknowledged"
  writer >"$WORK/writer.log" 2>&1 &
  BACKGROUND+=($!)
}

# Each key is written once. What was not acknowledged may be there or not; what was acknowledged must be.
writer() {
  local n=0 key
  while [[ ! -e $WORK/stop ]]; do
    n=$((n + 1))
    key=written/$(printf %05d "$n")
    ! etcdctl put "$key" "$n" || echo "${EPOCHREALTIME/./} $key $n" >>"$WORK/acknowledged"
    sleep 0.05
  done
  touch "$WORK/stopped"
}

acknowledged() { wc -l <"$WORK/acknowledged"; }
acknowledged_at_least() { (($(acknowledged) >= $1)); }

# Waits for new acknowledgements, and tells how long the writer had to wait at worst since the last time this was asked.
writes_go_on() {
  wait_until 30 "writes that are acknowledged again" "$WORK/writer.log" acknowledged_at_least $(($(acknowledged) + 3))
  note "$(acknowledged) writes acknowledged so far; the longest pause was $(longest_pause) s"
  tail -n 1 "$WORK/acknowledged" >"$WORK/asked"
}

longest_pause() {
  local from=0
  [[ ! -e $WORK/asked ]] || from=$(cut -d' ' -f1 "$WORK/asked")
  awk -v from="$from" '$1 >= from {if (last && $1 - last > most) most = $1 - last; last = $1} END {printf "%.1f", most / 1e6}' \
    "$WORK/acknowledged"
}

stop_writer() {
  touch "$WORK/stop"
  wait_until 10 "the writer's end" "$WORK/writer.log" test -e "$WORK/stopped"
}

check_acknowledged_writes() {
  local missing
  cut -d' ' -f2,3 "$WORK/acknowledged" | sort >"$WORK/expected"
  wait_until 30 "all ways in" "$WORK/writer.log" etcdctl endpoint status
  etcdctl get --prefix written/ | paste -d' ' - - | sort >"$WORK/found"
  missing=$(comm -23 "$WORK/expected" "$WORK/found")
  [[ -z $missing ]] || die "acknowledged, but not there: $missing"
  note "$(wc -l <"$WORK/expected") writes were acknowledged, and each is there with its value"
}

# Leaves no process behind; after a failure, the writer's log and the others stay for whoever wants to look.
end_of_traffic() {
  local status=$?
  touch "$WORK/stop"
  ((${#BACKGROUND[@]} == 0)) || kill "${BACKGROUND[@]}" 2>/dev/null || true
  wait
  ((status == 0)) || { mkdir -p "$LOCAL/failed" && cp -r "$WORK" "$LOCAL/failed/demo" && note "logs: .local/failed/demo"; }
  rm -rf "$WORK"
}
