# `make book` and `make test` need Python 3.10 or newer and make; they set up everything else in .venv.
# Another interpreter: make book PYTHON=python3.12

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

.PHONY: help book test lab serve bench lock pictures clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

# A stamp, so that a second call costs nothing and a changed pin installs again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	    "gmmedu needs Python 3.10 or newer, and this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test,lab]"
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@touch $@

book: $(VENV)/.installed ## execute the notebooks and build the book, strictly
	$(BIN)/jupyter-book build . -n -W --keep-going
	@echo
	@echo "The book is at _build/html/index.html; read it with: make serve"

test: $(VENV)/.installed ## every check: units, notebooks, style, types, the built pages in a browser
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lab: $(VENV)/.installed ## JupyterLab on the notebooks
	$(BIN)/jupyter lab book

serve: ## serve the built book on this machine
	@test -f _build/html/index.html || $(MAKE) book
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

# The peers whose pins clash with those of the project.
$(PEERS)/.installed: benchmarks/peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

bench: $(VENV)/.installed-bench $(PEERS)/.installed ## time gmmedu beside its peers
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# CUDA's own packages are left out: torch names the ones it needs, and a CPU build needs none.
lock: ## renew constraints.txt (needs uv)
	uv pip compile --quiet --upgrade pyproject.toml -o constraints.txt
	sed -i.bak -E '/^(cuda|nvidia|triton)[a-z0-9-]*==/d' constraints.txt
	rm constraints.txt.bak

pictures: $(VENV)/.installed ## draw the pictures of the README and of shared links again
	$(BIN)/python book/_ext/draw_pictures.py

clean: ## remove what was built
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV) $(PEERS)
