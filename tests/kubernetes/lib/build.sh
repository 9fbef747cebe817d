# shellcheck shell=bash
# Builds Kubernetes and its company from Go modules, once, into the cache.

# One line each: program, Go package, minutes on two idle cores with nothing compiled yet.
programs() {
  cat <<'LIST'
etcd                    go.etcd.io/etcd/server/v3                                    1
etcdctl                 go.etcd.io/etcd/etcdctl/v3                                   1
etcdutl                 go.etcd.io/etcd/etcdutl/v3                                   1
containerd              github.com/containerd/containerd/v2/cmd/containerd           1
containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 1
ctr                     github.com/containerd/containerd/v2/cmd/ctr                  1
helm                    helm.sh/helm/v4/cmd/helm                                     2
coredns                 ./coredns                                                    1
pause                   ./pause                                                      1
kube                    ./kube                                                       5
LIST
}

KUBE_COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)

# What was built from other sources, or by another Go, is never used by mistake.
cache_key() {
  { cd "$HERE" && cat go.mod go.sum ./*/main.go lib/build.sh && go env GOVERSION GOARCH; } | sha256sum | cut -c1-12
}

# Sets BIN. Cheap: nothing is built.
locate_build() {
  BUILD=$CACHE/kubernetes/$(cache_key)
  BIN=$BUILD/bin
}

module_version() { awk -v module="$1" '$1 == module {print $2}' "$HERE/go.mod"; }

# Kubernetes' clients, and charts, ask for its version: without these flags it would be v0.0.0.
version_flags() {
  local version major minor package
  version=$(module_version k8s.io/kubernetes)
  IFS=. read -r major minor _ <<<"${version#v}"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s' "$package" "$version" "$package" "$major" "$package" "$minor"
  done
}

# build [PROGRAM...]: those that are missing, of these or of all.
build() {
  locate_build
  mkdir -p "$BIN"
  local program package minutes wanted=" $* " component
  while read -r program package minutes; do
    [[ $# -eq 0 || $wanted == *" $program "* ]] || continue
    wanted=${wanted/ $program / }
    [[ -x $BIN/$program ]] || build_program "$program" "$package" "$minutes"
  done < <(programs)
  [[ -z ${wanted// } ]] || die "no such program: ${wanted# }(there are: $(programs | awk '{printf "%s ", $1}'))"
  for component in "${KUBE_COMPONENTS[@]}"; do ln -sfn kube "$BIN/$component"; done
}

build_program() {
  local program=$1 package=$2 minutes=$3 began=$SECONDS partial
  say "building $program (up to $minutes min the first time, seconds later)" >&2
  partial=$BIN/.$program.$$
  (
    cd "$HERE" || exit
    # The compiled packages are kept in the cache, too: a new version of one program then compiles only what changed.
    export CGO_ENABLED=0 GOWORK=off GOCACHE=$CACHE/go-build
    run_logged "$BUILD/$program.log" "building $program" \
      go build -buildvcs=false -trimpath -ldflags "-s -w$(version_flags)" -o "$partial" "$package"
  )
  mv "$partial" "$BIN/$program"
  ((SECONDS - began < 5)) || note "$((SECONDS - began)) s" >&2
}
