# The one command vocabulary, at the desk and in CI. `make help` lists it.
# P=postgres narrows bench, conformance and load to one protocol.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

P       ?= postgres
QUICK   ?=
SECONDS_PER_TARGET ?= 30
KEEP    ?=
PYTHON  ?= python3
TOOLS   := target/tools
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  P=postgres    narrows bench, conformance and load to one protocol"
	@echo "  KEEP=1        lets the demo stay up afterwards"

.PHONY: demo
demo: ## installs what is missing, builds, and plays the tour (KEEP=1 stays up)
	@KEEP="$(KEEP)" scripts/demo

.PHONY: build
build: ## the program, as the tests and the demo use it
	cargo build -p portcullis

.PHONY: test
test: ## the whole test suite; starts and stops the services that it needs
	cargo test --workspace
	cargo build -p portcullis
	$(PYTHON) tests/e2e/run

.PHONY: lint
lint: ## formatting, clippy, doc warnings, dependencies, scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	scripts/deny
	if command -v shellcheck >/dev/null; then shellcheck .ci/run scripts/demo scripts/deny scripts/fuzz scripts/install scripts/venv; fi
	$(PYTHON) -W error -m compileall -q tests bench scripts

.PHONY: conformance
conformance: ## real peers through the gateway: PostgreSQL's suites and drivers
	cargo build -p portcullis
	$(PYTHON) tests/conformance/$(P)/run $(ARGS)

.PHONY: bench
bench: ## side-by-side runs against named peers; writes bench/README.md
	cargo build --release -p portcullis -p portcullis-bench
	$(PYTHON) bench/$(P)/run $(if $(QUICK),--quick) $(ARGS)

.PHONY: load
load: ## many sessions, slow readers and broken peers for a bounded time
	cargo build --release -p portcullis -p portcullis-bench
	$(PYTHON) bench/$(P)/load $(ARGS)

.PHONY: fuzz
fuzz: ## every fuzz target for SECONDS_PER_TARGET seconds
	scripts/fuzz $(SECONDS_PER_TARGET)

.PHONY: corpus
corpus: ## replays every fuzz corpus and past crash without fuzzing
	scripts/fuzz 0

.PHONY: dist
dist: ## a stripped release binary and its checksum under target/dist
	cargo build --release -p portcullis
	mkdir -p target/dist
	install -m 755 -s target/release/portcullis target/dist/portcullis
	cp LICENSE target/dist/
	cd target/dist && sha256sum portcullis > portcullis.sha256 && cat portcullis.sha256

.PHONY: clean
clean: ## removes what builds and demos left
	cargo clean
	rm -rf .demo
