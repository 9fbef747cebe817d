# shellcheck shell=bash
# Persistent volumes: a pool on each node. A volume is a file system in a sparse file, and so has a real size and can be filled.

# One line each: name, size.
volumes() {
  local n
  for n in 1 2 3 4 5 6; do echo "large$n 1Gi"; done
  for n in 1 2; do echo "small$n 128Mi"; done
}

make_volumes() { # HOST
  local host=$1 name size
  install -m 755 "$HERE/lib/volume" "$STATE/$host/lib/config/volume"
  while read -r name size; do
    inside "$host" /var/lib/config/volume format "$name" "${size%i}"
  done < <(volumes) >"$STATE/log/volumes-$host.log" 2>&1 || die_with_log "$STATE/log/volumes-$host.log" "making the volumes of $host failed"
}

# The API objects of all volumes, on standard output.
volume_manifests() {
  local i name size
  for i in $(seq "$NODES"); do
    while read -r name size; do
      cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: node$i-$name, labels: {quorate.dev/node: node$i}}
spec:
  capacity: {storage: $size}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  persistentVolumeReclaimPolicy: Retain
  local: {path: /var/lib/volumes/$name}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node$i]}]}]}}
YAML
    done < <(volumes)
  done
}

# A volume whose claim is gone gets a new file system and is offered again. The reclaimer is a process of the node, but
# asks the API server from the control plane's network: a node whose link is down loses no volumes.
reclaim_volumes() { # HOST
  local host=$1
  PATH=/run/bin:$PATH HOME=/run nsenter --target "$(host_pid "$host")" --pid --mount --net="/proc/$(host_pid control)/ns/net" \
    /var/lib/config/volume reclaim "$host" </dev/null >>"$STATE/log/volumes-$host.log" 2>&1 {LOCK}>&- &
  disown
}
