# make demo   installs what a completion needs, fetches the small model, completes this project's code
# make test   installs the rest and runs the tests
# TORCH=cuda  takes the CUDA build of torch (gigabytes); the default is the CPU build

PYTHON ?= python3
VENV ?= .venv
TORCH ?= cpu
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt
# On two processes of one thread each, that take tests from each other's end: a module's stay together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test check format lint types settings bench train train-few-steps gpu-check vscode e2e-vscode \
	e2e-nvim10 e2e-nvim12 clean

demo: $(VENV)/.engine
	$(BIN)/dg-lsp pull
	@scripts/demo.sh $(BIN)/dg-lsp

test: $(VENV)/.dev
	$(BIN)/dg-lsp pull
	$(BIN)/dg-lsp pull smollm2-135m
	$(PYTEST)
	TRITON_INTERPRET=1 $(PYTEST) tests/engine/kernels

check: format lint types test

format: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

# What is generated from dg_lsp/settings.py: the schema that editors read and the table in the README.
settings: $(VENV)/.engine
	$(BIN)/python scripts/write_settings.py

bench: $(VENV)/.dev
	$(BIN)/python -m bench.infill
	$(BIN)/python -m bench.server

# The embedded diffusion model: corpus, then training, resumed where it was left. On a GPU: TORCH=cuda.
# EXCLUDE='PATH...': evaluation sets besides HumanEval and the held-out packages that must not leak into the corpus.
# CORPUS='OPTION...': for the corpus builder, such as --no-npm where npm is not installed.
TRAIN ?= build/train
STEPS ?= 20000
FEW_STEPS ?= 2000
train: $(VENV)/.dev
	$(BIN)/dg-lsp pull smollm2-135m
	$(BIN)/python -m engine.train.corpus --out $(TRAIN)/corpus $(if $(EXCLUDE),--exclude $(EXCLUDE)) $(CORPUS)
	$(BIN)/python -m engine.train.trainer --corpus $(TRAIN)/corpus --out $(TRAIN)/run --steps $(STEPS)

# The few-step stage of that run.
train-few-steps: $(VENV)/.dev
	$(BIN)/python -m engine.train.trainer --corpus $(TRAIN)/corpus --out $(TRAIN)/few-steps --distil $(TRAIN)/run --steps $(FEW_STEPS)

# Everything that needs a CUDA device, in one command; on a bare machine: scripts/gpu-check.sh python3
gpu-check: $(VENV)/.dev
	scripts/gpu-check.sh $(BIN)/python

# The Neovim plugin in Neovim 0.10, and in 0.12, whose own ghost text it uses; needs a Debian with apt.
e2e-nvim10: SUITE = trixie
e2e-nvim12: SUITE = forky
e2e-nvim10 e2e-nvim12: $(VENV)/.dev
	DG_LSP_TEST_NVIM="$$(scripts/unpack-nvim.sh $(SUITE) build/$@)" $(PYTEST) tests/neovim

# The VS Code extension: checked, and packaged as vscode-client/dist/dg-lsp.vsix. Needs Node.js 20 and npm.
vscode: vscode-client/node_modules/.package-lock.json
	cd vscode-client && npm run --silent check && npm run --silent package

# The packaged extension in a real VS Code; what must be installed: vscode-client/e2e/setup.sh.
e2e-vscode: vscode $(VENV)/.dev
	$(BIN)/dg-lsp pull
	vscode-client/e2e/setup.sh build/e2e
	cd vscode-client && npm run --silent e2e

vscode-client/node_modules/.package-lock.json: vscode-client/package-lock.json
	cd vscode-client && npm ci --no-audit --no-fund

$(VENV)/.engine: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	scripts/install-torch.sh $(BIN)/python $(TORCH)
	$(PIP) -e '.[engine]'
	touch $@

$(VENV)/.dev: $(VENV)/.engine
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
