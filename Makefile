# SPDX-License-Identifier: Apache-2.0
# The verbs of the flow. Which stages there are, what they read and when they run: winnow/flow.py.

CONFIG ?= digits
DEVICE ?= cpu
HLS    ?= csim
PYTHON ?= python3
RECIPES ?= configs/recipes/colour.toml configs/recipes/digits.toml

PY     := .venv/bin/python
VENV   := .venv/installed-$(firstword $(shell cksum < pyproject.toml))
CPP    := $(shell find hls_templates sim tests -name '*.[ch]pp' 2> /dev/null)
quoted  = '$(subst ','\'',$(1))'
PACKED  = $(if $(BIT),--bit $(call quoted,$(BIT))) $(if $(CLOCK),--clock $(call quoted,$(CLOCK)))
BOARDS  = $(if $(BOARD),--board $(call quoted,$(BOARD)))
ONLY    = $(if $(filter $(1),$@),$(if $(2),$(3) $(call quoted,$(2))))
WORDS   = $(if $(filter board vivado,$@),$(BOARDS),$(PACKED)) $(call ONLY,board,$(HOST),--host) $(call ONLY,exits,$(THRESHOLD),--threshold)
BUILD   = --config $(call quoted,$(CONFIG)) $(if $(OUT),--out $(call quoted,$(OUT)))

.PHONY: help data hls sim overlay profiles exits board deploy vivado place report status bench bench-compression networks test fuzz lint golden setup setup-pynq clean check check-hls
.DEFAULT_GOAL := help

help: ## list the verbs
	@echo "usage: make VERB [CONFIG=digits] [OUT=dir] [DEVICE=cpu|cuda] [HLS=csim|vitis] [PYTHON=python3]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

hls: check-hls | $(VENV) ## main job: train, compress, emit C++ and RTL, check both, synthesise, report
	@$(PY) -m winnow run $(BUILD) --device $(call quoted,$(DEVICE)) --hls $(HLS)

sim: check-hls | $(VENV) ## cocotb regression of a build's RTL at its AXI pins (RTL=folder for other RTL)
	@$(PY) -m winnow run $(BUILD) --device $(call quoted,$(DEVICE)) --to rtlsim
	@$(PY) -m winnow cocotb $(BUILD) $(if $(RTL),--rtl $(call quoted,$(RTL))) $(if $(WAVES),--waves)

overlay: ## one wheel for a board: driver, network (BIT=file.bit CLOCK=MHz: bitstream)
exits: ## a network whose images leave early, for the driver (THRESHOLD=0.9)
board: ## a virtual PYNQ board in front of the RTL, for clients of pynq (HOST=127.0.0.2)
vivado: ## scripts that make a bitstream with Vivado (BOARD=PYNQ-Z2); never run by us
overlay exits board vivado: check-hls | $(VENV)
	@$(PY) -m deploy $@ $(BUILD) $(WORDS) --check
	@$(PY) -m winnow run $(BUILD) --device $(call quoted,$(DEVICE)) --to $(if $(filter vivado,$@),rtl,bundle)
	@$(PY) -m deploy $@ $(BUILD) $(WORDS)

profiles: check-hls | $(VENV) ## several networks of one configuration for one engine, loaded together
	@$(PY) -m deploy profiles $(BUILD) $(PACKED) --check
	@$(PY) -m winnow profiles $(BUILD) --device $(call quoted,$(DEVICE))
	@$(if $(BIT),$(PY) -m deploy profiles $(BUILD) $(PACKED))

deploy: check-hls | $(VENV) ## bring the wheel to a board over ssh (BOARD=user@host, DRYRUN=1 only prints)
	@$(PY) -m deploy push $(BUILD) --to $(call quoted,$(BOARD)) $(if $(DRYRUN),--dry-run)

place: | $(VENV) ## place, route modules on an ECP5 (MODULES="finish sequence" SEEDS=3 MINUTES=20)
	@$(PY) -m winnow place $(BUILD) $(foreach m,$(MODULES),--module $(call quoted,$(m))) $(if $(SEEDS),--seeds $(call quoted,$(SEEDS))) $(if $(MINUTES),--minutes $(call quoted,$(MINUTES)))

report: ## print the summary of a build
status: ## print which stages of a build are current, and why the others are not
bench: ## measure speeds without caches and print all numbers of a build (minutes)
data: ## print what the data of a configuration are, or how to get them
report status bench data: | $(VENV)
	@$(PY) -m winnow $@ $(BUILD)

bench-compression: | $(VENV) ## train recipes with 3 seeds and compare them (RECIPES=files, ARGS=)
	@$(PY) -m quant.bench --recipes $(RECIPES) --out build/bench $(ARGS)

networks: check-hls | $(VENV) ## whole networks of the library, exact at every rung (NETWORKS=resnet18:1:224)
	@$(PY) -m sim.networks $(NETWORKS)

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

setup-pynq: check ## install pynq for clients of the virtual board in .venv-pynq (PYNQ=3.1.2, 3.0.1)
	@$(PYTHON) -m deploy.pynq_venv $(PYNQ)

clean: ## remove build/ and caches, keep .venv
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis; find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(VENV): | check
	@$(PYTHON) -m winnow.host venv .venv
	@$(PY) -m winnow.host install pyproject.toml
	@touch $@

check:
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) is missing; install it with: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) must be Python 3.10 or newer; name another one with: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m winnow.host check

check-hls: check
	@$(PYTHON) -m winnow.host check --hls $(call quoted,$(HLS)) --config $(call quoted,$(CONFIG))
