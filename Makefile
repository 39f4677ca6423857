# `make demo` and `make test` each do all the set-up in .venv first; both can be repeated safely.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test test-parallel lint setup clean

demo: $(VENV)/.installed
	$(PY) recipes/demo.py

test: $(VENV)/.installed-dev lint
	$(PY) -m pytest

# The same tests in less time: those that can share the machine on several cores, then the others.
test-parallel: $(VENV)/.installed-dev lint
	$(PY) -m pytest --numprocesses auto --maxprocesses 4 -m "not alone"
	$(PY) -m pytest -m alone

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

setup: $(VENV)/.installed-dev

# torch first and alone: the packages after it then take the build that is already there.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dp_hub needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet $(TORCH)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(PY) -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
