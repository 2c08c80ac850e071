# make demo · make label · make test · make lint · make bench
# Each target makes .venv by itself; a second call finds it ready. Everything lives in this folder, but for pip's
# own cache and the real scans of the demo (see tools/demo_data.py).
#   PYTHON=python3.12      the interpreter that makes .venv (3.11 or newer)
#   TEST_JOBS=2            processes that share the tests
#   TESTS="tests/data -k phantom"   what pytest is given
#   BENCH="--quick dicom"           what the benchmarks are given
#   LABEL="--studies DIR"           what MONAI Label is started with; LABEL=--help lists it

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
TEST_JOBS ?= 2
TESTS ?= tests
BENCH ?=
LABEL ?=

PY := .venv/bin/python
RUNTIME := .venv/.ready-runtime
DEV := .venv/.ready-dev
MONAI_LABEL := .venv/.ready-label
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.txt)

.PHONY: help demo label label-or-not test lint bench clean

help:
	@echo "make demo    from a real CT series to a CKD stage, with a picture"
	@echo "make label   MONAI Label with every bundle, for 3D Slicer and OHIF"
	@echo "make test    all tests"
	@echo "make lint    ruff, ruff format and mypy"
	@echo "make bench   speed and memory, side by side with MONAI and SimpleITK"
	@echo "make clean   remove .venv and the tools' caches"

$(RUNTIME): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer must make .venv, got: $$($(PYTHON) --version 2>&1 | tail -1)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "==> [1/3] .venv with $$($(PYTHON) --version)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "==> [2/3] $(TORCH): the largest download"
	@$(PY) -m pip install --disable-pip-version-check '$(TORCH)'
	@echo "==> [3/3] the other packages of requirements.txt, and this project"
	@$(PY) -m pip install --disable-pip-version-check '$(TORCH)' -r requirements.txt -e .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "==> the tools of developers"
	@$(PY) -m pip install --disable-pip-version-check '$(TORCH)' -r requirements.txt -e '.[dev]'
	@touch $@

$(MONAI_LABEL): $(RUNTIME)
	@echo "==> MONAI Label and what it imports"
	@$(PY) -m pip install --disable-pip-version-check '$(TORCH)' -r requirements.txt -e '.[label]'
	@$(PY) -m pip install --disable-pip-version-check --no-deps monailabel==0.8.5
	@touch $@

demo: $(RUNTIME)
	@$(PY) -m tools.demo

label: $(MONAI_LABEL)
	@$(PY) -m tools.monailabel_app $(LABEL)

label-or-not: $(DEV)
	@$(MAKE) $(MONAI_LABEL) || echo "==> MONAI Label could not be installed: its tests are skipped"

test: $(DEV) label-or-not
	@echo "==> tests, in $(TEST_JOBS) processes; the summary says what was skipped and why"
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TEST_JOBS) --dist loadgroup $(TESTS)

lint: $(DEV)
	@echo "==> ruff check"
	@$(PY) -m ruff check .
	@echo "==> ruff format --check"
	@$(PY) -m ruff format --check .
	@echo "==> mypy"
	@$(PY) -m mypy

bench: $(DEV)
	@$(PY) -m tools.bench $(BENCH)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist ./*.egg-info
