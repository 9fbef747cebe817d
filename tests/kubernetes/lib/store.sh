# shellcheck shell=bash disable=SC2034 # another part uses what is set here
# What the local Kubernetes keeps its objects in: etcd, or with STORE=quorate three nodes of this checkout, which is what `make cluster STORE=quorate` is for.

STORE=${STORE:-etcd}
STORES=3

case $STORE in
etcd) STORE_URLS=http://127.0.0.1:2379 ;;
quorate) STORE_URLS=http://127.0.0.1:2379,http://127.0.0.1:3379,http://127.0.0.1:4379 ;;
*) die "STORE=$STORE: etcd or quorate" ;;
esac

start_store() {
  local i
  if [[ $STORE == etcd ]]; then
    # Without fsync: nothing here outlives the machine, and the disk is left to what is tested.
    start control etcd etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn
    return
  fi
  compile_static "$LOCAL/binaries"
  for i in $(seq "$STORES"); do start_member "$i"; done
  wait_until 30 "the store" "$STATE/log/store1.log" store_is_whole
}

# start_member I: the first one founds the cluster, the others join it. One that was started before needs neither, and is told neither.
start_member() {
  local i=$1 founds=(--bootstrap)
  [[ $i == 1 ]] || founds=(--join 127.0.0.1:2380)
  [[ ! -e $STATE/control/lib/store$i/identity ]] || founds=()
  start control "store$i" "$LOCAL/binaries/quorate-node" --data-dir "/var/lib/store$i" --name "store$i" "${founds[@]}" \
    --listen-client "127.0.0.1:$((i + 1))379" --listen-peer "127.0.0.1:$((i + 1))380" --listen-http "127.0.0.1:$((i + 1))381"
}

store() { inside control "$LOCAL/binaries/raftctl" --peer-endpoints 127.0.0.1:2380,127.0.0.1:3380,127.0.0.1:4380 "$@"; }

store_is_whole() { [[ $(store member list | grep -c voter) == "$STORES" ]]; }

store_leader() { store status | awk '$3 == "leader" { print $1 }'; }

# Ends the process that leads the store, and starts it again when another one leads, or after a while: the others may be too few.
kill_store_leader() {
  local leader pid LOCK
  exec {LOCK}</dev/null   # no other run is waited for
  leader=$(store_leader)
  [[ -n $leader ]] || return 0
  pid=$(inside control pgrep --full --oldest -- "--name $leader ") || return 0
  say "the store's leader is $leader: it is killed"
  inside control kill -KILL "$pid"
  for _ in {1..50}; do
    [[ -z $(store_leader 2>/dev/null) ]] || break
    sleep 0.2
  done
  start_member "${leader#store}"
}
