# SPDX-License-Identifier: Apache-2.0
# The map of the flow. A stage is `python -m FOLDER VERB`; the last thing it writes is its record
# build/CONFIG/VERB.json, which is its target here. A newer source or configuration only invokes a
# stage again: it compares content hashes and does nothing when it is up to date.

CONFIG ?= digits
DEVICE ?= cpu
HLS    ?= csim
PYTHON ?= python3
RECIPES ?= configs/recipes/colour.toml configs/recipes/digits.toml

PY     := .venv/bin/python
VENV   := .venv/installed-$(firstword $(shell cksum < pyproject.toml))
TOML   := configs/$(CONFIG).toml
OUT    := build/$(CONFIG)
FILES   = --config $(TOML) --out $(OUT)
QUANT  := $(addprefix $(OUT)/,train.json shrink.json prune.json bits.json qat.json golden.json)
CODEGEN := $(addprefix $(OUT)/,lower.json schedule.json emit.json vitis.json)
SIM    := $(addprefix $(OUT)/,csim.json rtl.json rtlsim.json synth.json)
HLS_SOURCES := $(shell find hls_templates -type f 2> /dev/null)
CPP    := $(shell find hls_templates sim tests -name '*.[ch]pp' 2> /dev/null)

.PHONY: help hls sim report bench bench-compression test fuzz lint golden setup clean check check-hls
.DEFAULT_GOAL := help

help: ## list the verbs
	@echo "usage: make VERB [CONFIG=digits] [DEVICE=cpu|cuda] [HLS=csim|vitis] [PYTHON=python3]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

hls: check-hls $(OUT)/csim.json $(OUT)/rtlsim.json $(OUT)/synth.json $(if $(filter vitis,$(HLS)),$(OUT)/vitis.json) ## main job: train, compress, emit C++ and RTL, check both, synthesise, report
	@$(PY) -m sim report $(FILES)

sim: $(OUT)/rtlsim.json ## cocotb regression of a build's RTL at its AXI pins (RTL=folder for other RTL)
	@$(PY) -m sim cocotb $(FILES) $(if $(RTL),--rtl $(RTL)) $(if $(WAVES),--waves)

report: ## print the summary of a build
bench: ## measure speeds without caches and print all numbers of a build (minutes)
report bench: $(TOML) | $(VENV)
	@$(PY) -m sim $@ $(FILES)

bench-compression: | $(VENV) ## train recipes with 3 seeds and compare them (RECIPES=files, ARGS=)
	@$(PY) -m quant.bench --recipes $(RECIPES) --out build/bench $(ARGS)

test: | $(VENV) ## run the tests (ARGS="-m slow" for the long ones)
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

fuzz: | $(VENV) ## compare random designs and layers with their RTL (COUNT=1000 SEED=2 LAYERS=512)
	@$(PY) -m pytest -n auto --dist worksteal tests/test_openhls_fuzz.py tests/test_sim_rtl.py -k "random or kept" --fuzz-count $(or $(COUNT),1000) --fuzz-seed $(or $(SEED),2) --fuzz-layers $(or $(LAYERS),512) $(ARGS)

lint: | $(VENV) ## check style and types: ruff, mypy, clang-format
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
	@$(if $(CPP),.venv/bin/clang-format --dry-run --Werror $(CPP))

golden: | $(VENV) ## refresh tests/golden/; review the diff like code
	@$(PY) -m pytest --refresh-golden $(ARGS)

setup: $(VENV) ## install the pinned Python packages into .venv

clean: ## remove build/ and caches, keep .venv
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis; find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Stages: each line names only what it reads first; the rest follows along the chain.
$(OUT)/train.json: $(TOML) $(wildcard winnow/*.py quant/*.py quant/*/*.py)
$(OUT)/shrink.json: $(OUT)/train.json
$(OUT)/prune.json: $(OUT)/shrink.json
$(OUT)/bits.json: $(OUT)/prune.json
$(OUT)/qat.json: $(OUT)/bits.json
$(OUT)/golden.json: $(OUT)/qat.json
$(OUT)/lower.json: $(OUT)/golden.json $(wildcard codegen/*.py)
$(OUT)/schedule.json: $(OUT)/lower.json
$(OUT)/emit.json: $(OUT)/schedule.json $(HLS_SOURCES)
$(OUT)/vitis.json: $(OUT)/emit.json
$(OUT)/csim.json: $(OUT)/emit.json $(wildcard sim/*.py)
$(OUT)/rtl.json: $(OUT)/emit.json $(shell find openhls -type f -not -name '*.pyc' 2> /dev/null)
$(OUT)/rtlsim.json: $(OUT)/rtl.json $(wildcard sim/*.py sim/harness/*)
$(OUT)/synth.json: $(OUT)/rtl.json

$(QUANT): $(OUT)/%.json: | $(VENV)
	@$(PY) -m quant $* $(FILES) --device $(DEVICE) && touch -c $@
$(CODEGEN): $(OUT)/%.json: | $(VENV)
	@$(PY) -m codegen $* $(FILES) && touch -c $@
$(SIM): $(OUT)/%.json: | $(VENV)
	@$(PY) -m sim $* $(FILES) $(if $(filter synth,$*),--brief) && touch -c $@

configs/%.toml: # runs only when the file is missing
	@echo "error: CONFIG=$*: $@ is missing; configs/ has: $(basename $(notdir $(wildcard configs/*.toml)))" >&2; exit 1

$(VENV): | check
	@$(PYTHON) -m winnow.host venv .venv
	@$(PY) -m winnow.host install pyproject.toml
	@touch $@

check:
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) is missing; install it with: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) must be Python 3.10 or newer; name another one with: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m winnow.host check

check-hls: check $(TOML)
	@$(PYTHON) -m winnow.host check --hls $(HLS)
