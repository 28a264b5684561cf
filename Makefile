# make setup | serve | stop | observe | lint | test | test-unit | conformance | loadtest | gpu-check | docs | lock | audit |
# clean.
# Everything is installed into .venv on first use.

CONFIG ?= configs/dev.yaml
PORT   ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENGINE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

# make test: processes that share the tests which start no cluster
WORKERS ?= 2

# make loadtest: what is sent (loadtests/README.md), how many users when; by default to configs/sim.yaml
WORKLOAD ?= chat
SHAPE    ?= steady
USERS    ?=
SECONDS  ?=
URL      ?=
WEB      ?=
LOCUST   ?=

# make gpu-check: the model (Qwen/Qwen3-0.6B), a LoRA adapter of it (one that changes nothing), the report (gpu-check.md)
MODEL   ?=
ADAPTER ?=
REPORT  ?=

# make conformance: which suites (all), and the file of OpenAI's specification
SUITES ?=
SPEC   ?=

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --disable-pip-version-check --quiet
READY := $(VENV)/.ready-$(ENGINE)
TOOLS := .venv-tools
LOCKS := cpu gpu dev tools

# The load tests' own tests need Ray: they start what they measure.
STARTING := tests/unit/loadtests

TORCH_CPU       := torch==2.13.0+cpu
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: setup serve stop observe lint test test-unit conformance loadtest gpu-check docs lock audit clean

setup: $(READY)

$(READY): requirements/$(ENGINE).lock requirements/dev.lock pyproject.toml
	@echo "installing into $(VENV) for ENGINE=$(ENGINE): some minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(if $(filter cpu,$(ENGINE)),$(PIP) install --no-deps $(TORCH_CPU) 2>/dev/null \
		|| $(PIP) install --no-deps --index-url $(TORCH_CPU_INDEX) $(TORCH_CPU))
	@$(PIP) install --no-deps --require-hashes -r requirements/$(ENGINE).lock -r requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-* && touch $@

serve: setup
	@$(BIN)/python -m gateway.cli serve $(CONFIG) $(if $(PORT),--port $(PORT))

stop:
	@if test -x $(BIN)/python; then $(BIN)/python -m gateway.cli stop; fi

observe: setup
	@$(BIN)/python -m deployments.local.observe

lint: setup docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd models/demo && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml train.py train_adapter.py
	$(BIN)/mypy requirements/lock.py
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile Dockerfile.cpu

test: test-unit
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/contract $(STARTING)
	$(BIN)/python -m pytest tests/integration tests/e2e

test-unit: setup
	$(BIN)/python -m pytest -n $(WORKERS) -p tests.without_ray tests/unit --ignore $(STARTING)

# The clients of others, in .venv-conformance; URL= asks a gateway that runs already.
conformance: setup
	@$(BIN)/python -m conformance $(if $(URL),--url $(URL)) $(if $(SPEC),--spec $(SPEC)) \
		$(foreach suite,$(SUITES),--suite $(suite)) $(if $(UPDATE),--update)

loadtest: setup
	@$(BIN)/python -m loadtests.locust_run --workload $(WORKLOAD) --shape $(SHAPE) \
		$(if $(USERS),--users $(USERS)) $(if $(SECONDS),--run-time $(SECONDS)s) \
		$(if $(URL),--url $(URL)) $(if $(WEB),--web) $(LOCUST)

# Real vLLM on this machine's GPUs, and a report.
gpu-check: setup
	@$(BIN)/python -m loadtests.gpu_check $(if $(MODEL),--model $(MODEL)) $(if $(ADAPTER),--adapter $(ADAPTER)) \
		$(if $(REPORT),--report $(REPORT))

# What the site shows, by links, so that its layout is the repository's (mkdocs.yml).
PAGES := README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md docs configs loadtests/README.md loadtests/results

docs: setup
	@rm -rf build/pages && mkdir -p build/pages/loadtests
	@for page in $(PAGES); do ln -s "$(CURDIR)/$$page" "build/pages/$$page"; done
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Hashes for the lists of requirements: run it after each change of one.
lock: $(TOOLS)/.ready
	@$(TOOLS)/bin/python requirements/lock.py

# Known vulnerabilities of all packages in the lists, by PyPI's advisories; it fails if one cannot be looked up.
audit: $(TOOLS)/.ready
	@$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps $(foreach list,$(LOCKS),-r requirements/$(list).lock)

$(TOOLS)/.ready: requirements/tools.lock
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/tools.lock
	@touch $@

clean: stop
	rm -rf $(VENV) .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
