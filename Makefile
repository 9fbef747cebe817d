# Everything that a person, or CI, runs here. Each target says what it does in the comment beside its name.
#
# Variables: QUORATE_CACHE  where what is built once is kept (~/.cache/quorate)
#            CONTEXT        a kubectl context of a cluster that you have: it is used instead of a local one
#            STORE          what the local Kubernetes keeps its objects in: etcd, or quorate for three nodes of this checkout
#            IMAGE_REGISTRY, NODE_IMAGE, OPERATOR_IMAGE   how the images are called (ghcr.io/quorate, and :VERSION)
#            PROFILE        cargo's profile for the binaries in the images (release)
#            SEEDS, SEED    how many runs of the simulator, and the seed of the first (random)
#            FAULTS         only the faults with these numbers: 3,17, or none (what a failure prints)
#            SOAK_SECONDS   for how long clients do their worst (1800)
#            FUZZ_SECONDS   how long each fuzz target runs (600)
#            CASE, GO_ON    of test-all: one case alone; only those that have not passed yet (GO_ON=1)
#            ROUNDS         how often each row of the benchmark is measured (5)

KUBERNETES := tests/kubernetes/cluster
QUORATE_CACHE ?= $(HOME)/.cache/quorate
DENY_VERSION := 0.20.2
DENY := $(QUORATE_CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
ROUNDS ?= 5
SEEDS ?= 1
SOAK_SECONDS ?= 1800
FUZZ_SECONDS ?= 600
export QUORATE_CACHE CONTEXT STORE IMAGE_REGISTRY NODE_IMAGE OPERATOR_IMAGE PROFILE DENY

.DEFAULT_GOAL := help
.PHONY: help
help: ## Say what each target does
	@awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVariables are explained at the top of the Makefile.\n'

## On a real Kubernetes
.PHONY: demo demo-down cluster cluster-down images
demo: ## From nothing to a cluster that loses its leader, a volume, and no data (first time 20 min, then under 1)
	@tests/kubernetes/demo

demo-down: ## Remove all that the demo has left, its Kubernetes too
	@tests/kubernetes/demo down

cluster: ## Bring up a Kubernetes of three nodes on this machine (as root; the first time it is built, 10 min)
	@$(KUBERNETES) up

cluster-down: ## Take it down, and leave nothing
	@$(KUBERNETES) down

images: ## Make both container images, without a registry or a daemon, and load them into the local Kubernetes
	@$(KUBERNETES) images

## Tests
.PHONY: test test-rust test-kubernetes test-all test-apiserver simulate soak mutations fuzz lint bench manifests
test: test-rust test-kubernetes ## Run every test: protocol, disk, processes, operator, Kubernetes (first time 40 min, then 15)

test-rust: ## The tests that need no Kubernetes: the protocol, the disk, the API beside etcd, real processes under faults
	@tests/run rust

test-kubernetes: ## The operator on a real Kubernetes, under load (brings the local one up; CONTEXT=name for yours)
	@tests/run kubernetes

test-all: ## Every case of the operator, each with a cluster of its own, and a table of what it cost (CASE=name; GO_ON=1 after a stop)
	@tests/run kubernetes --all $(if $(CASE),--case $(CASE)) $(if $(GO_ON),--go-on)

test-apiserver: ## The storage tests of Kubernetes' API server, on a node in the place of their etcd (FLAGS=-run=TestList; some 10 min)
	@tests/apiserver/run $(FLAGS)

simulate: ## Whole clusters on virtual time under faults, each from a seed, every step checked (SEEDS=1000; SEED=7)
	@tests/run simulate --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS))

soak: ## Clients do their worst to three nodes of 1024 descriptors and 512 MiB, for SOAK_SECONDS (1800); as root
	@tests/run soak $(SOAK_SECONDS)

mutations: ## Put each known failure of other implementations into a copy of this tree, and show that its test fails (10 min)
	@tests/mutations/run

fuzz: ## Feed what is read from disks and peers with anything at all, FUZZ_SECONDS for each target (needs a nightly Rust)
	@tests/fuzz $(FUZZ_SECONDS)

lint: $(DENY) ## Format, lints, scripts, the dependencies' licences, and that what is generated is current
	@tests/run lint

bench: ## Three nodes beside three of etcd in one run: rates, latencies, processor, memory, failover, restart, join (about 25 min)
	@tests/run bench --rounds $(ROUNDS)

## What is generated
manifests: ## Write the CRD, the chart's copy of it and manifests/install.yaml from their sources
	@tests/run manifests

$(DENY):
	@echo "building cargo-deny $(DENY_VERSION), once (about 5 min)"
	@cargo install --quiet --locked --version $(DENY_VERSION) --root $(QUORATE_CACHE)/cargo-deny-$(DENY_VERSION) cargo-deny
