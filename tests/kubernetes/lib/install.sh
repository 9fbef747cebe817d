# shellcheck shell=bash
# What the local Kubernetes needs from the distribution. Nothing is done when it is all there.

# One line each: a file or command that must be there, and the Debian package that has it.
needs() {
  cat <<'LIST'
runc                 runc
/usr/lib/cni/ptp     containernetworking-plugins
nft                  nftables
ip                   iproute2
socat                socat
openssl              openssl
mkfs.ext4            e2fsprogs
mount                mount
nsenter              util-linux
buildah              buildah
LIST
}

missing_packages() {
  local need package
  needs | while read -r need package; do
    [[ -e $need ]] || command -v "$need" >/dev/null || echo "$package"
  done
}

install_needs() {
  ((EUID == 0)) || die "the local Kubernetes makes namespaces and mounts: run this as root (or name a cluster that you have: CONTEXT=name)"
  command -v go >/dev/null || die "Go is needed to build Kubernetes (1.26 or newer, https://go.dev/dl/): install it, and put it on the PATH"
  local packages
  mapfile -t packages < <(missing_packages)
  ((${#packages[@]})) || return 0
  command -v apt-get >/dev/null || die "these are needed, and only Debian's names for them are known here: ${packages[*]}"
  say "installing ${packages[*]} (about a minute)"
  mkdir -p "$STATE"
  export DEBIAN_FRONTEND=noninteractive
  run_logged "$STATE/install.log" "apt-get update" apt-get update
  run_logged "$STATE/install.log" "apt-get install ${packages[*]}" apt-get install -y --no-install-recommends "${packages[@]}"
}
