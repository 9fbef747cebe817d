# shellcheck shell=bash
# The hosts `node1`, `node2`, …: containerd, the kubelet and kube-proxy, wired to the control plane's bridge.

node_address() { echo "10.199.0.$((10 + $1))"; }
node_pods() { echo "10.200.$1.0/24"; }

node() { # INDEX
  local i=$1 name=node$1
  host_start "$name"
  install_config "$name"
  node_network "$i"
  node_certificates "$i"
  node_config "$i"
  node_cgroup "$name"
  start "$name" "containerd$i" containerd -c /var/lib/config/containerd.toml
  make_volumes "$name"
  # The kubelet ends when there is no containerd yet.
  wait_until 30 "containerd of $name" "$STATE/log/containerd$i.log" inside "$name" ctr version
  load_images "$name"
  start "$name" "kubelet$i" kubelet --config /var/lib/config/kubelet.yaml --kubeconfig /var/lib/config/kubelet.kubeconfig \
    --hostname-override "$name" --node-ip "$(node_address "$i")" --node-labels "topology.kubernetes.io/zone=zone$i"
  start "$name" "kube-proxy$i" kube-proxy --config /var/lib/config/kube-proxy.yaml
  reclaim_volumes "$name"
}

node_network() {
  local i=$1
  ip link add eth0 netns "$(host_pid "node$i")" type veth peer name "node$i" netns "$(host_pid control)"
  inside control ip link set "node$i" master br0 up
  inside control ip route add "$(node_pods "$i")" via "$(node_address "$i")"
  inside "node$i" ip addr add "$(node_address "$i")/24" dev eth0
  inside "node$i" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  node_connect "$i"
}

# A link that comes up has lost its routes: they are added with it.
node_connect() {
  local i=$1 other
  inside "node$i" ip link set eth0 up
  inside "node$i" ip route replace default via "$CONTROL_ADDRESS"
  for other in $(seq "$NODES"); do
    [[ $other == "$i" ]] || inside "node$i" ip route replace "$(node_pods "$other")" via "$(node_address "$other")"
  done
}

node_disconnect() { inside "node$1" ip link set eth0 down; }

node_certificates() {
  local i=$1 directory=$STATE/node$1/lib/config
  certificate "node$i" "/O=system:nodes/CN=system:node:node$i"
  certificate "kube-proxy$i" /CN=system:kube-proxy
  kubeconfig "node$i" "$API" >"$directory/kubelet.kubeconfig"
  kubeconfig "kube-proxy$i" "$API" >"$directory/kube-proxy.kubeconfig"
  kubeconfig admin "$API" >"$directory/admin.kubeconfig"
}

node_config() {
  local i=$1 directory=$STATE/node$1/lib/config
  mkdir -p "$directory/cni"
  # A link for each pod instead of a bridge: what goes to a service always passes the node's own address translation,
  # also between two pods of one node.
  cat >"$directory/cni/pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$(node_pods "$i")"}]],
   "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
  cat >"$directory/containerd.toml" <<TOML
version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[plugins.'io.containerd.metadata.v1.bolt']
  no_sync = true
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE, as in some virtual machines, runc could not start a container otherwise.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/var/lib/config/cni"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "$(snapshotter)"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "$PAUSE_IMAGE"
TOML
  cat >"$directory/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$ID-node$i
enforceNodeAllocatable: []
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /var/lib/config/ca.crt}}
authorization: {mode: Webhook}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /dev/null
volumePluginDir: /run/volume-plugins
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi}
YAML
  cat >"$directory/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node$i
clusterCIDR: 10.200.0.0/16
clientConnection: {kubeconfig: /var/lib/config/kube-proxy.kubeconfig}
conntrack: {maxPerCore: 0}
YAML
}

# An overlay cannot lie on an overlay, as in a checkout inside a container: files are copied there.
snapshotter() {
  if [[ $(stat --file-system --format %T "$STATE") == overlayfs ]]; then echo native; else echo overlayfs; fi
}

# The cgroup under which a node's kubelet makes those of its pods. It counts for ten processes (1024, or 100, is one): pods
# go on beside a compiler that has more threads than the machine has processors, as they would on a machine of their own.
node_cgroup() {
  local cgroup=$ID-$1 hierarchy file
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
    mkdir -p "/sys/fs/cgroup/$cgroup"
    delegate_controllers /sys/fs/cgroup
    delegate_controllers "/sys/fs/cgroup/$cgroup"
    echo 1000 >"/sys/fs/cgroup/$cgroup/cpu.weight"
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    [[ -f $hierarchy/cgroup.procs ]] && mkdir -p "$hierarchy/$cgroup"
  done
  echo 10240 >"/sys/fs/cgroup/cpu/$cgroup/cpu.shares"
  # No process may enter a cpuset that has no processors.
  for file in cpuset.cpus cpuset.mems; do
    cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$cgroup/$file"
  done
}

# cgroup v2: what a cgroup does not hand down, those below it do not have.
delegate_controllers() { # CGROUP
  local controller controllers
  read -ra controllers <"$1/cgroup.controllers"
  for controller in "${controllers[@]}"; do
    echo "+$controller" >"$1/cgroup.subtree_control" || true
  done 2>/dev/null
  [[ $(cat "$1/cgroup.subtree_control") == *memory* ]] ||
    die "$1 cannot hand the memory controller down, as in a container whose own processes are in its topmost cgroup: run on the machine itself, or name a cluster that you have (CONTEXT=name)"
}
