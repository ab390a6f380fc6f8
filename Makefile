# The project's commands. `make` alone lists them. ARGS passes further arguments on: make train ARGS='seed=1 run=mine'

# `make setup PYTHON=python3.12` chooses the Python of .venv. Each choice has its own stamp, so a new choice is noticed.
STAMP := .venv/.installed$(if $(PYTHON),-$(subst /,-,$(lastword $(PYTHON))))

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup train test test-system test-gpu test-matrix check docs notebook links lock

# Two processes; all tests of a file run in one of them, because they share fixtures.
PYTEST_IN_TWO := .venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

# The user's settings for other installations must not affect this one. Their indexes and certificates still apply.
unexport PIP_CONSTRAINT PIP_NO_BINARY PIP_PREFIX PIP_REQUIREMENT PIP_TARGET PIP_USER
unexport UV_CONSTRAINT UV_EXCLUDE_NEWER UV_NO_BINARY UV_OVERRIDE UV_PREFIX UV_PYTHON UV_SYSTEM_PYTHON UV_TARGET
# Time limit in s without any data. The torch wheel is large, and some mirrors pause before sending it.
export UV_HTTP_TIMEOUT ?= 180

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

setup: $(STAMP)  ## create .venv from requirements.lock; nothing when it is up to date
	@:

# A .venv without a stamp is incomplete and is made again; one with an older stamp is updated.
$(STAMP): requirements.lock pyproject.toml make_venv.sh
	@bash make_venv.sh
	@touch .venv/.installed $@

train: $(STAMP)  ## the quickstart: a short real training run on Fashion-MNIST
	.venv/bin/python src/train.py experiment=quickstart $(ARGS)

test: $(STAMP)  ## every test that needs no accelerator, within 6 minutes
	$(PYTEST_IN_TWO) -m 'not system and not alone and not gpu' $(ARGS)

test-system: $(STAMP)  ## the long end-to-end tests, in about 20 minutes
	$(PYTEST_IN_TWO) -m 'system and not alone' $(ARGS)
	.venv/bin/python -m pytest -m alone $(ARGS)

test-gpu: $(STAMP)  ## the tests that need a GPU, within 5 minutes
	.venv/bin/python -m pytest tests/gpu $(ARGS)

test-matrix: $(STAMP)  ## each Python with the oldest and newest versions claimed; downloads them
	.venv/bin/python tests/matrix.py $(ARGS)

check: $(STAMP)  ## lint, format, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m mypy

docs: $(STAMP)  ## write docs/configuration.md from conf and the code
	.venv/bin/python -m docs.generator.page

notebook: $(STAMP)  ## execute docs/alexnet.ipynb and save its outputs, within a few minutes
	.venv/bin/python -m docs.generator.notebook

links: $(STAMP)  ## list the external links of all pages
	@.venv/bin/python -m docs.generator.links

lock: $(STAMP)  ## write requirements.lock from pyproject.toml; ARGS=--upgrade takes newer versions
	.venv/bin/uv pip compile pyproject.toml --extra dev --output-file requirements.lock --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet $(ARGS)
