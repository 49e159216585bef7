# The only door: `make help` lists it. Every target installs what it needs first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONWARNINGS ?= ignore::DeprecationWarning

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp is newer than pyproject.toml when the environment is up to date.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "distill needs Python 3.10 or newer; set PYTHON=python3.x")'
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## create .venv and install distill with its development tools

demo: install  ## train the digits teacher, the controls and the transferred student; ends with the report
	$(RUN)/distill train recipes/image/digits_teacher.py recipes/image/digits.py --resume auto

test: install  ## the tests, under ten minutes on two cores
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: install  ## the slow tests: whole runs
	$(RUN)/python -m pytest -m slow

check: install  ## format, lint, types
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy --strict distill

bench: install  ## cost of a step against a hand-written loop, as JSON in benchmarks/results
	$(RUN)/python benchmarks/step.py

clean:  ## remove the environment and caches, never the runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
