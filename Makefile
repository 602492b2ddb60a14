# make quickstart   set up, train a small looped mixture of experts on real text, and report (CPU, minutes)
#                   TEXT="my texts" VOCAB=1024 PROMPT="Once " THREADS=2 RUN=runs/mine: own text, and how
# make reasoning    set up, train a model of one looped layer on products of permutations, and report (CPU, minutes)
# make test         set up, check style and types, run the tests that take seconds (2 cores, minutes)
# make test-slow    run the tests that take minutes
# make test-all     run every test, with the whole products of which the others run pairs (CPU, an hour)
PYTHON ?= python3
BIN := .venv/bin
# Of quickstart and data. DATA and RUN are named after TEXT where they are not given.
TEXT ?=
DATA ?=
RUN ?=
VOCAB ?=
PROMPT ?=
THREADS ?=
STARTED_AT := $(shell date +%s)
export TEXT DATA RUN VOCAB PROMPT THREADS STARTED_AT

.PHONY: setup data quickstart reasoning check test test-slow test-all
.DELETE_ON_ERROR:

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Python 3.11 to 3.13 is needed; set PYTHON=..."'
	$(PYTHON) -m venv .venv
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[data,deepspeed,dev,eval,export,report,sweep]'
	touch $@

data: setup
	$(BIN)/python -m launch.quickstart data

quickstart: setup
	$(BIN)/python -m launch.quickstart

reasoning: setup
	$(BIN)/mythos-data tasks permutations --items 3 --steps 1 2 3 4 5 6 7 8 --test-steps 5 6 --num-train 300000 --num-test 1600 --seq-len 64 --to data/reasoning
	$(BIN)/mythos train experiment=reasoning resume=auto
	$(BIN)/mythos evaluate runs/reasoning reasoning --num-loops 1 2 3 4 6 8 12 16 24 32
	$(BIN)/mythos report runs/reasoning

check: setup
	$(BIN)/python -m compileall -q mythos data_pipelines
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each; a file stays in one, for its tests share what they set up.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test: check
	$(PYTEST)

test-slow: setup
	$(PYTEST) -m 'slow and not all'

test-all: setup
	$(PYTEST) -m 'not gpu'
