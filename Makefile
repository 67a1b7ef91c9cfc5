# `make` alone lists the targets. Each of them first sets up .venv with the tested versions, once.

# What the course makes stays in its folder, but for what README lists below "Uninstall". glog is the logger inside Paddle:
# warnings of its C++ code are no news to a learner. ONNX Runtime sends usage data from 1.32 on unless it is told not to.
export TUTORIAL_UTILS_CACHE := $(CURDIR)/build/cache
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/build/home# Jupyter and Paddle write there, and end where they can't
endif
export MPLCONFIGDIR ?= $(CURDIR)/build/matplotlib
export IPYTHONDIR ?= $(CURDIR)/build/ipython
export GLOG_minloglevel ?= 2
export ORT_DISABLE_TELEMETRY ?= 1
# Tests and lessons start hundreds of processes. Without this, each would compile all its modules again where a container's
# image has Python write no bytecode.
unexport PYTHONDONTWRITEBYTECODE

# Paddle and TensorRT-RTX ship wheels for these versions. An interpreter counts only if it really runs and can make a venv.
CHECK := -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
	$$python $(CHECK) 2>/dev/null && echo $$python && break; done)
RUN := .venv/bin/python -m
PIP := $(RUN) pip -qq --disable-pip-version-check
# Of two `make` at once, one installs and the other waits: for the lock of this very file, where the system has flock.
LOCKED := $(if $(shell command -v flock),flock Makefile)
# `make lab LAB="--ip=0.0.0.0 --no-browser"`: options of JupyterLab. As root, the usual user in a container, it has to be told.
LAB ?=
# JupyterLab asks the network for newer versions of itself, for news, and for the extensions that there are. These options
# keep its server from it; that its page doesn't ask the reader about news is a setting, in .jupyterlab/overrides.json.
NO_WORD := --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.news_url=None \
	--LabApp.extension_manager=readonly --LabApp.app_settings_dir='$(CURDIR)/.jupyterlab'
ROOT_OPTION := $(if $(filter 0,$(shell id -u)),--allow-root)

# TensorRT's public type stubs, for tests/engine/test_tensorrt_api.py. Not in requirements.txt: they depend on TensorRT
# itself, which only NVIDIA's index has. In a folder of their own: on Python's path, they would look like an installed TensorRT.
STUBS := tensorrt-stubs==10.13.0.35.1

.PHONY: help environment sound-environment course lab doctor memory budget test test-library test-browser test-hopper bench lint notebooks lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

course: environment ## run every lesson and write build/course/index.html
	@$(RUN) tutorial_utils.authoring.course

lab: environment ## open the lessons in JupyterLab
	@$(RUN) jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(NO_WORD) $(ROOT_OPTION) $(LAB)

doctor: environment ## say what this machine can run, and what to mend first
	@$(RUN) tutorial_utils doctor

memory: environment ## measure how much memory each lesson needs
	@$(RUN) tutorial_utils.authoring.memory

budget: environment ## count what each lesson asks of its reader, against the limits
	@$(RUN) tutorial_utils.authoring.budget

# Each process takes whole files, since the cells of a notebook share a kernel. Those with the most tests come first.
test: lint ## lint, then the tests of the package and of every notebook, in two processes
	@$(RUN) pytest -n 2 --dist loadfile \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=600 tests $(wildcard notebooks)

# One after the other: each may use both cores.
test-library: environment ## run each lesson's library cells without the package
	@$(RUN) pytest -m library tests/lessons/test_library_cells.py

# The two editions at the same time: HTML, and JupyterLab. Screenshots stay in build/browser.
test-browser: environment ## look at the lessons with Chromium: JupyterLab and HTML, light and dark, phone and paper
	@$(RUN) pytest -n 2 --dist loadfile -m browser tests/browser

test-hopper: environment build/rtx-1.6.1/tensorrt_rtx ## test the engine with TensorRT-RTX 1.6.1, which runs on Hopper
	@PYTHONPATH=build/rtx-1.6.1 $(RUN) pytest tests/engine

build/rtx-1.6.1/tensorrt_rtx: | environment
	@$(PIP) install --target build/rtx-1.6.1 tensorrt-rtx==1.6.1.120

bench: environment ## measure what the package adds to a call of the bare libraries
	@$(RUN) benchmarks.overhead

lint: environment ## check style of code and form of notebooks
	@$(RUN) ruff check && $(RUN) ruff format --check && $(RUN) tutorial_utils.authoring.notebook_form

notebooks: environment ## execute every notebook in place, after editing
	@$(RUN) tutorial_utils.authoring.course --in-place && $(RUN) tutorial_utils.authoring.notebook_form

lock: environment ## write requirements.txt anew from pyproject.toml; pins that still fit stay
	@$(PIP) install uv && .venv/bin/uv pip compile --quiet --universal --python-version 3.10 --extra default --extra test \
		--custom-compile-command 'make lock' --output-file requirements.txt pyproject.toml

clean: ## remove everything that the other targets made, .venv too
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

environment:
	@mkdir -p build "$$HOME"
	@$(LOCKED) sh -c '$(MAKE) --no-print-directory -s sound-environment && $(MAKE) --no-print-directory -s .venv/installed'

# An environment that this Makefile made (.venv/place says where) and that can't be used is made anew: its interpreter is
# gone, its making was interrupted before pip came, or its folder has another name now, which scripts in it hold.
# Anybody else's is left alone.
sound-environment:
	@if test -e .venv/place && test "$$(cat .venv/place)" != "$(CURDIR)"; then \
		echo ".venv was made in $$(cat .venv/place): making it anew."; rm -rf .venv; \
	elif { test -e .venv || test -L .venv; } && ! .venv/bin/python -c 'import pip' 2>/dev/null; then \
		test -e .venv/place || { echo ".venv is broken: it has no Python that runs, with pip." \
			"Run \`make clean\`, then this again." >&2; exit 1; }; \
		echo ".venv is incomplete, or its Python is gone: making it anew."; rm -rf .venv; \
	fi

# Of requirements.txt nothing is compiled ahead, which takes more than a minute: Python compiles what is imported, once, and
# most of it never is.
.venv/installed: requirements.txt pyproject.toml
	@test -e .venv/bin/python || { \
		"$(PYTHON)" $(CHECK) 2>/dev/null || { echo "The course needs Python 3.10, 3.11 or 3.12 with its venv module:" \
			"install one (Debian, Ubuntu: python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		echo "Making .venv with $$("$(PYTHON)" --version)."; \
		mkdir -p .venv && echo "$(CURDIR)" > .venv/place && "$(PYTHON)" -m venv .venv; }
	@echo "Installing requirements.txt into .venv: about 2 minutes, 1 GB to download."
	@$(PIP) install --no-compile -r requirements.txt
	@$(PIP) install --no-deps $$($(RUN) tutorial_utils.base.requirements)
	@$(PIP) install --no-deps --target .venv/tensorrt-stubs --upgrade $(STUBS)
	@$(PIP) install --no-deps --editable .
	@touch $@
