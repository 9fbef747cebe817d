# shellcheck shell=bash
# Container images: OCI archives, made without a registry and without a daemon.

PAUSE_IMAGE=localhost/pause:1
COREDNS_IMAGE=localhost/coredns:$(module_version github.com/coredns/coredns)
NODE_IMAGE=${NODE_IMAGE:-${IMAGE_REGISTRY:-ghcr.io/quorate}/quorate-node:$VERSION}
OPERATOR_IMAGE=${OPERATOR_IMAGE:-${IMAGE_REGISTRY:-ghcr.io/quorate}/quorate-operator:$VERSION}
SAMPLES_IMAGE=${IMAGE_REGISTRY:-ghcr.io/quorate}/quorate-samples:$VERSION

# make_image ARCHIVE NAME BUILDAH-ARGUMENTS...
make_image() {
  local archive=$1 name=$2 store log; shift 2
  mkdir -p "${archive%/*}"
  store=$(mktemp -d "${archive%/*}/.store.XXXXXX")
  log=${archive%.tar}.log
  local buildah=(buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs)
  run_logged "$log" "the image $name" "${buildah[@]}" build --isolation chroot --pull-never --tag "$name" "$@"
  run_logged "$log" "the archive of $name" "${buildah[@]}" push --quiet "$name" "oci-archive:$archive.new:$name"
  mv "$archive.new" "$archive"
  rm -rf "$store"
}

# The images of the cluster itself: built once, into the cache.
system_images() {
  local name
  for name in pause coredns; do
    [[ -s $BUILD/images/$name.tar ]] && continue
    local image=$PAUSE_IMAGE
    [[ $name == pause ]] || image=$COREDNS_IMAGE
    say "making the image $image"
    make_image "$BUILD/images/$name.tar" "$image" --file - "$BIN" \
      < <(printf 'FROM scratch\nCOPY %s /%s\nUSER 65532:65532\nENTRYPOINT ["/%s"]\n' $name $name $name)
  done
}

# Quorate's own images, from this checkout's source.
project_images() {
  local binaries=$LOCAL/binaries
  compile_static "$binaries"
  project_image node "$NODE_IMAGE" "$binaries"/{quorate-node,raftctl}
  project_image operator "$OPERATOR_IMAGE" "$binaries/quorate-operator"
  project_image samples "$SAMPLES_IMAGE" "$binaries"/{leader_job,visits}
}

BINARIES=(quorate-node raftctl quorate-operator examples/leader_job examples/visits)

# Static binaries run in an empty file system. They are compiled in the cache, where another checkout finds the
# dependencies, and copied only when they have changed.
compile_static() { # DIRECTORY
  command -v cargo >/dev/null || die "Rust is needed to build Quorate (https://rustup.rs): install it, and put cargo on the PATH"
  local target profile=${PROFILE:-release} compiled binary
  target=$(uname -m)-unknown-linux-gnu
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
  compiled=$CARGO_TARGET_DIR/$target/${profile/#dev/debug}
  # As in the Dockerfile.
  if [[ $(uname -m) == aarch64 ]]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi
  say "compiling Quorate ($profile; up to 10 min the first time)"
  (cd "$CHECKOUT" && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile "$profile" --target "$target" --package quorate-node --package quorate-operator --bins --examples) ||
    die "compiling Quorate failed"
  mkdir -p "$1"
  for binary in "${BINARIES[@]}"; do
    cmp -s "$compiled/$binary" "$1/${binary##*/}" || cp "$compiled/$binary" "$1/"
  done
}

# project_image TARGET NAME BINARY...: made again when a binary, the Dockerfile or the name has changed.
project_image() {
  local target=$1 name=$2 archive=$LOCAL/images/quorate-$1.tar file newer=; shift 2
  for file in "$@" "$CHECKOUT/Dockerfile"; do
    [[ $archive -nt $file ]] || newer=yes
  done
  [[ -n $newer || $(cat "$archive.name" 2>/dev/null) != "$name" ]] || return 0
  say "making the image $name"
  make_image "$archive" "$name" --file "$CHECKOUT/Dockerfile" --target "$target" --build-arg BINARIES=outside "$CHECKOUT"
  echo "$name" >"$archive.name"
}

# load_images HOST: those that are new since the last time.
load_images() {
  local host=$1 archive loaded
  mkdir -p "$STATE/$host/loaded"
  for archive in "$BUILD"/images/*.tar "$LOCAL"/images/*.tar; do
    loaded=$STATE/$host/loaded/${archive##*/}
    [[ -s $archive && $archive -nt $loaded ]] || continue
    inside "$host" ctr --namespace k8s.io images import --local - <"$archive" >"$STATE/log/images-$host.log" 2>&1 ||
      die_with_log "$STATE/log/images-$host.log" "loading ${archive##*/} into $host failed"
    touch -r "$archive" "$loaded"
  done
}
