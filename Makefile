# `make` lists the targets. What a target needs is put into .venv first, and again only when it changes.

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python3.10,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 10) and print("$(p)")' 2>/dev/null)) python3)
BIN := .venv/bin
INSTALLED := .venv/installed
DEVELOPED := .venv/developed
DOCUMENTED := .venv/documented
ROOMS := mrcnn port verify weights yaml_configs
PACKAGE := build/package/detectron_gn
# A worker per core; more than eight need more memory than they save time.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: help demo docs test fast lint format hooks dist wheels clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: $(INSTALLED)  ## install, run the embedded model and compare it with Caffe2: pictures and report in out/demo
	$(BIN)/detectron-gn demo --out out/demo

docs: $(DOCUMENTED)  ## the documentation as a site, in out/docs
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . out/docs
	@echo "open out/docs/index.html"

test: lint  ## lint, types and all tests, on all cores
	$(PYTEST)

fast: $(DEVELOPED)  ## the tests that take no more than a few seconds each
	$(PYTEST) -m 'not slow'

lint: $(DEVELOPED) $(PACKAGE)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

format: $(DEVELOPED)  ## sort the imports, and fix what else ruff can fix
	$(BIN)/ruff check --fix .

hooks: $(DEVELOPED)  ## let git run lint before every commit
	$(BIN)/python -m pip install pre-commit
	$(BIN)/pre-commit install

dist: $(DEVELOPED)  ## the source distribution and the wheel, in dist
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -c 'from setuptools import build_meta as build; build.build_sdist("dist")'
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist dist/*.tar.gz
	@ls -l dist

wheels: dist  ## try the wheel outside of this folder on every Python that there is: takes a while
	.ci/wheels dist/*.whl

clean:  ## remove all that was built here, .venv included
	rm -rf .venv build dist out .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# The package as it is installed, for tools that do not follow an editable installation's mapping of folders.
$(PACKAGE): setup.py $(wildcard detectron_gn/*.py)
	mkdir -p $@
	ln -sfn $(addprefix ../../../,$(wildcard detectron_gn/*.py)) $@
	for room in $(ROOMS); do ln -sfn ../../../$$room $@/$$room; done

$(INSTALLED): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "detectron-gn needs Python 3.10 or newer, and $(PYTHON) is" \
			"$$($(PYTHON) --version 2>/dev/null || echo missing): run make PYTHON=/path/to/python3.10" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

# What the site is made with.
$(DOCUMENTED): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	@touch $@

# What the tests and `make lint` need besides.
$(DEVELOPED): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
