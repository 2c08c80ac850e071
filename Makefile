# make demo · make label · make deploy · make test · make lint · make bench
# Each target makes .venv by itself; a second call finds it ready. Everything lives in this folder, but for pip's
# own cache and the real scans of the demo (see tools/demo_data.py).
#   PYTHON=python3.12      the interpreter that makes .venv (3.11 or newer)
#   TEST_JOBS=2            processes that share the tests
#   TESTS="tests/data -k phantom"   what pytest is given
#   BENCH="--quick dicom"           what the benchmarks are given
#   LABEL="--studies DIR"           what MONAI Label is started with; LABEL=--help lists it
#   DEPLOY="--bundle NAME -i FOLDER -o FOLDER"   what the MONAI Deploy application is given

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
DEPLOY ?= --help

PY := .venv/bin/python
RUNTIME := .venv/.ready-runtime
DEV := .venv/.ready-dev
MONAI_LABEL := .venv/.ready-label
MONAI_DEPLOY := .venv/.ready-deploy
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.txt)

.PHONY: help demo label label-or-not deploy deploy-or-not test lint bench clean

help:
	@echo "make demo    from a real CT series to a CKD stage, with a picture"
	@echo "make label   MONAI Label with every bundle, for 3D Slicer and OHIF"
	@echo "make deploy  a bundle as MONAI Deploy application: DEPLOY='--bundle NAME -i FOLDER -o FOLDER'"
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

# In an environment of its own, as MONAI imports it whenever it lies beside MONAI; see tools/deploy_app/sdk.py.
# The first start of its interpreter makes the links between holoscan's libraries.
$(MONAI_DEPLOY): $(RUNTIME) tools/deploy_app/side_packages.txt
	@echo "==> MONAI Deploy, into .venv/deploy"
	@$(PY) -m venv .venv/deploy
	@.venv/deploy/bin/python -m pip install --disable-pip-version-check --no-deps \
	  -r tools/deploy_app/side_packages.txt
	@.venv/deploy/bin/python -c pass
	@touch $@

demo: $(RUNTIME)
	@$(PY) -m tools.demo

label: $(MONAI_LABEL)
	@$(PY) -m tools.monailabel_app $(LABEL)

label-or-not: $(DEV)
	@$(MAKE) $(MONAI_LABEL) || echo "==> MONAI Label could not be installed: its tests are skipped"

deploy: $(MONAI_DEPLOY)
	@$(PY) -m tools.deploy_app $(DEPLOY)

deploy-or-not: $(RUNTIME)
	@$(MAKE) $(MONAI_DEPLOY) || { rm -rf .venv/deploy; \
	  echo "==> MONAI Deploy could not be installed (it has wheels for some versions of Python on Linux): its tests are skipped"; }

test: $(DEV) label-or-not deploy-or-not
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
