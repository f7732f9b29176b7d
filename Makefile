# make demo: train SN-DCGAN on digits and score it. make test: run the tests. make normalize: the CIFAR-10 run.
# Each makes .venv and installs what it needs. A second start of demo or normalize goes on where the first stopped.

PYTHON ?= python3
BIN := .venv/bin
DATASET ?= cifar10
MODEL ?= resnet
STEPS ?= 50000
ARGS ?=
DEMO_RUN := runs/demo
NORMALIZE_RUN := runs/normalize_$(DATASET)_$(MODEL)_$(STEPS)

TOO_OLD := import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try PYTHON=python3.11")
VENV = @test -x $(BIN)/python || { $(PYTHON) -c '$(TOO_OLD)' && $(PYTHON) -m venv .venv; }

.PHONY: demo test lint normalize

demo: .venv/installed
	$(BIN)/python main.py $(if $(wildcard $(DEMO_RUN)/checkpoints/*.pt),--resume,--run_dir) $(DEMO_RUN) $(ARGS)

# Prepare the data, train and evaluate. make normalize DATASET=digits STEPS=500 is the same in small.
normalize: .venv/installed
	$(BIN)/python main.py $(if $(wildcard $(NORMALIZE_RUN)/checkpoints/*.pt),--resume $(NORMALIZE_RUN),\
	--run_dir $(NORMALIZE_RUN) --dataset $(DATASET) --model $(MODEL) --total_steps $(STEPS)) $(ARGS)

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

.venv/installed: requirements.txt
	$(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt requirements.txt
	$(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@
