# One command does each job on a machine that has only Python 3.11 and make.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
FUZZ_SECONDS ?= 60
PACKAGES := capture decoders recorder

.PHONY: help setup system demo test lint fuzz bench soak schema install clean

help: ## Say what there is to make
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(READY) ## Make the virtual environment .venv with spanrec in it

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "spanrec needs Python 3.11 or newer; say which with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

system: ## Install the programs that the tests compare with
	@.ci/packages tshark:tshark sipp:sip-tester sox:sox ffmpeg:ffmpeg ip:iproute2 curl:curl tcpdump:tcpdump socat:socat

demo: $(READY) ## Record the calls in pcaps/ into build/demo
	$(BIN)/spanrec replay pcaps/*.pcap pcaps/*.pcapng -o build/demo
	@echo
	@echo "The recordings are in build/demo. Look at one with: $(BIN)/spanrec calls show ID -o build/demo"

lint: $(READY) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY) system lint ## Check and test everything
	$(BIN)/pytest -n $(WORKERS) $(PYTEST_ARGS)

fuzz: $(READY) ## Fuzz every parser and a running recording server, FUZZ_SECONDS each
	@$(BIN)/pip install --quiet --editable '.[fuzz]' || echo "atheris is not to be had here: mutation is random instead" >&2
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m tests.fuzz.srs_socket --seconds $(FUZZ_SECONDS)

bench: $(READY) ## Measure against other programs
	$(BIN)/python -m bench.compare

soak: $(READY) ## Kill and disturb the live recorder, ten minutes and more, as root
	$(BIN)/python -m bench.faults all

schema: $(READY) ## Write docs/call.schema.json anew
	$(BIN)/python -c 'import json; from recorder.document import schema; print(json.dumps(schema(), indent=2))' > docs/call.schema.json

install: ## Install the live service as root; PREFIX, DESTDIR, PYTHON
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" PYTHON="$(if $(filter-out file,$(origin PYTHON)),$(PYTHON))" packaging/install

clean: ## Remove what was made
	rm -rf build dist out $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(PACKAGES) tests bench pcaps -name __pycache__ -type d -prune -exec rm -rf {} +
