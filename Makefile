# The daily commands of the project. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A caller's CARGO_TARGET_DIR is respected everywhere.
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

# Where it is installed, nextest runs the tests: every test is a process of its own, and
# .config/nextest.toml bounds how many heavy ones run at once.
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)

.PHONY: help run test lint fmt deny figures bench-build bench bench-full bench-check torture scale simulate

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run: ## build the server and run it with its defaults, data in ./data
	cargo build --release --locked -p flotilla-daemon
	exec "$(CARGO_TARGET_DIR)/release/flotilla" serve

# A first build is over sooner without what makes later ones quick.
test: export CARGO_INCREMENTAL ?= $(if $(wildcard $(CARGO_TARGET_DIR)/debug/deps),1,0)

# With it, `make lint` builds everything by clippy in the compiler's place, and `make test` after it finds
# all of that built: .ci/run reads and checks no source twice.
ifdef LINT_BUILDS
export RUSTC_WORKSPACE_WRAPPER := clippy-driver
export CLIPPY_ARGS := -D__CLIPPY_HACKERY__warnings
PEERS := --features flotilla-bench/peers
endif

# The tested binary is the one of the dev profile, in which dependencies are optimised. Test runners do not
# build it by themselves; it is built together with the tests, so that nothing is compiled twice.
test: ## run every test, the end-to-end tests with the real SDKs too
	scripts/test-deps.sh
	cargo build --locked --workspace $(PEERS) --bins --tests
ifneq ($(NEXTEST),)
	env $$(scripts/test-pace.py) cargo nextest run --locked --workspace $(PEERS)
else
	env $$(scripts/test-pace.py) cargo test --locked --workspace $(PEERS) --lib --bins --tests -- --test-threads 2
endif

lint: ## check the format and run clippy with warnings denied
	cargo fmt --all --check
ifdef LINT_BUILDS
	cargo build --locked --workspace $(PEERS) --all-targets
else
	cargo clippy --locked --workspace --features flotilla-bench/peers --all-targets -- -D warnings
endif

fmt: ## format everything
	cargo fmt --all

deny: ## check licences, advisories and sources of the dependencies
	@if command -v cargo-deny >/dev/null; then \
		cargo deny --locked check; \
	else \
		echo "cargo-deny is not installed, nothing was checked: cargo install cargo-deny"; \
	fi

# Rounds of each fault, and where the report goes.
ROUNDS ?= 20
REPORT ?= docs/torture.md

torture: ## every fault of a cluster, many times, with a report (ROUNDS=20 REPORT=docs/torture.md)
	scripts/test-deps.sh
	scripts/torture.sh "$(ROUNDS)" "$(REPORT)"

# How many seeds, and the first of them; or one of them, told as it happens.
SEEDS ?= 200
FIRST ?= 1
SEED ?=

simulate: ## clusters on simulated hosts, many seeds (SEEDS=1000 FIRST=1), or one as it happens (SEED=7)
	cargo build --locked --workspace --bins
	"$(CARGO_TARGET_DIR)/debug/flotilla-simulation" \
		$(if $(SEED),--seed "$(SEED)",--seeds "$(SEEDS)" --first "$(FIRST)")

scale: ## print the figures of a cluster with 10,000 topics, and of one at rest
	scripts/test-deps.sh
	cargo build --release --locked -p flotilla-daemon
	FLOTILLA_TEST_BINARY="$(CARGO_TARGET_DIR)/release/flotilla" cargo test --locked -p flotilla-tests \
		--test cluster_scale -- --ignored --nocapture --test-threads 1

# How much is written: `make figures GB=8 RECORDS=100000000` is the full run, of half an hour.
GB ?= 1
RECORDS ?= 2000000

figures: ## print figures of single parts on this machine (GB=1 RECORDS=2000000)
	cargo run --release --locked -p flotilla-storage --example layouts
	cargo run --release --locked -p flotilla-broker --example figures -- $(GB)
	cargo run --release --locked -p flotilla-cluster --example index_records -- $(RECORDS)

BENCH := "$(CARGO_TARGET_DIR)/release/flotilla-bench"
BENCH_WHERE = --directory "$(CARGO_TARGET_DIR)/bench/data"
BENCH_OUT ?= $(CARGO_TARGET_DIR)/bench/results
ROUNDS_OF_BENCH ?= 5
SECONDS_OF_RUN ?= 5
OPTIONS ?=

bench-build:
	scripts/bench-deps.sh
	cargo build --release --locked -p flotilla-daemon
	cargo build --release --locked -p flotilla-bench --features peers

bench: bench-build ## four main workloads side by side, in a few minutes (OPTIONS=...)
	$(BENCH) run $(BENCH_WHERE) --flotilla "$(CARGO_TARGET_DIR)/release/flotilla" --out "$(BENCH_OUT)" \
		--competitor flotilla,nats,redis-always,rabbitmq,raw-disk $(OPTIONS)

bench-full: bench-build ## all workloads and competitors, for hours (OPTIONS="--workload queue-")
	$(BENCH) run --full $(BENCH_WHERE) --flotilla "$(CARGO_TARGET_DIR)/release/flotilla" \
		--out "$(BENCH_OUT)" --rounds "$(ROUNDS_OF_BENCH)" --seconds "$(SECONDS_OF_RUN)" $(OPTIONS)

# The build that the present one is compared with: a program, or else a commit, which is built first.
OLD ?=
BASE ?= HEAD~1

bench-check: ## whether this build is slower than another one (OLD=path/to/flotilla or BASE=commit)
	scripts/bench-check.sh "$(OLD)" "$(BASE)"
