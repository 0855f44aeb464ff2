# `make demo` and `make test` both work as the first command on a fresh clone: each creates .venv when it is missing.
PYTHON ?= python3
VENV ?= .venv
# One thread per process keeps small runs fast on shared machines; the demo uses every core.
THREADS ?= 1

INSTALLED := $(VENV)/.installed

.PHONY: demo web test lint clean

demo: $(INSTALLED)
	$(VENV)/bin/python examples/01_quickstart.py $(ARGS)

# A page to try a model on. MODEL (or MENDER_MODEL) is a folder or Hub id; without it the model of `make demo`, which
# is trained first when it is not there.
QUICKSTART := outputs/quickstart/model/config.json
web: $(INSTALLED) $(if $(MODEL)$(MENDER_MODEL),,$(QUICKSTART))
	$(VENV)/bin/python examples/demo/app.py $(if $(MODEL),--model $(MODEL)) $(ARGS)

$(QUICKSTART): | $(INSTALLED)
	@echo "No model yet: training the quickstart first, a few minutes. Another one: make web MODEL=folder-or-hub-id"
	$(VENV)/bin/python examples/01_quickstart.py

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
