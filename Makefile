# Two commands matter: `make demo` and `make test`. Each sets up what it needs first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= demo

.PHONY: demo test test-fast test-long pages drills check setup docs notebooks clean

demo: $(VENV)/.ready
	$(BIN)/medcl demo --out $(OUT)

test: check
	$(BIN)/pytest -n 2 --dist loadfile -m "not long"

# What compares trainings or measures memory: minutes, when methods, encoders or their engine change.
test-long: $(VENV)/.ready
	$(BIN)/pytest -n 2 --dist loadfile -m long

# Without tests that take more than about a second: under three minutes on two cores.
test-fast: $(VENV)/.ready
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

# Every command of the pages "in 5 minutes" and "how to", and the notebooks: four minutes of a core.
pages: $(VENV)/.ready
	$(BIN)/pytest -n 0 tests/test_pages.py

# Every verb broken off at many moments, on full disks, with flipped bits: a table of counts.
drills: $(VENV)/.ready
	$(BIN)/python tests/drills/long.py

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:plugins:cli $(BIN)/lint-imports
	$(BIN)/python docs/prose.py
	PYTHONPATH=.:plugins:cli $(BIN)/pytest -n 0 tests/test_docs.py

# The generated pages, then the site: site/index.html opens from the folder, without a network.
docs: $(VENV)/.ready
	$(BIN)/python docs/generate.py
	PYTHONPATH=.:plugins:cli NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The notebooks with their outputs, into site-notebooks/, from where `make docs` shows them.
notebooks: $(VENV)/.ready
	$(BIN)/python docs/run_notebooks.py

setup: $(VENV)/.ready

# The constraints name the exact versions tested together; on a machine with a GPU the same file
# gives torch's CUDA build.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "medcl needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OUT) dist build site site-notebooks .pytest_cache .mypy_cache .ruff_cache
