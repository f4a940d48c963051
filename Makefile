# Everything that is done to this project, by name. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Caches outside the tree: a fresh clone finds them.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kms-acme
export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
# Groups of tests go to workers as a whole, those that take longest first: see tests/support/groups.py.
WORKERS := --numprocesses=3
PYTEST := $(BIN)/pytest $(WORKERS)
SOURCES := acme_server kms kms_acme operator tests e2e fuzz
GATE := not node and not soak and not tools

.PHONY: help
help: ## say what each target does
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@python="$(PYTHON)"; python="$${python:-$$(.ci/find-python)}"; \
	"$$python" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'; \
	echo "setting up $(VENV): the locked dependencies"; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## make .venv with everything that is needed, at the locked versions

# Only KUBECONFIG and CONTEXT on the command line of make count: the everyday cluster in the environment is not for a demo.
asked = $(if $(filter command,$(origin $(1))),$(2) '$($(1))')

.PHONY: demo
demo: $(READY) ## from four manifests to a certificate, with certbot (KEEP=1, KUBECONFIG=file CONTEXT=name for a cluster of yours)
	@$(BIN)/python -m e2e.demo $(if $(KEEP),--keep) $(call asked,KUBECONFIG,--kubeconfig) $(call asked,CONTEXT,--context)

.PHONY: test
test: binaries ## run all tests of the gate, on a real API server where it matters
	$(PYTEST) -m "$(GATE)"

.PHONY: test-tools
test-tools: binaries ## run the tests of the tools that test: e2e/, fuzz/
	$(PYTEST) -m "tools and not node"

.PHONY: soak
soak: binaries ## kill programs fifty times, where make test does ten times, and wait for what takes minutes
	KMS_ACME_E2E_KILLS=50 KMS_ACME_E2E_ORDERS=1000 $(BIN)/pytest -m "kills or soak"

.PHONY: coverage
coverage: binaries ## run the tests of the gate and measure what they cover (at least 98 %), which takes longer
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(WORKERS) -m "$(GATE)"
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report --fail-under=98

.PHONY: binaries
binaries: $(READY)
	@$(BIN)/python -m e2e.cluster build
	@$(BIN)/python -m e2e.chart --build >/dev/null
	@$(BIN)/python -m e2e.support.tools

.PHONY: test-node
test-node: $(READY) ## run the tests of image, chart and cert-manager on a node that runs pods (root on Linux)
	$(BIN)/pytest -m node tests/deploy # apart: it runs the programs by themselves in the namespace of the release
	$(BIN)/pytest -m node --ignore=tests/deploy

.PHONY: image
image: ## build the image kms-acme:VERSION with buildah, podman or docker (IMAGE=name:tag, BUILD="--build-arg BASE=...")
	@deploy/build-image.sh $(BUILD)

.PHONY: check
check: $(READY) ## format, lint, types, import contracts, a test for every line of the requirements, what is made of the chart
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir $(CACHE)/import-linter
	$(BIN)/python -m e2e.conformance --check
	$(BIN)/python -m e2e.chart --check
	$(BIN)/python -m e2e.reference --check

.PHONY: format
format: $(READY) ## put the sources into form
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: fuzz
fuzz: $(READY) ## search for inputs that break a parser (MINUTES=10, FUZZ="csr dns" for some targets, FUZZ=--keep)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-fuzz.lock
	@$(BIN)/python -m fuzz --minutes $(or $(MINUTES),10) $(FUZZ)

.PHONY: conformance
conformance: $(READY) ## write tests/conformance/README.md from the requirements and the markers on the tests
	@$(BIN)/python -m e2e.conformance

.PHONY: chart
chart: $(READY) ## make schema and README of the Helm chart, and the kustomize base
	@$(BIN)/python -m e2e.chart

.PHONY: reference
reference: $(READY) ## write docs/reference.md from the schemas in crds/
	@$(BIN)/python -m e2e.reference

.PHONY: bench
bench: $(READY) ## measure orders a second, CPU and API writes an order (BENCH="--orders 500" for less)
	@$(BIN)/python -m e2e.load $(BENCH)

.PHONY: dev
dev: $(READY) ## run operator and server against the current kubeconfig (DEV="--help" for the options)
	@$(BIN)/kms-acme dev $(DEV)

.PHONY: lock
lock: ## resolve the dependencies anew and write the lock files (needs uv)
	uv lock --upgrade
	uv export --quiet --no-header --no-emit-project --no-default-groups --output-file requirements.lock
	uv export --quiet --no-header --no-emit-project --group dev --group certbot --output-file requirements-dev.lock
	uv export --quiet --no-header --no-emit-project --only-group fuzz --output-file requirements-fuzz.lock
	uv export --quiet --no-header --no-annotate --only-group build --output-file deploy/requirements-build.lock

.PHONY: clean
clean: ## remove what was made in the tree; caches outside it stay
	rm -rf $(VENV) .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build uv.lock
