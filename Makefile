# The vocabulary for people and machines. Every target does the set-up that it needs, into ignored
# folders of this checkout.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ONNXD   := target/release/onnxd
RUNTIME := target/release/onnxruntime
TRAINED := target/trained/onnxd
MODELS  ?= models
ARGS    ?=

# ONNX Runtime sends usage data to its maker unless this is set before it is loaded.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help build release serve test test-rust test-clients test-examples test-chart test-image image image-whole test-scale-out scale-out chart-readme lint supply-chain advisories sbom bench bench-instructions bench-scheduling bench-scaling bench-peers asan miri loom fuzz chaos soak soak-control test-kube test-kubelet tools clean FORCE

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

build: $(ONNXD) $(RUNTIME)/manifest.json ## Build target/release/onnxd and fetch ONNX Runtime beside it

$(ONNXD): FORCE
	cargo build --release --locked

$(RUNTIME)/manifest.json: | $(ONNXD)
	$(ONNXD) setup --dir $(RUNTIME)

release: $(TRAINED) ## Build target/trained/onnxd as images have it: laid out by a training run, about twenty minutes

$(TRAINED): benches/training.py build.rs Cargo.toml Cargo.lock $(shell find src proto -type f)
	benches/training.py

serve: build ## Serve the models of models/ (MODELS=path ARGS='--flag …')
	exec $(ONNXD) serve $(MODELS) $(ARGS)

test: test-rust test-clients test-examples test-scale-out test-image test-chart ## Run every test: Rust, real runtime, clients, examples, several servers, image, chart

test-rust: build ## Run the Rust tests, with and without the real runtime
	cargo test --locked

test-clients: build ## Run clients in other languages against the server
	tests/clients/run.sh --ignore test_examples.py

test-examples: build ## Build the example clients and compare what they print
	tests/clients/run.sh test_examples.py

# Docker, Podman and buildah read the same Dockerfile; the last two need to be told to keep the health check.
BUILDER ?= $(firstword $(foreach tool,docker podman buildah,$(if $(shell command -v $(tool)),$(tool))))
FLAVOR  ?= cpu
IMAGE   ?= onnxd:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)$(if $(filter-out cpu,$(FLAVOR)),-$(FLAVOR))

image: ## Build the image (FLAVOR=cuda13 IMAGE=name:tag BUILDER=podman)
	BUILDAH_FORMAT=docker $(BUILDER) build --build-arg FLAVOR=$(FLAVOR) --tag $(IMAGE) .

test-image: build .venv/clients/installed ## Build the image without a registry and run it locked down
	tests/image/build.sh
	PYTHONDONTWRITEBYTECODE=1 .venv/clients/bin/python -m pytest -p no:cacheprovider tests/image

image-whole: .venv/clients/installed ## The same with the compiling, on bases made from Debian's packages, about ten minutes (FLAVOR=cuda13)
	FLAVOR=$(FLAVOR) tests/image/build.sh --whole

test-scale-out: build .venv/clients/installed ## Servers come and go under load behind round robin, nginx and Envoy
	tests/scale_out/run.sh

scale-out: build .venv/clients/installed ## The same at length (ARGS='--rounds 100 --front envoy --trial ageing'), or what they answer together (ARGS=--throughput)
	tests/scale_out/run.sh $(or $(ARGS),--rounds 100)

test-chart: build ## Render the Helm chart, check it, and run its pods (ARGS='-k name')
	tests/chart/run.sh $(ARGS)

chart-readme: ## Write the table of values in helm/onnxd/README.md anew
	tests/chart/tools.sh
	.tools/readme-generator/node_modules/.bin/readme-generator --values helm/onnxd/values.yaml --readme helm/onnxd/README.md

lint: supply-chain ## Check format, lints, documentation links and dependencies
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

supply-chain: ## Check licences, bans and sources of dependencies (deny.toml)
	supply-chain/run.sh check

advisories: ## Look for known faults of dependencies; needs the network, where their list lies
	supply-chain/run.sh advisories

