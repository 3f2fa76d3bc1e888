# temaki: `make` lists the targets. Needed on the machine: Python 3.11 or newer, and make.
# Everything else goes into .venv, from the versions in uv.lock.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# A Python of your own choice: make test PYTHON=python3.13
PYTHON ?=
UV_VERSION := 0.13.9

BIN := .venv/bin
PY := $(BIN)/python
# uv has a small environment of its own inside .venv, where no sync can remove it half-way.
UV := .venv/uv-$(UV_VERSION)/bin/uv
UV_ENV := UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON=$(PY) UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
# Tests start many processes: compiled files matter, also where PYTHONDONTWRITEBYTECODE is set.
UV_SYNC := $(UV_ENV) $(UV) sync --quiet --frozen --compile-bytecode

# What is checked; a folder may be missing.
SOURCES := $(wildcard temaki temaki_pytest strategies examples tests benchmarks demo)
# loadscope: tests of one class or module share one S3 server. In the order of their folders, so that the many quick ones of
# unit/ come last, and no worker is left alone with a long module.
# Two workers for each core: many tests wait for a server or for another process.
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
PYTEST_ARGS ?= -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# What `make quick` tests: one module at a time, and the conformance suites on stores that need no server.
QUICK_TESTS := tests/unit tests/conformance -m 'not server'
# The other Pythons of this machine; make test-pythons PYTHONS="/path/to/python3.12 python3.13" for some of them.
PYTHONS ?= $(shell .ci/pythons)

comma := ,
say = @printf '\n== %s\n'

.PHONY: help
help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name text; \
		do printf '  make %-13s %s\n' "$$name" "$$text"; done

# --- the environment ----------------------------------------------------------------------------

$(UV):
	@set -eu; \
	python=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'temaki needs Python 3.11 or newer, and found none$(if $(PYTHON), in PYTHON=$(PYTHON)).' >&2; \
		echo 'Install one, or name it: make PYTHON=/path/to/python3.12' >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$python cannot make virtual environments: its ensurepip module is missing." >&2; \
		echo "On Debian and Ubuntu: apt-get install python$$version-venv" >&2; exit 1; \
	fi; \
	echo "== environment: .venv with $$("$$python" --version)"; \
	rm -rf .venv; \
	"$$python" -m venv --without-pip .venv; \
	"$$python" -m venv ".venv/uv-$(UV_VERSION)"; \
	".venv/uv-$(UV_VERSION)/bin/python" -m pip install --quiet --disable-pip-version-check 'uv==$(UV_VERSION)'; \
	touch $@

# Enough to run temaki; does not remove what the full environment has more.
.venv/.runtime: $(UV) uv.lock pyproject.toml
	@echo '== environment: what temaki needs to run, from uv.lock'
	@$(UV_SYNC) --no-default-groups --inexact
	@touch $@

# Everything, and nothing that the lock does not name.
.venv/.complete: $(UV) uv.lock pyproject.toml
	@echo '== environment: all tools, from uv.lock'
	@$(UV_SYNC) --all-groups
	@touch $@ .venv/.runtime

# --- try it -------------------------------------------------------------------------------------

.PHONY: demo
demo: .venv/.runtime ## Several processes write to one database; make demo URL=s3://bucket/key for a bucket of yours
	@$(PY) demo/demo.py $(if $(URL),--url '$(URL)')

.PHONY: demo-s3
demo-s3: .venv/.complete ## The same against a SeaweedFS server started for it on loopback
	@$(PY) demo/demo.py --seaweedfs

# --- checks -------------------------------------------------------------------------------------

QUICK_CHECKS := lint types layers quick-pytest

.PHONY: quick
quick: .venv/.complete ## For each change, within a minute: linters, types, layers, and the tests that need no server
	@for check in $(QUICK_CHECKS); do $(MAKE) --no-print-directory $$check || { echo "make quick: failed in: make $$check" >&2; exit 1; }; done

.PHONY: quick-pytest
quick-pytest: .venv/.complete
	$(say) 'pytest, the quick half'
	@$(PY) -m pytest $(PYTEST_ARGS) $(QUICK_TESTS)

# In this order: what fails most often and fastest first.
CHECKS := lint types layers pytest docs wheel
