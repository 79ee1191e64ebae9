# The tasks of this project. Each sets up what it needs by itself.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint unit bench fuzz engines demo-engine modelfiles reliability lock clean

help:  ## list the tasks
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/ready demo-engine  ## rehearse an install with a tiny real model (no download of a model)
	@$(BIN)/dsollama demo

test: lint engines  ## everything that a change must pass, engines included
	DSOLLAMA_REQUIRE_ENGINES=1 $(BIN)/pytest -q -n 2

lint: .venv/ready  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv/ready  ## the tests without building engines; theirs are skipped
	$(BIN)/pytest -q -n 2

bench: .venv/ready engines  ## install of a 5.3 GB model against curl and the documents' way
	$(BIN)/python scripts/bench.py

fuzz: .venv-fuzz/ready  ## a million and a half hostile inputs, coverage-guided (some 7 minutes; SCALE=0.1 for fewer)
	.venv-fuzz/bin/python tests/fuzz/run.py --scale $(or $(SCALE),1)

engines: .venv/ready  ## build llama.cpp and Ollama once per machine
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(CURDIR)/$(BIN)/python llama.cpp/build.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(CURDIR)/$(BIN)/python scripts/build-ollama.sh

demo-engine: .venv/ready
	@$(BIN)/python -c "from dsollama.ollama.private import find_ollama; find_ollama()" 2>/dev/null || { \
	  echo "No Ollama 0.30 or newer on PATH: building the pinned one, once per machine (some 10 minutes on 2 cores)."; \
	  $(MAKE) --no-print-directory engines; }

modelfiles: .venv/ready  ## write modelfiles/ and the expected prompts again from the catalog and the templates
	$(BIN)/python scripts/write_modelfiles.py
	$(BIN)/python scripts/write_expected.py

reliability: .venv/ready engines  ## run every fault and write the table of docs/reliability.md
	$(BIN)/python scripts/write_reliability.py

lock: .venv/ready  ## pin the newest versions of everything in requirements.lock
	scripts/lock.sh

.venv/ready: requirements.lock pyproject.toml
	@echo "Setting up .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: \
	  --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv-fuzz/ready: requirements.lock tests/fuzz/requirements.txt pyproject.toml
	@echo "Setting up .venv-fuzz (Linux on x86-64, CPython 3.11 to 3.13)"
	@$(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install --quiet --require-hashes --only-binary :all: \
	  --requirement requirements.lock --requirement tests/fuzz/requirements.txt
	@.venv-fuzz/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## remove what the tasks made here (the engines' cache stays)
	rm -rf .venv .venv-fuzz .fuzz .engines dist llama.cpp/llama-* llama.cpp/ggml-rpc-server llama.cpp/vocabularies