sbom: build ## Write target/onnxd.cdx.json: all crates of the server, and ONNX Runtime
	supply-chain/run.sh sbom

# Benches measure what images have, or the server that ONNXD_BIN names.
bench bench-scheduling bench-scaling bench-peers: export ONNXD_BIN ?= $(TRAINED)
bench bench-scheduling bench-scaling bench-peers: $(if $(ONNXD_BIN),,$(TRAINED))

bench: build bench-out/models.made ## Measure every row of the targets, about half an hour (ARGS='--quick --rows 1,7')
	cargo bench --locked --bench server -- $(ARGS)

bench-instructions: build ## Count instructions under valgrind, hold them against the record (ARGS=--record)
	benches/instructions.py $(ARGS)

bench-scheduling: build bench-out/models.made ## Measure batching and overload on real models, about twenty minutes (ARGS=--quick)
	benches/scheduling.py --text bench-out/models $(ARGS)

bench-scaling: build .venv/bench/installed ## Measure how cost grows with callers, bytes, models and more, about seven minutes (ARGS=--quick)
	cargo bench --locked --bench server --no-run
	.venv/bench/bin/python -B benches/scaling.py $(ARGS)

bench-peers: build bench-out/models.made .venv/bench/installed ## Measure Triton, mosec, MLServer and KServe beside onnxd, about twelve minutes (ARGS=--quick)
	cargo bench --locked --bench server --no-run
	.venv/bench/bin/python -B benches/peers.py $(ARGS)

.venv/bench/installed: benches/requirements.txt
	"$${PYTHON:-python3}" -m venv --clear .venv/bench
	.venv/bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Models for load tests; as they are large, they are made where they are needed.
bench-out/models.made: $(wildcard tests/data/*.py) tests/data/requirements.txt
	test -x .venv/models/bin/python || $${PYTHON:-python3} -m venv .venv/models
	.venv/models/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/data/requirements.txt
	.venv/models/bin/python tests/data/make_models.py --bench bench-out/models
	touch $@

.venv/clients/installed: tests/clients/requirements.txt
	tests/clients/run.sh --collect-only --quiet

asan: build ## The tests of the real runtime under AddressSanitizer, some minutes (needs rustup; ARGS=filter)
	tests/asan.sh $(ARGS)

miri: ## Join and cut tensors under Miri, some minutes (needs rustup; ARGS=filter)
	tests/miri.sh $(ARGS)

loom: ## Callers and workers of a queue in every order under loom, minutes for the first build (ARGS=filter)
	tests/loom.sh $(ARGS)

fuzz: ## Fuzz everything that reads bytes from outside, ten minutes each (needs rustup; ARGS='--minutes 1 decode')
	tests/fuzz.sh $(ARGS)

chaos: build .venv/clients/installed ## Faults of all kinds at random times, ten minutes (ARGS='--minutes 1 --seed 7')
	.venv/clients/bin/python tests/endurance/chaos.py $(ARGS)

soak: build .venv/clients/installed ## Twenty minutes of mixed load: does it grow? (ARGS='--minutes 3')
	.venv/clients/bin/python tests/endurance/soak.py $(ARGS)

soak-control: .venv/clients/installed ## A server that leaks on purpose, which the soak must find out
	cargo build --release --locked --features planted-leak --target-dir target/planted
	ONNXD_BIN=target/planted/release/onnxd ONNXD_RUNTIME_LIBRARY=$(RUNTIME) .venv/clients/bin/python tests/endurance/soak.py --expect-growth $(ARGS)

test-kube: ## Try the chart on a real Kubernetes API server, about five minutes, the first build not counted (needs Go; ARGS='-only REGEXP')
	tests/kube/run.sh $(ARGS)

test-kubelet: build ## Run the pods of the chart on a real kubelet, the first build not counted (root; needs Go; ARGS='-only REGEXP')
	tests/kube/run.sh --kubelet $(ARGS)

tools: ## Install the command line tools of the tests into .tools/ (needs Go)
	tests/clients/tools.sh

clean: ## Remove everything that was built or fetched
	rm -rf target .venv .tools bench-out

FORCE:
