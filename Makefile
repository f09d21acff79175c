# What people use: `make run` (the main job), `make test`, `make lint`, `make wheel`, `make clean`.
# The environment is the active virtual environment, or .venv beside this file, which is made when there is none.
PYTHON ?= python3
VENV   := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help run test lint wheel clean

help:
	@grep -E '^# What' Makefile | cut -c3-

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# installed again only when what defines the installation has changed
$(VENV)/.rpucluster-run: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/.rpucluster-dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@

run: $(VENV)/.rpucluster-run
	$(BIN)/rpucluster run jobs/digits.toml --cluster cluster_configs/laptop.toml

test: $(VENV)/.rpucluster-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.rpucluster-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/.rpucluster-dev
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
