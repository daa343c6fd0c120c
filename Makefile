# `make demo` sets up and trains on handwriting; `make test` sets up and runs the tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Real handwriting, where it lies beside the checkout; tests say what they skip without.
ifneq ($(wildcard ../shared/data),)
export FEDSIM_TEST_DATA ?= $(abspath ../shared/data)
endif
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-fast lint benchmark setup clean

demo: $(VENV)/.installed
	$(BIN)/python examples/emnist_fedavg.py $(if $(FEDSIM_TEST_DATA),--data_dir=$(FEDSIM_TEST_DATA)) --output_dir=demo_output

test: lint
	$(BIN)/python -m pytest -n 2 --dist=loadfile

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist=loadfile -m "not slow"

# Beside other frameworks where FEDSIM_BENCH_TFF087, FEDSIM_BENCH_FEDJAX and
# FEDSIM_BENCH_PFL name interpreters that have them.
benchmark: $(VENV)/.installed
	$(BIN)/python -m benchmarks.rounds

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo_output
