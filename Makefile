# Everything a newcomer, a developer and CI run. Needed: make, and Python 3.11 or later with venv and pip.
# All else (the Redis server included) is installed from the hashed lock files into $(VENV).

VENV ?= .venv
# The first Python here that is new enough; PYTHON=... overrides it.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
WORKERS ?= 2
LONGEST_FILE = 450

BIN := $(VENV)/bin
# Errors alone: what is installed stands in the lock files.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
OWN := $(PIP) install --no-deps --no-build-isolation --editable .
CORE := $(VENV)/core.stamp
SEMANTIC := $(VENV)/semantic.stamp
DEV := $(VENV)/dev.stamp

.PHONY: help demo test lint types contracts sizes format bench openings lock bom servers embedder clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(CORE) ## See it work: no Redis, no service, no network needed
	@$(MAKE) --no-print-directory embedder || { test "$$CI" != true && \
		echo "There is no embedder: the demo goes on with exact answers only. Later: make embedder"; }
	@$(BIN)/python demo/demo.py

test: lint types contracts sizes ## Everything that CI checks
	@$(MAKE) --no-print-directory embedder || { test "$$CI" != true && \
		echo "There is no embedder: tests that need it are skipped."; }
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(DEV) ## Style of the code, and its layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## Strict type checking
	$(BIN)/mypy

contracts: $(DEV) ## Who may import whom
	$(BIN)/lint-imports

sizes: ## No source file that nobody can read in one sitting
	@find src -name '*.py' -exec wc -l {} + | awk '$$1 > $(LONGEST_FILE) && $$2 != "total" \
		{print $$2 " has " $$1 " lines; at most $(LONGEST_FILE) are allowed"; bad = 1} END {exit bad}'

format: $(DEV) ## Lay the code out, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## Measure; the figures depend on the machine
	$(BIN)/python bench/hits.py
	$(BIN)/python bench/followups.py
	$(BIN)/python bench/similar --write
	$(BIN)/python bench/history --write
	$(BIN)/python bench/bench_peers.py --write
	$(BIN)/python bench/bench_service.py --write
	$(BIN)/python bench/bench_growth.py --write
	$(BIN)/python bench/bench_encryption.py --write
	$(BIN)/python bench/bench_footprint.py --write
	$(BIN)/python bench/bench_usage.py --write
	$(BIN)/python bench/bench_outage.py --write
	$(BIN)/python bench/bench_traces.py --write
	$(BIN)/python bench/bench_start.py
	$(BIN)/python bench/bench_embedding.py --write
	$(BIN)/python bench/bench_similar_lookup.py --write
	$(BIN)/python bench/bench_history_speed.py --write
	$(BIN)/python bench/bench_comparer.py --write
	$(BIN)/python bench/bench_popular.py --write
	$(BIN)/python bench/bench_candidates.py --write
	$(BIN)/python bench/bench_links.py --write
	$(BIN)/python bench/team_day.py --write

openings: $(DEV) ## Write down anew what MCP clients are told first
	$(BIN)/python -m agentic_flywheel.interfaces.mcp.openings

lock: $(DEV) ## Write requirements/*.lock anew from pyproject.toml
	@command -v uv >/dev/null || $(PIP) install uv
	PATH="$(BIN):$$PATH" $(BIN)/python requirements/lock.py
	@$(MAKE) --no-print-directory bom

bom: $(DEV) ## Write the bill of materials, requirements/bom.cdx.json, anew
	$(BIN)/python requirements/bom.py

servers: $(DEV) ## Fetch the rarer Redis servers that tests run against
	$(BIN)/python tests/fetch_servers.py

embedder: $(SEMANTIC) ## Install and fetch what similar questions are found with
	@AFW_EMBEDDER_MODEL=minilm $(BIN)/afw embedder fetch >/dev/null

clean: ## Remove what was made here
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Agentic Flywheel needs Python 3.11 or later, and found none on PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), and Agentic Flywheel needs 3.11 or later." \
		"Name another: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version 2>&1)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): requirements/core.lock pyproject.toml | $(BIN)/python
	@echo "Installing requirements/core.lock"
	@$(PIP) install --require-hashes -r requirements/core.lock
	@$(OWN)
	@touch $@

$(SEMANTIC): requirements/semantic.lock | $(CORE)
	@echo "Installing requirements/semantic.lock"
	@$(PIP) install --require-hashes -r requirements/semantic.lock
	@touch $@

$(DEV): requirements/dev.lock pyproject.toml | $(BIN)/python
	@echo "Installing requirements/dev.lock"
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@$(OWN)
	@touch $@ $(CORE) $(SEMANTIC)
