# shellcheck shell=bash
# Taking everything down, also what was only half up.

cluster_down() {
  local host
  for host in $(seq -f 'node%.0f' "$NODES") control; do host_kill "$host"; done
  wait_until 20 "the volumes' loop devices" /dev/null no_loop_devices
  remove_cgroups
  rm -rf "$STATE" "${LOCAL:?}/kubeconfig" "${LOCAL:?}/bin"
}

# The kernel lets go of them a moment after their last mount is gone.
no_loop_devices() { ! grep -qsF "$STATE/" /sys/block/loop*/loop/backing_file; }

remove_cgroups() {
  local cgroup
  while read -r cgroup; do
    wait_until 10 "the end of the cgroup $cgroup" /dev/null rmdir "$cgroup"
  done < <(find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup*/$ID-node*")
}
