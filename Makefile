# make demo: the whole promise on the embedded model.  make test: lint, types and tests.
# Both first put the package and its pinned dependencies into .venv (again only when they change).

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python3.10,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 10) and print("$(p)")' 2>/dev/null)) python3)
BIN := .venv/bin
INSTALLED := .venv/installed
ROOMS := mrcnn port verify weights yaml_configs
PACKAGE := build/package/detectron_gn

.PHONY: demo test lint
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/detectron-gn demo --out out/demo

test: lint
	$(BIN)/python -m pytest

lint: $(INSTALLED) $(PACKAGE)
	$(BIN)/ruff check .
	$(BIN)/mypy

# The package as it is installed, for tools that do not follow an editable installation's mapping of folders.
$(PACKAGE): setup.py
	mkdir -p $@
	ln -sfn ../../../detectron_gn/__init__.py ../../../detectron_gn/__main__.py $@
	for room in $(ROOMS); do ln -sfn ../../../$$room $@/$$room; done

$(INSTALLED): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "detectron-gn needs Python 3.10 or newer, and $(PYTHON) is" \
			"$$($(PYTHON) --version 2>/dev/null || echo missing): run make PYTHON=/path/to/python3.10" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	@touch $@
