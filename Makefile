# Each target makes its own environment; only Python >= 3.11 with venv must be there.
#   make quickstart | make test | make test-all | make test-torch | make test-browser
#   make test-processors                          the tests as other x86 processors run them;
#   make test-processors TESTS=tests/clip_jax     some of them
#   make lint | make docs | make bench | make mutants | make faults
#   PYTHON=python3.12 VENV=.venv312 make test     another interpreter

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all test-processors test-torch test-browser lint docs bench mutants faults clean

# Huge pages: docs/performance_notes.md, "Training".
quickstart: $(VENV)/.installed-demo
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m experiments.quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not torch and not browser"

# Without AVX-512, without fused multiply-add (AVX2 brings it), and with another number of threads
# (XLA reads NPROC): each may round differently. tests/conftest.py adds its own flags to these.
# For a processor without F16C jaxlib 0.10 cannot link float16 ("Symbols not found: __extendhfsf2").
NEEDS_F16C := tests/rudolph_jax/test_model.py::test_pb_relax_keeps_large_float16_scores_finite
test-processors: $(VENV)/.installed-test
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=AVX2" $(BIN)/python -m pytest $(TESTS)
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=SSE4_2" $(BIN)/python -m pytest $(TESTS) --deselect $(NEEDS_F16C)
	NPROC=16 $(BIN)/python -m pytest $(TESTS)

test-torch: $(VENV)/.installed-torch
	$(BIN)/python -m pytest -m torch

test-browser: $(VENV)/.installed-browser
	tests/install_chromium
	$(BIN)/python -m pytest -n 0 -m browser tests/rudolph_jax

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict --quiet

# Hours; what it has found before stays. MUTANTS="--modules=rudolph_jax/masks.py --minutes=30"
mutants: $(VENV)/.installed-mutants
	$(BIN)/python tests/mutation/run.py $(MUTANTS)

# Some sixty faults of meaning, each of which must make a test fail: minutes.
faults: $(VENV)/.installed-test
	$(BIN)/python tests/mutation/faults.py

# Ours, today's PyTorch and the packages of 2022, each in an environment of its own.
bench: $(VENV)/.installed-torch .venv-original/.installed
	$(BIN)/python -m benchmarks all

.venv-original/.installed:
	$(PYTHON) -m venv .venv-original
	.venv-original/bin/python -m pip install --quiet --disable-pip-version-check \
	  torch==2.13.0 numpy pillow einops more-itertools tqdm transformers huggingface_hub regex ftfy
	.venv-original/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  rudolph==0.0.1rc10 ruclip==0.0.2
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python is %d.%d; expected 3.11 or newer: make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test]'
	touch $@

$(VENV)/.installed-torch: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test,torch]'
	touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser]'
	touch $@

$(VENV)/.installed-mutants: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mutants]'
	touch $@

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build site dist *.egg-info
