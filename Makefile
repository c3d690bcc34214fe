# The commands of this repository; `make` lists them.
# PYTHON is the interpreter that a new .venv is made with: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SUPPORTED := (3, 11) <= sys.version_info[:2] <= (3, 13)

.DEFAULT_GOAL := help
.PHONY: help setup demo test campaign lint docs lock build clean
.DELETE_ON_ERROR:

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# An existing .venv is never replaced: what is wrong with it is said, and what to type.
define check-venv
if [ -e $(VENV) ]; then \
	again="remove it and start again: rm -rf $(VENV) && make setup"; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
		echo "setup: $(BIN)/python does not run, or has no pip; $$again" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(not $(SUPPORTED))'; then \
		echo "setup: $(VENV) has $$($(BIN)/python -V), but perdure needs 3.11, 3.12 or 3.13; $$again PYTHON=python3.11" >&2; exit 1; \
	fi; \
	if [ "$(origin PYTHON)" != file ] && [ "$$($(BIN)/python -V)" != "$$($(PYTHON) -V)" ]; then \
		echo "setup: $(VENV) has $$($(BIN)/python -V), but PYTHON=$(PYTHON) is $$($(PYTHON) -V); $$again PYTHON=$(PYTHON)" >&2; exit 1; \
	fi; \
fi
endef

# A .venv that was copied or moved would run the code of the tree that it came from.
define check-origin
$(BIN)/python -c 'import importlib.util, pathlib, sys; \
spec = importlib.util.find_spec("perdure"); \
here = pathlib.Path("src/perdure").resolve(); \
sys.exit(spec is None or here not in (pathlib.Path(p).resolve() for p in spec.submodule_search_locations))' || { \
	echo "setup: $(VENV) was not made for this folder; remove it and start again: rm -rf $(VENV) && make setup" >&2; exit 1; }
endef

setup: $(STAMP) ## Make .venv with the locked dependencies and this package (again whenever they change)
	@$(check-venv)
	@$(check-origin)

$(STAMP): requirements.lock pyproject.toml
	@$(check-venv)
	@if [ ! -e $(VENV) ]; then \
		if ! $(PYTHON) -c 'import sys; sys.exit(not $(SUPPORTED))'; then \
			echo "setup: '$(PYTHON)' is not Python 3.11, 3.12 or 3.13; name one: make setup PYTHON=python3.11" >&2; exit 1; \
		fi; \
		echo "setup: making $(VENV) with $$($(PYTHON) -V)"; \
		$(PYTHON) -m venv $(VENV); \
	fi
	@echo "setup: installing requirements.lock (the first time: a few minutes, some gigabytes)"
	@$(PIP) install --requirement requirements.lock
	@echo "setup: installing perdure from src"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: done"

demo: setup ## Learn the digits two classes at a time, and show what is remembered
	@$(BIN)/perdure demo

test: setup ## Run the default tests, the long ones, those of the server and of Ray, and one on real CLIP weights
	$(BIN)/python -m pytest -q -n auto
	$(BIN)/python -m pytest -q -n auto -m "long and not slow and not gpu and not net and not weights and not serve and not ray"
	$(BIN)/python -m pytest -q -n auto -m "serve and not slow" tests/serve
	$(BIN)/python -m pytest -q -m "ray and not slow" tests/cluster
	$(BIN)/python -m pytest -q -m weights tests/cli/test_smoke_weights.py

campaign: setup ## Kill, damage and let meet whatever writes: benchmarks/reliability, some minutes
	nice -n 10 $(BIN)/python benchmarks/reliability/campaign.py

lint: setup ## Check style, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*/*.py docs/*.py
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile

# The notice is of MkDocs' theme, to whoever builds with it.
docs: setup ## Build the documentation site into site/ (a broken link or anchor fails)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "docs: open site/index.html"

# Versions that still fit are kept; `make lock UPGRADE=1` takes the newest of everything.
lock: ## Write requirements.lock anew from pyproject.toml
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
		--extra dev --no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock (keeps versions that still fit; make lock UPGRADE=1 takes the newest)" \
		$(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml && \
	echo "lock: $$(grep -c == requirements.lock) packages in requirements.lock"

build: setup ## Build the source archive and the wheel into dist/
	$(BIN)/python -m build --no-isolation

clean: ## Remove what builds and tools left (not .venv, not runs)
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
