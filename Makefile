# What a developer does often. `make` alone lists it.
# PYTHON: the Python to build the environment with.   SET=cpu|cuda: which vLLM (default: by GPU).
# JOBS: how many files of tests run side by side; many tests wait for processes of their own most of the time.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
SET ?= auto
DATA ?= .evalyard
N ?= 300
SEED ?= 1
JOBS ?= 2
DATABASE ?= sqlite
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(PYTHON) deploy/environment.py --set $(SET) --folder $(VENV)
PATHS := orchestrator workers submissions deploy tests benchmarks
# CI alone: nothing is left out, and what fails is tried once more, as one test of thousands may fall over the clock of a
# busy machine; the summary names it with what it said. A storm of faults has no second try: what it breaks is broken.
IN_CI := -p tests.strict --durations=25 --reruns 1 --rerun-exclude-path tests/faults --rerun-show-tracebacks
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(CI),$(IN_CI))

# The environment is installed uncompiled: Python keeps what it compiled at a first import, unless this forbids it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo up test test-full faults pytest lint format types contracts security docs requirements clean distclean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make the environment (.venv) from pinned requirements; nothing to do when it is there
	@$(SETUP)

setup-dev:
	@$(SETUP) --dev

demo: setup ## evaluate two tiny models and show the board (DEMO_EXIT=1: end when both are on it)
	@$(BIN)/python -m deploy.demo.run --data $(DATA)

up: setup ## start the whole system on this machine, data in .evalyard
	@$(BIN)/evalyard up --data $(DATA)

test: lint types contracts security pytest ## all checks and tests but the slow sweeps

test-full: lint types contracts security ## everything, slow sweeps too
	@$(PYTEST)

faults: setup-dev ## a storm of N=300 faults of SEED=1 against real processes (DATABASE=postgresql)
	@$(BIN)/python -m tests.faults.run --faults $(N) --seed $(SEED) --database $(DATABASE)

pytest: setup-dev
	@$(PYTEST) -m "not slow"

lint: setup-dev ## ruff: mistakes and layout
	@$(BIN)/ruff check $(PATHS)
	@$(BIN)/ruff format --check $(PATHS)

format: setup-dev ## let ruff mend what it can
	@$(BIN)/ruff check --fix $(PATHS)
	@$(BIN)/ruff format $(PATHS)

types: setup-dev ## mypy, strict
	@$(BIN)/mypy

security: setup-dev ## secrets in the tree, known holes in the pinned packages
	@$(BIN)/python -m deploy.security

contracts: setup-dev ## which package may import which
	@$(BIN)/lint-imports --no-cache

docs: setup-dev ## write the generated references in docs/ and the catalogues of the languages again
	@$(BIN)/python -m deploy.reference
	@$(BIN)/python -m deploy.languages

requirements: ## resolve the pinned requirements anew (needs uv)
	@deploy/requirements/resolve

clean: ## remove caches and build leftovers, keep the environment and the data
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis artifacts
	@find $(PATHS) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment too; the data in .evalyard stay
	@rm -rf $(VENV)
