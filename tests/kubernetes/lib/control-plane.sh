# shellcheck shell=bash
# The host `control`: the store, the API server, the controllers and the scheduler, and the bridge that the nodes are wired to.

CONTROL_ADDRESS=10.199.0.1
SERVICES=10.96.0.0/16
API=https://$CONTROL_ADDRESS:6443

# Those that nothing here uses; each would hold watches and caches of its own.
CONTROLLERS='*,-bootstrap-signer-controller,-token-cleaner-controller,-certificatesigningrequest-approving-controller'
CONTROLLERS+=',-certificatesigningrequest-cleaner-controller,-certificatesigningrequest-signing-controller'
CONTROLLERS+=',-podcertificaterequest-cleaner-controller,-horizontal-pod-autoscaler-controller,-node-ipam-controller'
CONTROLLERS+=',-replicationcontroller-controller,-cronjob-controller,-resourceclaim-controller,-service-cidr-controller'
CONTROLLERS+=',-device-taint-eviction-controller,-endpointslice-mirroring-controller,-ttl-controller'
CONTROLLERS+=',-legacy-serviceaccount-token-cleaner-controller,-volumeattributesclass-protection-controller'

control_plane() {
  make_authority
  certificate apiserver /CN=kube-apiserver \
    "IP:127.0.0.1,IP:$CONTROL_ADDRESS,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin
  certificate kube-controller-manager /CN=system:kube-controller-manager
  certificate kube-scheduler /CN=system:kube-scheduler
  host_start control
  install_config control
  inside control ip link add br0 type bridge
  inside control ip addr add "$CONTROL_ADDRESS/24" dev br0
  inside control ip link set br0 up
  start_store
  start_api_server
  forward_api
  link_tools
  wait_until 60 "the API server" "$STATE/log/kube-apiserver.log" kubectl get --raw /readyz
  start control kube-controller-manager kube-controller-manager --kubeconfig /var/lib/config/kube-controller-manager.kubeconfig \
    --leader-elect=false --controllers "$CONTROLLERS" --use-service-account-credentials \
    --service-account-private-key-file /var/lib/config/service-accounts.key --root-ca-file /var/lib/config/ca.crt \
    --flex-volume-plugin-dir /run/volume-plugins --node-monitor-grace-period 20s
  start control kube-scheduler kube-scheduler --kubeconfig /var/lib/config/kube-scheduler.kubeconfig --leader-elect=false
}

start_api_server() {
  local config=/var/lib/config
  start control kube-apiserver kube-apiserver --etcd-servers "$STORE_URLS" --secure-port 6443 \
    --advertise-address "$CONTROL_ADDRESS" --service-cluster-ip-range "$SERVICES" \
    --tls-cert-file $config/apiserver.crt --tls-private-key-file $config/apiserver.key --client-ca-file $config/ca.crt \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate $config/admin.crt --kubelet-client-key $config/admin.key \
    --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file $config/service-accounts.key --service-account-signing-key-file $config/service-accounts.key
}

# The files that the processes of a host read; each host has its own copies, under /var/lib/config.
install_config() {
  local directory=$STATE/$1/lib/config component
  mkdir -p "$directory"
  cp "$STATE/pki/ca.crt" "$directory/"
  [[ $1 == control ]] || return 0
  cp "$STATE"/pki/{apiserver,admin}.{crt,key} "$STATE/pki/service-accounts.key" "$directory/"
  for component in kube-controller-manager kube-scheduler; do
    kubeconfig $component "$API" >"$directory/$component.kubeconfig"
  done
}

# The machine's own network reaches the API server on a port of 127.0.0.1 alone. The forwarder belongs to the host
# `control` (its processes end with it), but listens outside.
forward_api() {
  local port
  port=$(free_port "${QUORATE_API_PORT:-16443}")
  kubeconfig admin "https://127.0.0.1:$port" >"$LOCAL/kubeconfig"
  chmod 600 "$LOCAL/kubeconfig"
  nsenter --target "$(host_pid control)" --pid --mount \
    socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" \
    EXEC:"nsenter --target 1 --net socat - TCP\:127.0.0.1\:6443" </dev/null >"$STATE/log/forward.log" 2>&1 {LOCK}>&- &
  disown
}
