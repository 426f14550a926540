# Every target sets up what it needs and is quick the second time.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-gpu test-containers test-arm triton-server lint format docs benchmark clean constraints check-platforms

# The Python to set up with; empty: the first from 3.11 to 3.13 that is there, or one that uv brings.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/demo
TRITON := build/triton
TRITON_READY := $(TRITON)/.ready
RUN := $(BIN)/ccr-deploy
# A worker for each core; a worker that has nothing left takes tests from another's end.
PARALLEL := -n auto --dist worksteal
export CCR_DEPLOY_ENGINES = $(CURDIR)/build/engines
# Else each of the many processes compiles PyTorch's modules anew, which doubles the time of its import.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python=$$(scripts/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV); }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --python $(BIN)/python --constraint constraints.txt --group dev --group docs --editable '.[onnx,openvino,export,precision,rtx,train,video,serve,kubernetes,report]'
	@touch $@

$(DEMO)/checkpoint.pt: $(READY) $(wildcard training/*.py training/data/*.py ccr_deploy/models/*.py)
	$(BIN)/python -m training.demo --output $(DEMO)

$(DEMO)/.bundle: $(DEMO)/checkpoint.pt calibration/demo.toml $(shell find ccr_deploy -name '*.py')
	$(RUN) export --checkpoint $(DEMO)/checkpoint.pt --images $(DEMO)/images --schedule iteration-major --schedule layer-major --schedule plain $(DEMO)/bundle
	$(RUN) calibrate $(DEMO)/bundle --recipe calibration/demo.toml --images $(DEMO)/calibration --held-out $(DEMO)/images
	@touch $@

demo: $(DEMO)/.bundle ## Train a small checkpoint, export, calibrate, build, verify, measure.
	$(RUN) build-engine $(DEMO)/bundle --target cpu-openvino --int8
	$(RUN) verify $(DEMO)/bundle --target cpu-openvino --images $(DEMO)/images
	$(RUN) build-engine $(DEMO)/bundle
	$(RUN) verify $(DEMO)/bundle --images $(DEMO)/images --report $(DEMO)/report
	$(RUN) classify --bundle $(DEMO)/bundle $(DEMO)/images/coffee/r0000c0000/0480.png $(DEMO)/images/brick/r0000c0000/0080.png
	$(RUN) benchmark $(DEMO)/bundle --report $(DEMO)/report

test: $(READY) lint ## Lint, types, and the tests but for the slow ones.
	@$(MAKE) --no-print-directory triton-server || echo 'no Triton server here: the tests that need one are skipped'
	$(BIN)/pytest $(PARALLEL)

test-all: $(READY) lint ## All tests, the slow ones too.
	@$(MAKE) --no-print-directory triton-server || echo 'no Triton server here: the tests that need one are skipped'
	$(BIN)/pytest $(PARALLEL) -m 'not arm and not containers'

test-gpu: $(READY) ## The tests that run engines on this machine's GPU.
	$(BIN)/pytest -m gpu

test-containers: $(READY) ## Build the images and run them as production does (Debian's podman, root): minutes.
	@scripts/check_container_tools.sh
	@$(MAKE) --no-print-directory triton-server || echo 'no Triton server here: the test that needs one is skipped'
	$(BIN)/pytest tests/containers -m containers

test-arm: $(READY) ## The bundle's commands on an emulated 64-bit Arm (Debian, root): minutes, the first time a quarter of an hour.
	@scripts/check_arm_tools.sh
	@$(MAKE) --no-print-directory $(DEMO)/.bundle
	$(BIN)/pytest tests/arm -m arm --timeout 3600

triton-server: $(TRITON_READY) ## Install a Triton server (Linux x86-64) for the tests, in an environment of its own.

$(TRITON_READY): $(READY) benchmarks/hosts/triton/requirements.txt
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(TRITON)
	$(BIN)/uv pip install -q --python $(TRITON)/bin/python -r benchmarks/hosts/triton/requirements.txt
	@touch $@

lint: $(READY) ## Check style, types and who imports whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## Format and fix what can be fixed.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Build the documentation site into build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

benchmark: $(READY) ## Measure ccr-layer1 at 224x224, T=8, and write benchmarks/results/.
	$(BIN)/python -m benchmarks.schedules
	$(BIN)/python -m benchmarks.int8
	$(BIN)/python -m benchmarks.int8_saturation
	$(BIN)/python -m benchmarks.tensorrt_builds
	$(BIN)/python -m benchmarks.payload
	$(BIN)/python -m benchmarks.serving

constraints: $(READY) ## Resolve the exact versions anew, the containers' too.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --extra onnx --extra openvino --extra export --extra precision --extra train --extra rtx --extra video --extra serve --extra kubernetes --extra report --group dev --group docs \
	  pyproject.toml -o constraints.txt
	$(BIN)/python scripts/lock_images.py

check-platforms: $(READY) ## Check that every extra resolves on the Pythons and platforms it is for; a release needs it.
	$(BIN)/python scripts/check_platforms.py

clean: ## Remove the environment and everything built.
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
