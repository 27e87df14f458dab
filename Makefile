# SPDX-License-Identifier: GPL-2.0-only
# Each target sets up .venv by itself.  PYTHON chooses the interpreter (3.11 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the compiled engine is made of: a change to one of these builds it anew.
ROOMS := $(shell grep -rl --include='*.py' --include='*.pxd' -e '^. room: ' -e '^. Written by tools/pxd.py' physmem kernelmm)
EXTRA = $(shell $(BIN)/python -c 'import shlex, tomllib; print(*map(shlex.quote, tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(1)"]))')
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench bench-peers docs clean

demo: $(VENV)/.installed
	$(BIN)/kernelmm demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/pxd.py --check
	$(BIN)/python tools/house.py --check

bench: $(VENV)/.installed
	$(BIN)/python -m tools.bench

# IMAGES="..." and VMLINUX=... choose what is compared; drgn is installed, crash and makedumpfile are the system's.
bench-peers: $(VENV)/.installed
	$(PIP) drgn
	$(BIN)/python -m tools.bench.peers $(IMAGES) $(if $(VMLINUX),--vmlinux $(VMLINUX))

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find physmem kernelmm \( -name '*.so' -o -name '_built.txt' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "physmem needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# Editable: the sources here are the ones that run.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml setup.py $(ROOMS)
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(PIP) $(call EXTRA,lint)
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) $(call EXTRA,docs)
	touch $@
