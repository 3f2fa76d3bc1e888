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

.PHONY: test
test: .venv/.complete ## Everything that has to hold: linters, types, layers, docs, the wheel, all tests
	@for check in $(CHECKS); do $(MAKE) --no-print-directory $$check || { echo "make test: failed in: make $$check" >&2; exit 1; }; done

.PHONY: lint
lint: .venv/.complete ## ruff, its rules and its format
	$(say) 'ruff'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: types
types: .venv/.complete ## mypy, strict
	$(say) 'mypy'
	@$(BIN)/mypy $(SOURCES)

.PHONY: layers
layers: .venv/.complete ## import-linter: who may import whom
	$(say) 'import-linter'
	@$(BIN)/lint-imports --no-logo

.PHONY: pytest
pytest: .venv/.complete ## All tests; make pytest PYTEST_ARGS="-k lease"
	$(say) 'pytest'
	@$(PY) -m pytest $(PYTEST_ARGS)

# Each has an environment of its own, from the same lock: .venv/python3.12, and so on.
define on_each_python
	@set -eu; \
	for python in $(PYTHONS); do \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		home=".venv/python$$version"; \
		if [ ! "$$home/.complete" -nt uv.lock ] || [ ! "$$home/.complete" -nt pyproject.toml ]; then \
			printf '\n== environment: %s with Python %s, from uv.lock\n' "$$home" "$$version"; \
			UV_PROJECT_ENVIRONMENT="$$home" UV_PYTHON="$$python" UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy \
				$(UV) sync --quiet --frozen --compile-bytecode --all-groups; \
			touch "$$home/.complete"; \
		fi; \
		printf '\n== pytest on Python %s%s\n' "$$version" '$(2)'; \
		"$$home/bin/python" -m pytest $(PYTEST_ARGS) $(1); \
	done
endef

.PHONY: test-pythons
test-pythons: .venv/.complete ## All tests on each Python of this machine, from 3.11 on
	$(call on_each_python)
	$(say) 'pytest on the Python of .venv'
	@$(PY) -m pytest $(PYTEST_ARGS)

.PHONY: quick-pythons
quick-pythons: .venv/.complete ## The quick half of the tests on each other Python of this machine, from 3.11 on
	$(call on_each_python,$(QUICK_TESTS),$(comma) the quick half)

.PHONY: docs
docs: .venv/.complete ## The documentation, into site/; warnings are errors
	$(say) 'mkdocs'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: wheel
wheel: .venv/.complete ## The wheel, built through the sdist, tried in an empty environment away from the sources
	$(say) 'wheel'
	@set -eu; \
	away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; trap 'exit 1' INT TERM; \
	$(UV_ENV) $(UV) build --quiet --out-dir "$$away/dist"; \
	$(UV_ENV) $(UV) export --quiet --frozen --no-default-groups --no-emit-project --output-file "$$away/locked.txt"; \
	$(PY) -m venv --without-pip "$$away/venv"; \
	UV_LINK_MODE=copy $(UV) pip install --quiet --python "$$away/venv/bin/python" --require-hashes -r "$$away/locked.txt"; \
	UV_LINK_MODE=copy $(UV) pip install --quiet --python "$$away/venv/bin/python" --no-deps "$$away"/dist/*.whl; \
	cp tests/wheel/check_wheel.py "$$away/"; \
	(cd "$$away" && PYTHONPATH= venv/bin/python check_wheel.py); \
	: 'a last command that is no program: some shells replace themselves by that one, and then run no trap'

# Far more of the simulation than the tests run: 100,000 seeds.
.PHONY: soak
soak: .venv/.complete ## 100,000 schedules of the simulation; make soak SCHEDULES=1000000
	$(say) 'soak'
	@SCHEDULES=$(or $(SCHEDULES),100000) $(PY) -m pytest -n auto --dist loadscope tests/stateful/test_simulation.py

.PHONY: bench
bench: .venv/.complete ## The measurements in benchmarks/, one after the other
	@set -e; for script in benchmarks/[!_]*.py; do printf '\n== %s\n' "$$script"; $(PY) "$$script"; done
	$(say) 'side by side: writes docs/benchmarks/'
	@$(PY) -m benchmarks.side_by_side.run

.PHONY: format
format: .venv/.complete ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove .venv and everything that can be made again
	rm -rf .venv dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find temaki temaki_pytest strategies examples tests benchmarks demo -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
