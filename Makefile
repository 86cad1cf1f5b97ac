# make run: the dashboard on http://127.0.0.1:8501.  make test: the whole suite.  make lint: style, types and floors.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test lint
run: $(VENV)/installed
	@$(BIN)/python app.py

test: $(VENV)/installed-for-tests
	@$(BIN)/python -m pytest

lint: $(VENV)/installed-for-tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

# The stamps are made last, so that an installation cut short is begun again.
$(VENV)/installed: requirements.txt
	@echo "Installing the pinned packages into $(VENV) (once; about 2 GB, a minute or more) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "KD-NAS Studio needs Python 3.11 or later: make run PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/installed-for-tests: requirements-test.txt $(VENV)/installed
	@echo "Installing the packages of the tests ..."
	@$(PIP) -r requirements-test.txt
	@touch $@
