# `make help` lists what there is. Python 3.11+ and make are all that is needed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# The first Python that is new enough; name another with `make PYTHON=python3.12 …`. Debian's of the same version takes the
# place of one that was built without optimizations.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done),python3)

BIN := .venv/bin
# What the demo runs on: `make demo ON=local`.
ON ?= prefect
# What `make test` hands to pytest: `make test ARGS='-k retry'`.
ARGS ?=

.PHONY: help demo demo-migration test test-pythons check coverage lint types docs serve-docs bench lowest constraints audit airflow-env format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.demo .venv/.test: .venv/.%: pyproject.toml constraints.txt scripts/environment.py scripts/uv.txt
	@$(PYTHON) scripts/environment.py $*

demo: .venv/.$(if $(filter airflow kubeflow-local,$(ON)),test,demo) ## Train two models side by side on a real Prefect (ON=local: no engine; ON=airflow; ON=kubeflow-local)
	@PATH="$(CURDIR)/$(BIN):$$PATH" python $(if $(filter airflow,$(ON)),scripts/demo_airflow.py,examples/train_classifier.py --on $(ON))
	@[ "$(ON)" = airflow ] || echo "Ask:      $(BIN)/flowyml runs --on $(ON)"
	@if [ "$(ON)" = prefect ] && [ -z "$$PREFECT_API_URL" ]; then \
		echo "Sign in:  $(BIN)/flowyml backends sign-in prefect   (the pages above ask for the password that it shows)"; \
		echo "Stop:     $(BIN)/flowyml backends stop prefect   (until then Prefect keeps running)"; fi

demo-migration: .venv/.test ## Move DAGs of a real Airflow to Prefect, and back: some ten minutes
	@$(BIN)/python scripts/demo_migration.py

test: .venv/.test ## Run every check and test, real engines included
	@$(MAKE) -j4 lint types docs airflow-env
	@$(BIN)/python scripts/run_tests.py $(ARGS)

test-pythons: .venv/.test ## Run what needs no engine on every other Python from 3.11 on that this machine has
	@$(BIN)/python scripts/run_tests.py --pythons $(ARGS)

check: .venv/.test ## Run what needs no engine and little time: style, layers, types, docs, most unit tests, the docs' code
	@$(MAKE) -j2 lint types docs
	@$(BIN)/python -m pytest tests/unit tests/docs flowyml adapters -q -m "not slow and not processes and not prefect" -n logical --dist worksteal $(ARGS)

coverage: .venv/.test ## Run the tests that need no engine, and show which lines they reach
	@$(BIN)/python -m pytest tests/unit flowyml adapters -q --cov --cov-report=term $(ARGS)

lint: .venv/.test ## Style (ruff), the layers of the code (import-linter), the lists of adapters
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/python scripts/adapters.py --check
	@$(BIN)/lint-imports >.venv/lint-imports.log || (cat .venv/lint-imports.log; exit 1)

types: .venv/.test ## Types (mypy --strict); of examples and the docs' programs also by pyright
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python scripts/docs_code.py .venv/docs_code
	@MYPYPATH=.venv/docs_code $(BIN)/mypy --no-error-summary examples/*.py .venv/docs_code
	@$(BIN)/basedpyright >.venv/pyright.log || (cat .venv/pyright.log; exit 1)

docs: .venv/.test ## Build the documentation into site/, warnings are errors
	@$(BIN)/python scripts/generate_docs.py --check
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

serve-docs: .venv/.test ## Show the documentation at http://127.0.0.1:8000
	@$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

bench: .venv/.test ## Measure beside plain Python and the engines' own API
	@$(BIN)/python -m benchmarks $(ARGS)

lowest: .venv/.test ## Unit tests with the oldest releases that pyproject.toml allows
	@$(PYTHON) scripts/lowest.py

audit: .venv/.test ## Look the pinned releases up among known vulnerabilities (needs the database of pip-audit)
	@.tools/bin/uv tool run --quiet pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r constraints.txt

airflow-env: .venv/.test ## Make the environments of Airflow 3 and 2.11, which tests do by themselves too
	@$(BIN)/python scripts/airflow_environment.py 3 2

format: .venv/.test ## Format the code
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

constraints: .venv/.test ## Pin the newest releases anew, with hashes
	@$(PYTHON) scripts/pin.py

clean: ## Remove what the commands above made
	rm -rf .venv .venv-airflow3 .venv-airflow2 .tools site dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
