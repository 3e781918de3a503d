# make run   sets everything up and runs the main job: the quick start
# make test  sets everything up and passes every check and test
# make deploy-demo  nine processes on this machine do the quick start's first rounds under TLS
# On a machine whose registry offers PyTorch only with CUDA, and which has no GPU, name an index of
# CPU builds: make run TORCH_INDEX=...

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
TORCH := $(shell grep '^torch==' requirements.lock)
TORCH_INDEX ?=
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | head -n 1)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test deploy-demo setup flower ray lint unit docs proto lock bench clean

run: setup
	$(BIN)/elsa run

test: lint unit

deploy-demo: setup
	$(BIN)/python examples/deploy_demo.py --out runs/deploy-demo-$$(date +%Y%m%d-%H%M%S)

setup: $(READY)

# Every package is listed in the lock file, so --no-deps is complete, and PyTorch's CUDA libraries
# are asked for only where a GPU is.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		$(if $(GPU),,--no-deps) $(TORCH)
	$(BIN)/pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@$(BIN)/python -c "import torch" || { echo "This PyTorch build needs CUDA libraries and this \
	machine has no GPU: run make again with TORCH_INDEX=<an index of CPU builds>"; exit 1; }
	@touch $(READY)

# Flower, for deploy.link = "flower" and its tests: the same versions and 20 packages more.
flower: .venv/.flower

.venv/.flower: requirements-flower.lock $(READY)
	$(BIN)/pip install --quiet --no-deps --requirement requirements-flower.lock
	@touch $@

# Ray, for elsa run --engine ray and its tests: the same versions and 6 packages more.
ray: .venv/.ray

.venv/.ray: requirements-ray.lock $(READY)
	$(BIN)/pip install --quiet --no-deps --requirement requirements-ray.lock
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup flower ray
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 4 --dist loadgroup

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo site/index.html

proto: setup
	$(BIN)/python -m grpc_tools.protoc -I elsa/wire/generated=proto/elsa/v1 \
		--python_out=src --pyi_out=src elsa/wire/generated/elsa.proto

COMPILE := $(BIN)/pip-compile --quiet --extra dev --strip-extras --no-annotate --no-header \
	--no-emit-options --no-emit-index-url --no-emit-find-links

lock:
	$(COMPILE) --extra flower --constraint constraints.txt --output-file requirements-flower.lock \
		pyproject.toml
	$(COMPILE) --extra ray --constraint requirements-flower.lock --output-file requirements-ray.lock \
		pyproject.toml
	$(COMPILE) --constraint requirements-flower.lock --output-file requirements.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock requirements-*.lock

clean:
	rm -rf .venv build dist runs site .mypy_cache .ruff_cache .pytest_cache
