# Every target installs what it needs first. The second run is quick.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-gpu gpu-kit test-containers test-arm triton-server lint format docs bench benchmark clean \
  constraints check-platforms check-extras release

# The Python of the environment. Empty: the first of 3.11, 3.12, 3.13 on this machine, or one that uv downloads.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/demo
TRITON := build/triton
TRITON_READY := $(TRITON)/.ready
RUN := $(BIN)/ccr-deploy
# The kit for a machine with a GPU, the version of PyTorch there, and its compute capability, for a smaller kit.
KIT ?= build/gpu-kit
TORCH ?= 2.11.0
COMPUTE_CAPABILITY ?=
# One worker per core. Test durations differ widely: idle workers take tests from busy ones.
PARALLEL := -n auto --dist worksteal
export CCR_DEPLOY_ENGINES = $(CURDIR)/build/engines
# Many processes import PyTorch. Without cached bytecode each compiles it again, which doubles the import's time.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python=$$(scripts/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV); }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --python $(BIN)/python --constraint constraints.txt --group dev --group docs --editable '.[onnx,openvino,export,precision,rtx,train,video,serve,kubernetes,loadgen,report]'
	@touch $@

$(DEMO)/checkpoint.pt: $(READY) $(shell find training -name '*.py' -o -name '*.toml') $(wildcard ccr_deploy/models/*.py)
	$(BIN)/python -m training.demo --output $(DEMO)

$(DEMO)/.bundle: $(DEMO)/checkpoint.pt calibration/demo.toml $(shell find ccr_deploy -name '*.py')
	$(RUN) export --checkpoint $(DEMO)/checkpoint.pt --images $(DEMO)/images --schedule iteration-major --schedule layer-major --schedule plain $(DEMO)/bundle
	$(RUN) calibrate $(DEMO)/bundle --recipe calibration/demo.toml --images $(DEMO)/calibration --held-out $(DEMO)/images
	@touch $@

demo: $(DEMO)/.bundle ## Train a small checkpoint, then export, calibrate, build, verify and benchmark it.
	$(RUN) build-engine $(DEMO)/bundle --target cpu-openvino --int8
	$(RUN) verify $(DEMO)/bundle --target cpu-openvino --images $(DEMO)/images
	$(RUN) build-engine $(DEMO)/bundle
	$(RUN) verify $(DEMO)/bundle --images $(DEMO)/images --report $(DEMO)/report
	$(RUN) classify --bundle $(DEMO)/bundle $(DEMO)/images/coffee/r0000c0000/0480.png $(DEMO)/images/brick/r0000c0000/0080.png
	$(RUN) benchmark $(DEMO)/bundle --report $(DEMO)/report

test: $(READY) lint ## Run lint, type checks and all tests except the slow ones.
	@$(MAKE) --no-print-directory triton-server || echo 'Triton server not installed: the tests that need it are skipped'
	$(BIN)/pytest $(PARALLEL)

test-all: $(READY) lint ## Run all tests, including the slow ones.
	@$(MAKE) --no-print-directory triton-server || echo 'Triton server not installed: the tests that need it are skipped'
	$(BIN)/pytest $(PARALLEL) -m 'not arm and not containers'

test-gpu: $(READY) ## Run the tests that need an NVIDIA GPU, with the kit in KIT; fail if no engine ran.
	GPU_KIT=$(abspath $(KIT))/content $(BIN)/pytest -m gpu -rs tests/gpu

gpu-kit: $(DEMO)/.bundle ## Make a folder to carry to a machine with a GPU: bundles, golden files, wheels, tests.
	$(BIN)/python -m scripts.gpu_kit.make $(DEMO) $(KIT) --torch $(TORCH) $(if $(COMPUTE_CAPABILITY),--compute-capability $(COMPUTE_CAPABILITY))

test-containers: $(READY) ## Build the container images and run them as in production (Debian's podman, root): minutes.
	@scripts/check_container_tools.sh
	@$(MAKE) --no-print-directory triton-server || echo 'Triton server not installed: the test that needs it is skipped'
	$(BIN)/pytest tests/containers -m containers

test-arm: $(READY) ## Run the commands on an emulated 64-bit Arm (Debian, root): minutes, 15 the first time.
	@scripts/check_arm_tools.sh
	@$(MAKE) --no-print-directory $(DEMO)/.bundle
	$(BIN)/pytest tests/arm -m arm --timeout 3600

triton-server: $(TRITON_READY) ## Install a Triton server for the tests (Linux x86-64), in a separate environment.

$(TRITON_READY): $(READY) benchmarks/hosts/triton/requirements.txt
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(TRITON)
	$(BIN)/uv pip install -q --python $(TRITON)/bin/python -r benchmarks/hosts/triton/requirements.txt
	@touch $@

lint: $(READY) ## Check style, types and import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## Format the code and apply automatic fixes.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Build the documentation site into build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(READY) ## Compare with PyTorch, torch.compile and plain exports on this machine: about 50 minutes.
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.where_time_goes
	$(BIN)/python -m benchmarks.documents

benchmark: $(READY) ## Run the benchmarks of ccr-layer1 (224x224, T=8) into benchmarks/results/.
	$(BIN)/python -m benchmarks.schedules
	$(BIN)/python -m benchmarks.table1
	$(BIN)/python -m benchmarks.int8
	$(BIN)/python -m benchmarks.int8_saturation
	$(BIN)/python -m benchmarks.tensorrt_builds
	$(BIN)/python -m benchmarks.payload
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.scaling

constraints: $(READY) ## Update the pinned versions: constraints.txt and the containers' requirement files.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --extra onnx --extra openvino --extra export --extra precision --extra train --extra rtx --extra video --extra serve --extra kubernetes --extra loadgen --extra report --group dev --group docs \
	  pyproject.toml -o constraints.txt
	$(BIN)/python -m scripts.lock_images

release: $(READY) ## Build the wheel, the sdist and a bill of materials (CycloneDX) into dist/.
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python -m scripts.make_sbom dist/*.whl

check-platforms: $(READY) ## Check that every extra resolves on its Pythons and platforms; run it before a release.
	$(BIN)/python -m scripts.check_platforms

check-extras: $(READY) ## Install every extra by itself and run what it is for (8 GB); run it before a release.
	$(BIN)/python -m scripts.check_extras

clean: ## Remove the environment and all build outputs.
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
