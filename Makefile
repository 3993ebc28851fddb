# make reproduce: every figure and table, and which claims hold. make help lists the rest.
PROFILE ?= laptop
NOTEBOOKS ?= *
DEVICE ?= auto
PARAMETERS ?=
export PROFILE NOTEBOOKS DEVICE PARAMETERS

# Same bytes on every run: one thread a kernel, no dates in files, no random order of sets.
export OMP_NUM_THREADS := 1
export SOURCE_DATE_EPOCH := 0
# Memory as lib.runs gives it to its workers, where the reasons stand.
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 2147483648
export THP_MEM_ALLOC_ENABLE := 1
export PYTHONHASHSEED := 0
export PYTHONPATH := $(CURDIR)
export JUPYTER_PREFER_ENV_PATH := 1

# .venv from requirements.txt, unless PYTHON names an interpreter that has what is needed.
ifdef PYTHON
READY :=
else
VENV ?= .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/complete
endif
# Notebooks side by side: two, or what make -j says. Runs share one cluster, so cores are not oversubscribed.
JOBS = $(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),2)
RUN = $(PYTHON) -m lib.report.notebooks --profile "$$PROFILE" --notebooks "$$NOTEBOOKS" \
	--device "$$DEVICE" --parameters "$$PARAMETERS" --jobs $(JOBS)

.PHONY: help env reproduce figures test lint check report readme lab cache clean-cache clean survive endure bench
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo 'Variables: PROFILE=smoke|laptop|cifar|paper  NOTEBOOKS="gossip/* ..."  PARAMETERS="name=value ..."'
	@echo '           CELL_TIMEOUT=seconds (none by default)'
	@echo '           DATA_DIR=folder  DEVICE=auto|cpu|cuda  DASK_SCHEDULER_ADDRESS=tcp://...  PYTHON=interpreter'

env: $(READY)  ## install requirements.txt into .venv (every target does so when needed)

$(VENV)/complete: requirements.txt
	@base=; for name in $(BASE_PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then base=$$name; break; fi; done; \
	if [ -z "$$base" ]; then \
	  echo "error: no Python >= 3.11 found; install one, or name it: make BASE_PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	$$base -m venv $(VENV) || { echo "error: $$base cannot make $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing requirements.txt into $(VENV)"; \
	(while sleep 20 && kill -0 $$$$ 2>/dev/null; do echo "still installing into $(VENV)"; done) & \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

reproduce: $(READY)  ## run the notebooks (what is up to date is reused), then check the claims and build the report
	@$(RUN)

figures: $(READY)  ## run the notebooks again, from cached runs, to redraw their figures
	@$(RUN) --again --only-run

test: lint  ## all tests, and the smoke profile of every notebook
	$(PYTHON) -m pytest --numprocesses 2 --dist loadgroup

lint: $(READY)  ## style of the code, and no outputs in the notebooks
	$(PYTHON) -m ruff check .
	$(PYTHON) -m nbstripout --verify --drop-empty-cells $$(find notebooks -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*')

check: $(READY)  ## which claims of the papers hold, from the results that are there
	@$(PYTHON) -m lib.report.claims --profile "$$PROFILE" --device "$$DEVICE"

report: $(READY)  ## results/PROFILE/report/index.html from the executed notebooks
	@$(PYTHON) -m lib.report.site --profile "$$PROFILE" --device "$$DEVICE"

readme: $(READY)  ## renew the tables and the code of README.md and docs/items.md
	@$(PYTHON) -m lib.report.readme

lab: $(READY)  ## JupyterLab on the notebooks
	$(PYTHON) -m jupyter lab notebooks

cache: $(READY)  ## list the cached runs
	@$(PYTHON) -m lib.runs list

clean-cache: $(READY)  ## remove stale runs from the cache, or all: ALL=1
	@$(PYTHON) -m lib.runs clean $(if $(ALL),--all)

survive: $(READY)  ## kill -9 make reproduce PROFILE=smoke ten times, compare every file with an undisturbed run
	$(PYTHON) tests/survive.py --kills 10

endure: $(READY)  ## execute a short notebook 300 times on a busy machine, kernels killed and stopped: none may hang
	$(PYTHON) tests/endurance.py

bench: $(READY)  ## what a tick costs, in ratios taken in one run, as tables under results/bench (ONLY=gossip for a part)
	@$(PYTHON) -m benchmarks --only "$(ONLY)"

clean:  ## remove executed notebooks, reports and tool caches (.venv, results and cached runs stay)
	rm -rf results/*/executed results/*/report* results/*-custom results/interactive
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find lib tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
