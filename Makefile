# make run: the dashboard on http://127.0.0.1:8501 (TORCH=cpu: torch without CUDA, where the index has it).
# make test: the quick tests, one of each promise among them.  make test-all: all.  make lint: style, types, floors.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-slow test-all lint
run: $(VENV)/installed
	@$(BIN)/python app.py

test: $(VENV)/installed-for-tests
	@$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed-for-tests
	@$(PYTEST) -m slow

test-all: $(VENV)/installed-for-tests
	@$(PYTEST)

lint: $(VENV)/installed-for-tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

# The stamps are made last, so that an installation cut short is begun again.
$(VENV)/installed: requirements.txt
	@echo "Installing the pinned packages into $(VENV) (once; 2 to 6 GB, a minute or more) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "KD-NAS Studio needs Python 3.11 or later: make run PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	@$(PIP) "$$(grep '^torch==' requirements.txt)+cpu" || { echo "The package index has no CPU build of torch: leave TORCH=cpu out, or point pip to one that has."; exit 1; }
endif
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/installed-for-tests: requirements-test.txt $(VENV)/installed
	@echo "Installing the packages of the tests ..."
	@$(PIP) -r requirements-test.txt
	@touch $@
