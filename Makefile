# Every command does its own set-up: nothing has to be installed but make and a Python from 3.11 on.

# Another project's environment must not reach into this one.
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME

BOOTSTRAP := python3 local/bootstrap.py
PYTHON := .venv/bin/python
export SAM_CLI_TELEMETRY := 0

# Two processes; the tests of a file stay together (tests/conftest.py).
SIDE_BY_SIDE := -n 2 --dist loadgroup

.PHONY: help demo test local build lint bench chaos lock clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 15

demo: ## the main job on real input, on this machine; ends by itself
	@$(BOOTSTRAP) dev
	@$(PYTHON) -m local.demo

test: ## every test
	@$(BOOTSTRAP) dev sam
	@$(PYTHON) -m local.build --where-possible
	$(PYTHON) -m pytest $(SIDE_BY_SIDE)

local: ## the stack on this machine, empty, until Ctrl-C; one line of JSON when it is ready
	@$(BOOTSTRAP) dev
	@$(PYTHON) -m local

build: ## what `sam deploy` deploys, in .aws-sam/
	@$(BOOTSTRAP) dev sam
	@$(PYTHON) -m local.build

lint: ## ruff, mypy, cfn-lint, sam validate
	@$(BOOTSTRAP) dev sam
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/cfn-lint template.yaml
	.venv-sam/bin/sam validate --lint --region us-east-1 --template template.yaml

bench: ## speed, memory and start-up, beside their baselines
	@$(BOOTSTRAP) dev sam
	@$(PYTHON) -m local.build
	$(PYTHON) -m benchmarks $(ARGUMENTS)

chaos: ## the fault matrix in its long form
	@$(BOOTSTRAP) dev sam
	@$(PYTHON) -m local.build --where-possible
	RELAY_CHAOS=full $(PYTHON) -m pytest --timeout 3600 $(SIDE_BY_SIDE) tests/functions tests/stack/test_real_kills.py \
		tests/stack/test_real_kills_billing.py tests/test_fault_matrix.py

lock: ## write the lock files anew
	@$(BOOTSTRAP) lock

clean: ## remove everything that the commands have made
	rm -rf .venv .venv-sam .aws-sam build .mypy_cache .pytest_cache .ruff_cache .hypothesis
