# Two commands do everything: `make demo` and `make test`. Both make .venv on the first call.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test format

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/fourier-probe demo --out figures/demo --force

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
