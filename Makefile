# All development tasks. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Caches are outside the tree, so that fresh clones share them.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kms-acme
# One for each checkout: mypy trusts what another one of the same modules wrote.
export MYPY_CACHE_DIR := $(CACHE)/mypy/$(subst /,-,$(CURDIR))
export RUFF_CACHE_DIR := $(CACHE)/ruff
# Some container images set this; then each program compiles all modules at each start.
export PYTHONDONTWRITEBYTECODE :=
# Each group of tests runs on one worker, the longest groups first: see tests/support/groups.py. A worker that crashes fails
# its test; xdist would wait for the one that it starts instead.
WORKERS := --numprocesses=5 --max-worker-restart=0
PYTEST := $(BIN)/pytest $(WORKERS)
SOURCES := acme_server kms kms_acme operator deploy/image tests e2e fuzz
GATE := not node and not soak and not tools and not clients and not browser

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@python="$(PYTHON)"; python="$${python:-$$(.ci/find-python)}"; \
	"$$python" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("This is Python " + sys.version.split()[0] + "; 3.11 or newer is required. Set another one with make PYTHON=...")'; \
	echo "setting up $(VENV): the locked dependencies"; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## create .venv with the locked dependencies

# KUBECONFIG and CONTEXT only count on the command line of make: the demo ignores the cluster of the environment.
asked = $(if $(filter command,$(origin $(1))),$(2) '$($(1))')

.PHONY: demo
demo: $(READY) ## issue a certificate, step by step (KEEP=1: keep it running; KUBECONFIG=file CONTEXT=name: use your cluster)
	@$(BIN)/python -m e2e.demo $(if $(KEEP),--keep) $(call asked,KUBECONFIG,--kubeconfig) $(call asked,CONTEXT,--context)

# API server, kubectl and helm spend a fifth of their time on garbage collection by default.
test test-tools soak coverage: export GOGC := 400

.PHONY: test
test: binaries ## run all tests of the gate
	$(PYTEST) -m "$(GATE)"

.PHONY: test-tools
test-tools: binaries ## run the tests of the test tools: e2e/, fuzz/
	$(PYTEST) -m "tools and not node"

.PHONY: test-clients
test-clients: binaries ## run the tests with clients and checkers in Ruby and Java, and with ansible (apt-get as root installs them)
	$(BIN)/pytest -m clients

.PHONY: test-browser
test-browser: $(READY) ## run the tests of the console in Chromium, and make its screenshots (apt-get as root installs it)
	KMS_ACME_SCREENSHOTS=docs/images $(BIN)/pytest -m browser

.PHONY: soak
soak: binaries ## run the long tests: more kills, orders and generated objects, and waits of several minutes
	KMS_ACME_E2E_KILLS=50 KMS_ACME_E2E_ORDERS=1000 KMS_ACME_E2E_EXAMPLES=100 $(BIN)/pytest -m "chance or soak"

.PHONY: coverage
coverage: binaries ## run the tests of the gate and require 98 % coverage (slower)
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(WORKERS) -m "$(GATE)"
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report --fail-under=98

.PHONY: binaries
binaries: $(READY)
	@$(BIN)/python -m e2e.cluster build
	@$(BIN)/python -m e2e.chart --build >/dev/null
	@$(BIN)/python -m e2e.support.tools

.PHONY: test-node
test-node: $(READY) ## run the tests of image, chart and cert-manager on a node (needs root on Linux)
	$(BIN)/pytest -m node tests/deploy # separate, since it uses the release namespace without the chart
	$(BIN)/pytest -m node --ignore=tests/deploy

.PHONY: image
image: ## build the image kms-acme:VERSION with buildah, podman or docker (IMAGE=name:tag, BUILD="--build-arg BASE=...")
	@deploy/build-image.sh $(BUILD)

.PHONY: check
check: $(READY) ## check format, lint, types, import contracts, requirements and generated files
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir $(CACHE)/import-linter
	$(BIN)/python -m e2e.conformance --check
	$(BIN)/python -m e2e.chart --check
	$(BIN)/python -m e2e.reference --check

.PHONY: format
format: $(READY) ## format the sources and fix lint errors
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: fuzz
fuzz: $(READY) ## fuzz the parsers of untrusted input (MINUTES=10, FUZZ="csr dns" for some targets, FUZZ=--keep)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-fuzz.lock
	@$(BIN)/python -m fuzz --minutes $(or $(MINUTES),10) $(FUZZ)

.PHONY: conformance
conformance: $(READY) ## write tests/conformance/README.md from the requirements and the markers on the tests
	@$(BIN)/python -m e2e.conformance

.PHONY: chart
chart: $(READY) ## generate schema and README of the Helm chart, and the kustomize base
	@$(BIN)/python -m e2e.chart

.PHONY: reference
reference: $(READY) ## write docs/reference.md from the schemas in crds/
	@$(BIN)/python -m e2e.reference

# The parts of `make bench`, a target each. Together they have ten minutes on a machine that does nothing else.
BENCH_PARTS := bench-orders bench-compare bench-schema bench-workers bench-growth

.PHONY: bench
bench: $(READY) ## measure everything that docs/performance.md and docs/capacity.md tell, in parts of their own
	@for part in $(BENCH_PARTS); do echo "== make $$part, after $$SECONDS s"; $(MAKE) $$part; done; echo "== done after $$SECONDS s"

.PHONY: bench-orders
bench-orders: $(READY) ## measure CPU and API writes per order, by step and type of challenge (BENCH="--orders 2000")
	@$(BIN)/python -m e2e.load $(or $(BENCH),--markdown --orders 400 --warm-up 50 --rows 25 --servers 0)

.PHONY: bench-compare
bench-compare: $(READY) ## measure step-ca and Pebble in turn with kms-acme
	@$(BIN)/python -m e2e.load --compare step-ca,pebble --orders 400 --warm-up 80

.PHONY: bench-schema
bench-schema: $(READY) ## measure what the schema of orders costs the API server
	@$(BIN)/python -m e2e.load.schema --rounds 24 --orders 48

.PHONY: bench-workers
bench-workers: $(READY) ## measure a server with two workers beside one with a single worker (needs root)
	@$(BIN)/python -m e2e.load.workers --orders 200 --rounds 3

.PHONY: bench-growth
bench-growth: $(READY) ## measure the cost of an order with more names, profiles, replicas and stored orders
	@$(BIN)/python -m e2e.load.growth --orders 60 --profiles 1,100 --servers 1,3 --stored 1,10000

.PHONY: dev
dev: $(READY) ## run operator and server against the current kubeconfig (DEV="--help" for the options)
	@$(BIN)/kms-acme dev $(DEV)

.PHONY: lock
lock: ## update the dependencies and write the lock files (needs uv)
	uv lock --upgrade
	uv export --quiet --no-header --no-emit-project --no-default-groups --output-file requirements.lock
	uv export --quiet --no-header --no-emit-project --group dev --group certbot --group openbao --all-extras --output-file requirements-dev.lock
	uv export --quiet --no-header --no-emit-project --only-group fuzz --output-file requirements-fuzz.lock
	uv export --quiet --no-header --no-annotate --only-group build --output-file deploy/requirements-build.lock

.PHONY: clean
clean: ## remove generated files from the tree; caches outside stay
	rm -rf $(VENV) .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build uv.lock
