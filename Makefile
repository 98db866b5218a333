# Everything that people run. `make demo` and `make test` are the two that matter.
SHELL := /bin/sh
export PYTHONPATH := $(CURDIR):$(CURDIR)/platform
export PYTHONDONTWRITEBYTECODE := 1
VENV = $$(infra/bootstrap.sh)
# The same without what only tests need; and with the base image, for what starts a platform.
VENV_TO_RUN = $$(infra/bootstrap.sh run)
VENV_AND_BASE = $$(infra/bootstrap.sh base)

.PHONY: help demo up down status purge test lint lock bench conformance prebuild images cluster cluster-down

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: ## Fresh machine to running sample applications
	@V=$(VENV_AND_BASE) && exec $$V/bin/python -m infra.control demo

up: ## Start the platform
	@V=$(VENV_AND_BASE) && exec $$V/bin/python -m infra.control up

down: ## Stop the platform; state stays
	@V=$(VENV_TO_RUN) && exec $$V/bin/python -m infra.control down

status: ## Each part and whether it is healthy; fails and names the one that isn't
	@V=$(VENV_TO_RUN) && exec $$V/bin/python -m infra.control status

purge: ## Remove state, containers, namespaces, programs: the machine as it was
	@V=$(VENV_TO_RUN) && exec $$V/bin/python -m infra.control purge

test: ## Everything that can be tested on this machine
	@V=$(VENV) && exec infra/test.sh $$V

lint: ## Style, types, import contracts, C warnings
	@V=$(VENV) && exec infra/lint.sh $$V

prebuild: ## Kernel programs for nodes without a compiler: DIR=folder, else the cache
	@V=$(VENV) && exec $$V/bin/python -m bpf.prebuild $(DIR)

images: ## Images of all parts into the cache: PUSH=registry/path to a registry, ARCHIVE=file as one archive
	@V=$(VENV) && exec $$V/bin/python -m infra.images $(if $(PUSH),push $(PUSH),$(if $(ARCHIVE),archive $(ARCHIVE)))

conformance: ## Random worlds against the oracle: ENGINE=machine SEED=1 PROBES=10000
	@V=$(VENV) && exec $$V/bin/python -m tests.conformance.run --engine $(or $(ENGINE),machine) --seed $(or $(SEED),1) --probes $(or $(PROBES),10000)

bench: ## A against B in one run: NAME=… (none lists them)
	@V=$(VENV) && exec $$V/bin/python -m infra.bench $(NAME)

cluster: ## A real Kubernetes of two nodes on this machine, to develop and test on: KUBE_PROXY=1 with kube-proxy
	@V=$(VENV_TO_RUN) && exec $$V/bin/python -m infra.cluster.control up

cluster-down: ## Remove it again
	@V=$(VENV_TO_RUN) && exec $$V/bin/python -m infra.cluster.control down

lock: ## Write requirements.lock anew from pyproject.toml
	@V=$(VENV) && $$V/bin/pip-compile -q --extra dev --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o requirements.lock pyproject.toml
