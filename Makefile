# Two commands do everything on a machine with Python 3.10-3.13 and git:  make demo   make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint types house format clean

demo: $(VENV)/.installed
	$(BIN)/manyview demo -o demo-output
	@echo "(the command is $(BIN)/manyview; '. $(BIN)/activate' puts it on the path)"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/pyright

# The order of rooms is checked by a script beside the checkout, where there is one.
house: $(VENV)/.installed
	@if [ -f ../shared/acceptance/house.py ]; then $(BIN)/python ../shared/acceptance/house.py; else echo "house: no ../shared"; fi

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch is named with its exact version, so that it is resolved first and no other build is fetched on the way.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else "manyview needs Python 3.10 to 3.13, this is %d.%d" % v)'
	$(PYTHON) -m venv $(VENV)
	@echo "installing the pinned versions into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist demo-output .pytest_cache .ruff_cache
