# `make demo` and `make test` set everything up on a machine that has only Python and make, and are quick the second time.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Airside needs Python 3.11 or newer; give it as PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

setup: $(READY)  ## Create .venv with the locked dependencies

demo: $(READY)  ## Run the demo batch, giving the approvals
	$(BIN)/airside demo --yes

test: $(READY)  ## Run all tests but the slow ones
	+$(MAKE) --no-print-directory -j 2 test-cluster test-core

# Those that start Ray wait most of the time: the others fill what is left of the machine beside them, and give way.
test-cluster: $(READY)
	$(BIN)/python -m pytest -q -m "ray and not slow"

test-core: $(READY)
	nice -n 10 $(BIN)/python -m pytest -q -m "not ray and not slow"

test-slow: $(READY)  ## Run the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)  ## Format, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint  ## All of that, and the tests that need no cluster
	$(BIN)/python -m pytest -q -n 2 -m "not ray and not slow"

wheel: $(READY)  ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:  ## Remove what was built, and .venv
	rm -rf $(VENV) dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo test test-cluster test-core test-slow lint check wheel clean
