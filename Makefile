# Two commands do everything on a fresh machine: `make demo` and `make test`.
# `make help` lists the others.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := formats ledger pdp kas sdk service policies
.DEFAULT_GOAL := help

.PHONY: help demo test test-slow interop mutants check lint fresh bench clean packages lock proto

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.installed ## The main job, end to end, on one machine
	@tools/packages softhsm2 || true
	@$(BIN)/envelock demo

test: $(VENV)/.installed packages ## The tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed packages ## Long tables: crashes, fuzzing
	$(BIN)/python -m pytest -m "slow or not slow"

interop: $(VENV)/.installed packages ## Clients and files that nobody here wrote, in every pairing (15 minutes, 11 GiB of disk)
	ENVELOCK_REQUIRE_VECTORS=1 $(BIN)/python -m pytest tests/formats tests/ledger tests/sdk -k "golden or clients or tessera or merkle or wycheproof"
	ENVELOCK_REQUIRE_CLIENTS=1 $(BIN)/python -m pytest -m "slow or not slow" tests/interop
	$(BIN)/python tools/interop_matrix.py --write docs/interop.md

mutants: $(VENV)/.installed packages ## Whether the tests notice small changes of the source (about an hour)
	$(BIN)/python tools/mutants.py

check: $(VENV)/.installed lint ## Lint, types, imports, sizes, docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate --quiet tests
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/check_docs.py

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

fresh: ## Both README commands in an empty clone with an empty environment
	tools/fresh

bench: $(VENV)/.installed packages ## The figures of benchmarks/README.md
	@tools/packages wrk
	for one in benchmarks/[a-z]*.py; do echo "== $$one"; $(BIN)/python $$one || exit 1; done

packages:
	@tools/packages softhsm2 strace

clean: ## Remove what the other commands made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

proto: ## Generate the protobuf messages anew (needs grpcio-tools)
	cd kas/envelock_kas/opentdf && python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. opentdf.proto

lock: ## Resolve the dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra all --extra dev --generate-hashes --python-version 3.11 --universal --allow-unsafe --no-header -o requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "envelock needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
