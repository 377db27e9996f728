# Every target installs its own requirements: python3 (3.11 or newer) and make are enough.

# The interpreter that creates .venv: make run PYTHON=python3.13
PYTHON ?= python3
# Arguments for pytest, uv or manage.py: make test ARGS="-n 0 -k journal -x", make lock ARGS=--upgrade
ARGS ?=

SETUP := @$(PYTHON) backend/local/bootstrap.py
IN_VENV := @exec .venv/bin/python -m
TYPED := backend schema rest tasks
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help run manage test faults lint types check bench lock clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-7s %s\n' "$$name" "$$text"; done

run: ## Run everything here: servers, demo data, web, worker and beat, until Ctrl-C
	$(SETUP) local
	$(IN_VENV) backend.local.run

manage: ## Run a manage.py command on the servers of 'make run': make manage ARGS=createsuperuser
	$(SETUP) local
	$(IN_VENV) backend.local.manage $(ARGS)

test: ## Run the whole suite, a worker per core, on throw-away servers; ARGS go to pytest
	$(SETUP) dev
	$(IN_VENV) backend.local.testing $(ARGS)

faults: export FAULTS := long
faults: ## Run the fault tests in their long form, for minutes; ARGS go to pytest
	$(SETUP) dev
	$(IN_VENV) backend.local.testing -n 0 -m faults $(ARGS)

lint: ## Check style and formatting
	$(SETUP) dev
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .

# The type checker's Django plugin loads the settings, which need a key.
types: export SECRET_KEY := only-for-the-type-checker
types: ## Check types
	$(SETUP) dev
	$(IN_VENV) mypy $(TYPED)

check: lint types ## Run lint and types, for example before a push

# make treats the words after 'bench' as targets. They name benchmarks here, and their rule does nothing.
ifeq ($(firstword $(MAKECMDGOALS)),bench)
BENCHMARKS := $(sort $(filter-out __%,$(patsubst bench/%.py,%,$(wildcard bench/*.py))))
WANTED := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
UNKNOWN := $(filter-out $(BENCHMARKS),$(WANTED))
ifneq ($(UNKNOWN),)
$(error There is no benchmark '$(UNKNOWN)'; there are: $(BENCHMARKS))
endif
.PHONY: $(WANTED)
$(WANTED): ; @:
endif

bench: ## Run every benchmark and write docs/benchmarks.md, or run one: make bench lists
	$(SETUP) dev
	$(IN_VENV) bench $(WANTED)

# dev contains local, and local contains base: dev.txt fixes the versions of all three.
lock: ## Compile requirements/*.in into pinned *.txt; ARGS go to uv
	$(SETUP) dev
	@.venv/bin/python -m $(COMPILE) requirements/dev.in -o requirements/dev.txt
	@.venv/bin/python -m $(COMPILE) -c requirements/dev.txt requirements/local.in -o requirements/local.txt
	@.venv/bin/python -m $(COMPILE) -c requirements/dev.txt requirements/base.in -o requirements/base.txt

clean: ## Remove .venv and .local, which has the data of make run
	@$(PYTHON) backend/local/clean.py
