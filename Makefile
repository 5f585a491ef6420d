# Verbs of the project. `make` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test slow docs gpu real pairs paper screenshots chaos check lint types floors format fuzz audit
.PHONY: bench bench-quick scale clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## create .venv with clipstudy and what its tests need

# Twenty thousand files, of which few are ever imported: Python compiles these when it comes to them.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("clipstudy needs Python 3.11 or newer; say: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "Installing clipstudy and what its tests need into $(VENV), once: 2.4 GB on disk with torch's CPU build, more with"
	@echo "a GPU's, and minutes on a slow line. pip says below what it fetches."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $@

demo: install  ## the pocket study, from nothing to report.html in minutes, with no network
	@$(BIN)/clipstudy demo

# Processes of one thread, as what the tests compute is small; one more than the two cores that are the least, as some
# tests wait for leases and servers.
test: install  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not gpu and not slow" --numprocesses 3 --dist loadfile

slow: install  ## the tests that take minutes by themselves
	$(BIN)/pytest -m slow

docs: install  ## does the README name every command, key, option and variable, and does every link lead somewhere?
	$(BIN)/pytest -q tests/unit/test_docs.py

gpu: install  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu

real: install  ## the study of tests/real with two workers, some of it on Postgres as well; its tables go into docs/real-rows.md
	$(BIN)/python tests/real/real.py

pairs: install  ## the study of tests/real/pairs.toml: WiC and BoolQ, frozen and fine-tuned; its table goes there too
	$(BIN)/python tests/real/real.py pairs

paper: install  ## the paper's study on full-size random weights, from a stand-in of the Hub: a batch of each text model and of each kind of image task (PAPER=--all: all of it, thinned)
	$(BIN)/python tests/real/paper.py $(PAPER)
	$(BIN)/python tests/real/paper.py --images $(PAPER)

screenshots: install  ## pictures of the dashboard and of MLflow for docs/images, from the results of CLIPSTUDY_HOME (make demo)
	$(BIN)/python tests/real/screens.py

check: lint types floors  ## everything but the tests

lint: install  ## ruff: lints and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict
	$(BIN)/mypy

floors: install  ## do rooms import downward only?
	$(BIN)/lint-imports

format: install  ## format and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: install  ## ten thousand hostile inputs for each parser (the suite tries a few dozen)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz --timeout=14400 --durations=0

audit: install  ## are there known vulnerabilities in what is installed here? (asks a service on the network)
	@[ -x .audit/bin/pip-audit ] || { $(PYTHON) -m venv .audit && .audit/bin/pip install --quiet --disable-pip-version-check pip-audit; }
	@$(BIN)/python .ci/audit.py .audit/bin/pip-audit

chaos: install  ## every fault on workers, databases and MLflow (long, and goes on where it ended; CHAOS="--only 'kill*' --jobs 100" thins it)
	$(BIN)/python -m tests.chaos $(CHAOS)

bench: install  ## how fast, ratio by ratio, in about an hour; its table goes into docs/performance.md
	$(BIN)/python -m benchmarks

bench-quick: install  ## the same, smaller and with fewer repeats: ten minutes
	$(BIN)/python -m benchmarks --quick

scale: install  ## how many workers and rows a job table carries, SQLite and Postgres; its tables go into docs/scale.md
	$(BIN)/python -m benchmarks.scale

clean:  ## remove what was computed (mlruns/), not what was installed
	rm -rf mlruns/clipstudy.db* mlruns/mlflow.db* mlruns/artifacts report.html
