# What people and continuous integration run. `make run` shows the real thing; `make test` proves it.
.DEFAULT_GOAL := help
.PHONY: help tools peers run test lint unit definitions chaos dist clean

CARGO ?= cargo

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## Install what building needs (a C compiler and cmake), where root may
	@scripts/tools

peers: ## Install the servers written by others that tests run against, into target/peers
	@scripts/peers

run: tools ## Gateway, simulated services and application: the quickstart, live
	$(CARGO) build --quiet
	@scripts/quickstart

test: tools peers lint unit definitions ## Everything that must pass before a change lands

lint: ## Format and lints, warnings refused
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --all-targets -- -D warnings

unit: ## Unit and integration tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --no-fail-fast; else $(CARGO) test --quiet; fi
	$(CARGO) test --quiet --doc

definitions: ## Every shipped definition and the quickstart load without errors
	@set -a; . examples/quickstart/demo.env; set +a; $(CARGO) run --quiet -- check integrations examples/quickstart

chaos: tools ## The fault tests at length: 1,000 kills, 500 power cuts, 100,000 queued; takes hours
	TRUNKLINE_CHAOS_ROUNDS=1000 TRUNKLINE_CHAOS_CUTS=500 TRUNKLINE_POWER_CUTS=500 TRUNKLINE_CHAOS_QUEUED=100000 \
	$(CARGO) test --release --test it -- --nocapture --test-threads 1 chaos:: power::

fuzz: tools ## Each fuzz target for a minute
	scripts/fuzz 60

dist: tools ## The binary that images are built with
	$(CARGO) build --profile dist

clean: ## Remove what was built
	$(CARGO) clean
