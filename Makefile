# Everything here sets up what it needs: a machine with Python >= 3.11 and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENV    := $(VENV)/.installed
TOOLS  := contracts/node_modules/.installed
ARGS   ?=
EAS    := @ethereum-attestation-service/eas-contracts@1.9.0

.PHONY: demo test test-long test-contracts lint contracts lock bench bench-ezkl bench-eas clean

demo: $(ENV) $(TOOLS)              ## a whole federation on this machine, ending in an audit
	$(BIN)/candor-devnet run $(ARGS)

test: $(ENV) $(TOOLS)              ## what CI runs
	$(MAKE) --no-print-directory -j 2 lint test-contracts
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-long: $(ENV) $(TOOLS)         ## the long profile: more fuzzing, more crashes, hours
	CANDOR_LONG=1 $(BIN)/python contracts/build.py test
	CANDOR_LONG=1 $(BIN)/python -m pytest -n 2 --dist loadfile --timeout=7200 $(ARGS)

test-contracts: $(ENV) $(TOOLS)    ## the contracts' own tests, and: is the committed bytecode what the sources give?
	$(BIN)/python contracts/build.py check
	$(BIN)/python contracts/build.py test

lint: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

contracts: $(ENV) $(TOOLS)         ## recompile and rewrite the committed ABI and bytecode
	$(BIN)/python contracts/build.py write

bench: $(ENV) $(TOOLS)
	$(BIN)/python -m benchmarks $(ARGS)

bench-ezkl: $(ENV)                 ## side by side with ezkl, in an environment of its own
	test -x .tools/ezkl/bin/python || $(BIN)/uv venv --quiet .tools/ezkl
	$(BIN)/uv pip install --quiet --python .tools/ezkl/bin/python ezkl==23.0.5 onnx numpy torch onnxscript
	$(BIN)/python -m benchmarks.against_ezkl .tools/ezkl/bin/python

bench-eas: $(ENV) $(TOOLS)         ## gas of the Ethereum Attestation Service, on its own contracts
	mkdir -p .tools/eas
	cd .tools/eas && PATH="$(abspath $(BIN)):$$PATH" $(abspath $(BIN))/npm pack --silent $(EAS)
	tar -xzf .tools/eas/*.tgz -C .tools/eas
	$(BIN)/python -m benchmarks.against_eas .tools/eas/package

lock: $(ENV)                       ## refresh the hashed lock; it names no index
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	  --no-header --all-extras --quiet pyproject.toml -o requirements.lock

$(ENV): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Candor needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	$(BIN)/python -m proofs.kernels
	touch $@

$(TOOLS): $(ENV) contracts/package-lock.json
	cd contracts && PATH="$(abspath $(BIN)):$$PATH" $(abspath $(BIN))/npm install --no-save --ignore-scripts --silent
	touch $@

clean:
	rm -rf $(VENV) contracts/node_modules contracts/out contracts/cache
