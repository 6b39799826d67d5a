# `make book` and `make test` need Python 3.10 or newer and make; they set up everything else in .venv.
# Another interpreter, before there is a .venv: make book PYTHON=python3.12

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
PEERS := .venv-peers
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
# The kernel of this environment, not one that the user installed elsewhere under the same name.
export JUPYTER_PREFER_ENV_PATH := 1
# Each kernel imports torch and some thousand modules more: compiled once, in half the time.
export PYTHONDONTWRITEBYTECODE :=

# A worker for each core, and a file to each, in the order of conftest.py: those that take longest
# come first.
RUNS := -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Two targets would set up one environment at once.
.NOTPARALLEL:
.PHONY: help book test test-fast coverage lab serve pdf slides handout zip bench lock pictures faces \
    clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

# A stamp for each extra, so that a second call costs nothing and a changed pin installs again.
# Without --no-compile pip compiles every module, and most are never imported; Python keeps what it
# compiles for those that are.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	    "gmmedu needs Python 3.10 or newer, and this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[$*]"
	@touch $@

book: $(VENV)/.installed-book ## execute the notebooks and build the book, strictly
	$(BIN)/jupyter-book build . -n -W --keep-going
	@echo
	@echo "The book is at _build/html/index.html; read it with: make serve"

test: $(VENV)/.installed-test ## every check: units, notebooks, style, types, the built pages in a browser
	$(BIN)/python tests/chromium.py
	$(BIN)/python $(RUNS) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-test ## in a minute: of each test two cases; no browser, no notebooks, nothing slow
	$(BIN)/python $(RUNS) -m "not browser and not slow" --few 2 tests $(PYTEST_ARGS)

coverage: $(VENV)/.installed-test ## which lines of the engine its own tests and the proofs run
	$(BIN)/coverage erase
	$(BIN)/coverage run $(RUNS) tests/engine tests/equations $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lab: $(VENV)/.installed-lab ## JupyterLab on the notebooks
	$(BIN)/jupyter lab book

serve: ## serve the built book on this machine
	@test -f _build/html/index.html || $(MAKE) book
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

pdf: $(VENV)/.installed-pdf book ## the book as one PDF, printed by a browser
	$(BIN)/python tests/chromium.py
	$(BIN)/python book/_ext/print_book.py

zip: $(VENV)/.installed-zip ## the notebooks and their data, for a machine without a network
	$(BIN)/python book/_ext/zip_book.py

slides: $(VENV)/.installed-slides book ## slides of the chapters, with speaker's notes, to be shown without a network
	$(BIN)/python book/_ext/slides.py

handout: $(VENV)/.installed-book ## the notebooks without the solutions of their exercises
	$(BIN)/python book/_ext/handout.py

# The peers whose pins clash with those of the project.
$(PEERS)/.installed: benchmarks/peers.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and \
	    "the peers need Python 3.11 or 3.12, and this is %d.%d; try make bench PYTHON=python3.12" % sys.version_info[:2])'
	$(PEERS)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

bench: $(VENV)/.installed-bench $(PEERS)/.installed ## time gmmedu beside its peers
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# CUDA's own packages are left out: torch names the ones it needs, and a CPU build needs none.
lock: ## renew constraints.txt (needs uv)
	uv pip compile --quiet --upgrade pyproject.toml -o constraints.txt
	sed -i.bak -E '/^(cuda|nvidia|triton)[a-z0-9-]*==/d' constraints.txt
	rm constraints.txt.bak

pictures: $(VENV)/.installed-book ## draw the pictures that are no notebook's again
	$(BIN)/python book/_ext/draw_pictures.py

faces: ## cut the faces of the site again (needs uv)
	uv run --quiet --no-project book/_ext/make_faces.py

clean: ## remove what was built
	rm -rf _build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV) $(PEERS)
