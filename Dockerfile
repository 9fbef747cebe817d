# The images of Quorate. A static binary in an empty file system: no shell, no libraries, no root.
#
#   docker build --target node     --tag ghcr.io/quorate/quorate-node:0.1.0 .
#   docker build --target operator --tag ghcr.io/quorate/quorate-operator:0.1.0 .
#   docker build --target samples  --tag ghcr.io/quorate/quorate-samples:0.1.0 .   # programs of manifests/samples
#
# BINARIES names the stage that the binaries come from: `compiled` builds them from this source; `outside` takes those
# that lie in .local/binaries, as `make images` does. (buildah 1.28 must be told even the default:
# --build-arg BINARIES=compiled.)
ARG BINARIES=compiled
ARG RUST=docker.io/library/rust:1.95

FROM ${RUST} AS compiled
WORKDIR /source
COPY . .
# Kernels of aarch64 have pages of up to 64 KiB: the allocator has to know when it is compiled.
RUN target="$(uname -m)-unknown-linux-gnu" \
 && if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" \
      --package quorate-node --package quorate-operator --bins --examples \
 && mkdir /binaries \
 && cd "target/$target/release" \
 && cp quorate-node raftctl quorate-operator examples/leader_job examples/visits /binaries/

FROM scratch AS outside
COPY .local/binaries/ /binaries/

# hadolint ignore=DL3006
FROM ${BINARIES} AS binaries

FROM scratch AS node
LABEL org.opencontainers.image.title="quorate-node" \
      org.opencontainers.image.description="A node of a replicated, strongly consistent store with the etcd v3 API" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=binaries /binaries/quorate-node /binaries/raftctl /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/quorate-node"]

FROM scratch AS samples
LABEL org.opencontainers.image.title="quorate-samples" \
      org.opencontainers.image.description="Programs that run beside nodes of Quorate, as examples" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=binaries /binaries/leader_job /binaries/visits /usr/local/bin/
USER 65532:65532

FROM scratch AS operator
LABEL org.opencontainers.image.title="quorate-operator" \
      org.opencontainers.image.description="Runs Quorate's clusters on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=binaries /binaries/quorate-operator /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/quorate-operator"]
