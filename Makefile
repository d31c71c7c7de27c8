# A bare machine needs Python 3.11 or newer, make and a package registry; everything else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin

# Any Python that TensorFlow 2.21 has wheels for; `make PYTHON=/path/to/python` chooses another one.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$candidate && break; done)

# A working nvidia-smi means an NVIDIA driver: tensorflow[and-cuda] and onnxruntime-gpu. Otherwise the processor builds.
# `make ACCELERATOR=cpu` overrules it.
ACCELERATOR ?= $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
# Files of tests that run at the same time; each takes up to 3 GB of memory.
JOBS ?= 2

EXTRAS_cpu := all,dev
EXTRAS_gpu := all-gpu,dev
STAMP := $(VENV)/installed-$(ACCELERATOR)

PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test suite test-slow test-examples lint style types format docs clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## set up .venv with everything (the first time only)

# A second file says from the beginning which builds are going in. Changing them starts the environment anew: one that
# had the processor build, or half of it, and gets the CUDA build on top would hold two TensorFlows.
$(STAMP): setup.cfg pyproject.toml musical_tf/version.py
	@case "$(ACCELERATOR)" in cpu|gpu) ;; *) \
		echo "make: ACCELERATOR is cpu or gpu, got '$(ACCELERATOR)'" >&2; exit 1;; esac
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
		echo "make: Python 3.11, 3.12 or 3.13 is needed, found $$($(or $(PYTHON),false) --version 2>/dev/null || echo none);" \
		"say where one is with: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -e $(VENV)/for-$(ACCELERATOR) || rm -rf $(VENV)
	@test -x $(BIN)/python || { echo "Setting up $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV) && touch $(VENV)/for-$(ACCELERATOR); } || { rm -rf $(VENV); \
		echo "make: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the packages of .[$(EXTRAS_$(ACCELERATOR))]: a few minutes"
	@$(PIP) install -qq --no-compile --prefer-binary --editable '.[$(EXTRAS_$(ACCELERATOR))]'
	@$(BIN)/python .ci/check_environment.py tensorflow keras onnxruntime cv2
	@touch $@

demo: install ## erase a sign from a photograph, then train, evaluate and export, in some minutes; writes demo/
	@$(BIN)/python -m training.demo --output demo

test: style ## check style and types and run the tests
	@$(MAKE) --no-print-directory --jobs=2 types suite

suite: install # mypy uses one core, so that the tests start beside it
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not examples and not browser"

test-slow: install ## run the tests that need minutes
	$(BIN)/python -m pytest -m slow

test-examples: install ## run the ONNX file in Node.js, C++, Chromium and behind a model server, and an offline job
	@$(BIN)/python -c 'import playwright, ray' 2>/dev/null || { \
		echo "Installing the packages of .[examples]"; \
		$(PIP) install -qq --no-compile --prefer-binary --editable '.[examples]'; }
	$(BIN)/python -m pytest -m "examples or browser"

lint: style types ## check style and types alone

style: install
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m ruff format --quiet --check .

types: install
	@$(BIN)/python -m mypy --no-error-summary

format: install ## rewrite the files in the project's style
	@$(BIN)/python -m ruff check --quiet --fix .
	@$(BIN)/python -m ruff format --quiet .

docs: install ## build the documentation in site/; open site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean: ## remove caches and build products; .venv, runs and demo stay
	rm -rf build dist site .cache *.egg-info .pytest_cache .ruff_cache .mypy_cache
	rm -rf examples/node/node_modules examples/web/node_modules examples/web/site examples/triton/.venv examples/gradio/.venv
	rm -rf examples/cpp/build examples/cpp/onnxruntime
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
