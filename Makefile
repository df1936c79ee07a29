# Lectern's commands; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export LECTERN_CACHE ?= $(HOME)/.cache/lectern
export CARGO_TARGET_DIR ?= $(LECTERN_CACHE)/target
export KUBECONFIG := $(or $(LECTERN_KUBECONFIG),$(LECTERN_KUBECONFIG_OUT),$(HOME)/.kube/lectern)
export PATH := $(LECTERN_CACHE)/bin:/usr/local/go/bin:$(HOME)/.cargo/bin:$(PATH)
# One profile and, by --workspace, one set of features for all that is built: a bare machine has time for one full build.
PROFILE := --profile lectern
CRDGEN = cargo build -q $(PROFILE) --workspace --bin crdgen && $(CARGO_TARGET_DIR)/lectern/crdgen

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##### Two commands
.PHONY: demo clean test
demo: ## Everything up to a playing lecture, on a bare Debian machine
	@e2e/demo/run
clean: ## Stops the demo's publisher and removes the cluster
	@e2e/demo/clean
test: ## All tests, on a real cluster that it brings up
	@scripts/test

##### Parts of them
.PHONY: build unit charts e2e platform cluster images install bench chaos rotation cert-manager autoscale fuzz
build: ## Builds all binaries
	cargo build $(PROFILE) --workspace --bins
unit: ## Tests that need no cluster
	cargo test $(PROFILE) --workspace --tests --exclude lectern-e2e
charts: ## Lints the charts and compares what they render
	charts/tests/run
e2e: ## Tests on the cluster that `make platform` brought up
	RUST_TEST_THREADS=6 cargo test $(PROFILE) --workspace --test platform
platform: cluster images install ## The whole platform on the cluster, without a lecture
cluster: ## Kubernetes (kind, three nodes) with MiniStack in it
	@scripts/install cluster
	@e2e/cluster/up
	@e2e/cluster/ministack/up
images: ## Builds the pods' images and loads them into the cluster
	@images/build
	@images/load
install: ## Installs the charts into the cluster and waits until the pool is ready
	@e2e/cluster/install
bench: ## Lists the benchmarks; NAME=start runs one
	@e2e/bench/run $(NAME)
chaos: ## What each fault costs a lecture, on the cluster that `make platform` brought up: a table. CHAOS="--faults move,child-killed --rounds 3"
	@e2e/bench/run chaos $(CHAOS)
rotation: ## The CA is replaced under a lecture, on the cluster that `make platform` brought up: eight minutes
	cargo test $(PROFILE) --workspace --features lectern-e2e/bench --test rotation
cert-manager: ## cert-manager keeps the CA and the certificates of a lecture's platform, on the cluster that `make platform` brought up: twenty minutes
	@e2e/cluster/cert-manager/up
	cargo test $(PROFILE) --workspace --features lectern-e2e/bench --test cert_manager -- --nocapture
autoscale: ## Origins come and go with their viewers, on the cluster that `make platform` brought up: eight minutes
	@e2e/cluster/metrics-server/up
	cargo test $(PROFILE) --workspace --features lectern-e2e/bench --test autoscale -- --nocapture
fuzz: ## Fuzzes every parser of foreign bytes, FUZZ_SECONDS (600) each
	@scripts/fuzz

##### Source
.PHONY: fmt fmt-check lint deny generate generate-check
fmt: ## Formats the source
	cargo fmt --all
fmt-check: ## Fails where the source is not formatted
	cargo fmt --all --check
lint: ## Clippy, warnings are errors
	cargo clippy $(PROFILE) --workspace --all-targets --features lectern-e2e/bench -- -D warnings
deny: ## Licences, bans and sources of all crates
	@command -v cargo-deny >/dev/null || env -u CARGO_TARGET_DIR cargo install --quiet --locked --no-default-features --root $(LECTERN_CACHE) cargo-deny@0.20.2
	cargo deny check licenses bans sources
generate: ## Writes the CRDs and all golden files anew
	$(CRDGEN) crds/generated
	rm -f charts/lectern-crds/crds-src/*.yaml
	cp crds/generated/*.yaml charts/lectern-crds/crds-src/
	UPDATE_GOLDEN=1 cargo test -q $(PROFILE) --workspace --tests --exclude lectern-e2e
	UPDATE_GOLDEN=1 charts/tests/run
generate-check: ## Fails where the CRDs are not what the types say (the tests compare the golden files)
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(CRDGEN) "$$work" && \
	for copy in crds/generated charts/lectern-crds/crds-src; do \
	  diff -r "$$work" $$copy || { echo "$$copy is not up to date: run make generate" >&2; exit 1; }; \
	done
