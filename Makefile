# Everything a fresh machine needs: Python 3.11 or later, make, and a package index for pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --progress-bar off --disable-pip-version-check

# one thread a worker, workers in parallel: small networks are far slower on several threads
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
# how many evaluations test-durability kills, and nodes test-cluster
KILLS ?= 4

.PHONY: help demo test test-browser test-cluster test-durability check docs clean

help:
	@echo "make demo   train one regime, evaluate the shipped checkpoints, print the leaderboard"
	@echo "make test   linter, types and the whole test suite"
	@echo "make test-browser  the leaderboard's page in Chromium"
	@echo "make test-cluster  one evaluation on clusters of this machine, whose nodes are killed"
	@echo "make check  linter and types alone"
	@echo "make test-durability  kills evaluations at random moments (KILLS=N) and continues them"
	@echo "make docs   the documentation, into docs/_build/html"
	@echo "make clean  remove everything that make made"

demo: $(VENV)/installed
	$(BIN)/harness demo

test: check
	$(TEST_ENV) $(BIN)/python -m pytest -n auto --ignore=tests/browser --ignore=tests/cluster

# Chromium comes from Debian's packages where it is missing and may be installed; CHROMIUM names another one.
test-browser: $(VENV)/installed-browser
	@if ! $(BIN)/python -m tests.browser.chromium && command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  echo "installing Chromium from Debian's packages"; \
	  { apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 || true; \
	fi
	@if $(BIN)/python -m tests.browser.chromium; then $(TEST_ENV) $(BIN)/python -m pytest tests/browser; \
	else echo "test-browser skipped: no Chromium is installed and none can be; name one with CHROMIUM=PATH"; fi

# KILLS says how many nodes are killed at random moments. Slurm comes from Debian's packages where it is missing and may be
# installed; its tests are skipped where it cannot.
test-cluster: $(VENV)/installed-cluster
	@if ! $(BIN)/python -m tests.cluster.slurm 2>/dev/null && command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  echo "installing Slurm from Debian's packages"; \
	  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
	    slurmctld slurmd slurm-client munge; } >/dev/null 2>&1 || true; \
	fi
	KILLS=$(KILLS) $(TEST_ENV) $(BIN)/python -m pytest tests/cluster

test-durability: $(VENV)/installed-dev
	$(TEST_ENV) $(BIN)/python -m benchmarks.resume --moments $(KILLS)

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) docs/_build build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# A stamp a set of extras: installed anew only when pyproject.toml changes.
$(VENV)/installed: pyproject.toml | $(VENV)/created
	@echo "installing into $(VENV); torch is large, so the first time takes minutes"
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/installed-browser: $(VENV)/installed-dev
	$(PIP) --editable '.[dev,browser]'
	@touch $@

$(VENV)/installed-cluster: $(VENV)/installed-dev
	$(PIP) --editable '.[dev,ray]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	@touch $@
