# shellcheck shell=bash
# Bringing the cluster up: from nothing to ready nodes, names and volumes.

cluster_up() {
  local began=$SECONDS
  if is_up && [[ -e $STATE/ready ]]; then
    say "the local Kubernetes is up already"
    return
  fi
  install_needs
  warn_of_others
  build
  mkdir -p "$LOCAL"
  cluster_down      # what an interrupted attempt may have left
  trap up_failed EXIT
  mkdir -p "$STATE/log"
  system_images
  say "starting Kubernetes $(module_version k8s.io/kubernetes) with $NODES nodes (about 20 s)"
  control_plane
  note "control plane: $((SECONDS - began)) s"
  nodes
  system_objects
  wait_until_ready
  note "nodes, names and volumes: $((SECONDS - began)) s"
  touch "$STATE/ready"
  trap - EXIT
}

# All nodes at once; each says for itself what goes wrong.
nodes() {
  local i process starting=() failed=
  for i in $(seq "$NODES"); do node "$i" & starting+=($!); done
  for process in "${starting[@]}"; do wait "$process" || failed=yes; done
  [[ -z $failed ]] || exit 1
}

up_failed() {
  trap - EXIT
  say "cleaning up; the logs are kept in ${LOCAL#"$CHECKOUT"/}/failed" >&2
  rm -rf "$LOCAL/failed"
  cp -r "$STATE/log" "$LOCAL/failed" 2>/dev/null || true
  cluster_down
  exit 1
}

# Two checkouts' clusters share nothing but the machine's memory and processors; that much a person should know.
warn_of_others() {
  local other
  other=$(others | sort -u)
  [[ -z $other ]] || while read -r other; do
    say "note: the local Kubernetes of $other is up on this machine, too; both will be slower (to end it: make -C $other cluster-down)"
  done <<<"$other"
}

others() {
  local file arguments
  for file in /proc/[0-9]*/cmdline; do
    mapfile -d '' -t arguments <"$file" 2>/dev/null || continue
    [[ ${arguments[1]:-} == quorate-* && ${arguments[3]:-} == of && ${arguments[4]} != "$CHECKOUT" ]] && echo "${arguments[4]}"
  done || true
}

system_objects() {
  { cat "$HERE/manifests/storage-class.yaml"
    volume_manifests
    echo ---
    sed "s|COREDNS_IMAGE|$COREDNS_IMAGE|" "$HERE/manifests/coredns.yaml"
  } | run_logged "$STATE/log/system-objects.log" "kubectl apply of the cluster's own objects" \
    "$LOCAL/bin/kubectl" --kubeconfig "$LOCAL/kubeconfig" apply --filename -
}

wait_until_ready() {
  wait_until 60 "the nodes" "$STATE/log/kubelet1.log" all_nodes_ready
  wait_until 60 "the cluster's DNS" "$STATE/log/kubelet1.log" all_dns_ready
  # Pods are refused until a namespace has it.
  wait_until 30 "the default service account" "$STATE/log/kube-controller-manager.log" \
    kubectl get serviceaccount default
}

all_nodes_ready() {
  [[ $(kubectl get nodes --output jsonpath='{.items[*].status.conditions[?(@.type=="Ready")].status}' | grep -ow True | wc -l) == "$NODES" ]]
}

all_dns_ready() {
  [[ $(kubectl --namespace kube-system get daemonset coredns --output jsonpath='{.status.numberReady}') == "$NODES" ]]
}

# What a person puts on the PATH.
link_tools() {
  local tool
  mkdir -p "$LOCAL/bin"
  for tool in kubectl helm etcdctl; do ln -sfn "$BIN/$tool" "$LOCAL/bin/$tool"; done
  ln -sfn ../binaries/raftctl "$LOCAL/bin/raftctl"   # once the images are made
}
