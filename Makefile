# `make demo` and `make test` both work as the first command on a fresh clone: each creates .venv when it is missing.
PYTHON ?= python3
VENV ?= .venv
# One thread per process keeps small runs fast on shared machines; the demo uses every core.
THREADS ?= 1

INSTALLED := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(INSTALLED)
	$(VENV)/bin/python examples/01_quickstart.py $(ARGS)

test: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(VENV)/bin/python -m pytest $(ARGS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[offline,dev]"
	touch $@

clean:
	rm -rf $(VENV) outputs build dist *.egg-info .pytest_cache .ruff_cache
