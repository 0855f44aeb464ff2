# `make demo` and `make test` both work as the first command on a fresh clone: each creates .venv when it is missing.
PYTHON ?= python3
VENV ?= .venv
# Versions to install; empty for the newest there are.
CONSTRAINTS ?= constraints.txt
# One thread per process keeps small runs fast on shared machines; the demo uses every core.
THREADS ?= 1
# Processes that share the tests, file by file; 0 runs them in one process, which a debugger needs.
WORKERS ?= auto

INSTALLED := $(VENV)/.installed

.PHONY: demo web test torture lint docs dist packaged release publish compat-oldest compat-newest clean

demo: $(INSTALLED)
	$(VENV)/bin/python examples/01_quickstart.py $(ARGS)

# A page to try a model on. MODEL (or MENDER_MODEL) is a folder or Hub id; without it the model of `make demo`, or the
# one that is installed with the package.
web: $(INSTALLED)
	$(VENV)/bin/python examples/demo/app.py $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(VENV)/bin/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile $(ARGS)

# Random faults by the ten thousands, about half an hour on two cores. Counts and the seed are options:
# make torture ARGS="--torture kills=500 --torture seed=7 --torture report=torture.md"
torture: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(VENV)/bin/python -m pytest -m torture -q tests/torture -n $(WORKERS) \
		--maxprocesses 8 --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .

# The documentation as a site, under site/: open site/index.html. For the search, which browsers allow on pages of a
# server only: .venv/bin/python -m http.server --directory site
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

# The model that is installed with the package, mender/packaged/corner-shop, anew from the run of `make demo`. Train that
# with what is to be packaged: rm -r outputs/quickstart; make packaged
packaged: outputs/quickstart/model/config.json
	$(VENV)/bin/python -m mender.packaged outputs/quickstart

outputs/quickstart/model/config.json: | $(INSTALLED)
	$(VENV)/bin/python examples/01_quickstart.py

# What the Hub is to hold, under dist/hub/, each with its card, and loaded from there: the packaged model, or MODEL=folder;
# the corner shop's benchmark, the metric and the page. docs/hub.md says more.
release: $(INSTALLED)
	$(VENV)/bin/python examples/06_release.py $(MODEL) $(ARGS)

# Uploads that: make publish ORG=organisation. ARGS=--dry-run shows what would go where.
publish: $(INSTALLED)
	$(if $(ORG),,$(error pass the organisation or user of the Hub: make publish ORG=name))
	$(VENV)/bin/python examples/06_release.py --publish $(ORG) $(ARGS)

# Wheel and source distribution, under dist/.
dist: $(INSTALLED)
	$(VENV)/bin/python -m build

# The tests with the oldest versions that setup.cfg allows, and with the newest there are, each in its own environment.
compat-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

compat-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

$(INSTALLED): setup.cfg pyproject.toml $(CONSTRAINTS)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS),--upgrade) \
		--editable ".[offline,dev]"
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest outputs build dist site *.egg-info .pytest_cache .ruff_cache
