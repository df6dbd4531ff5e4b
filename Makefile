# Everything happens in .venv, which the targets create and fill with what they need and no more.
# A stamp in .venv records each installed group of dependencies; it is renewed when the pins or the metadata change.

first = $(shell for p in $(1); do $$p -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(call first, python3.11 python3.13 python3.12 python3)
NEWEST ?= $(call first, python3.13 python3.12)
WORKERS ?= 2
# JAX has two ends: from 0.11 on it needs Python 3.12.
PINS := $(if $(findstring 3.11,$(shell $(PYTHON) --version 2>&1)),constraints.txt,constraints-newest.txt)
VENV := .venv
BIN := $(VENV)/bin
FRAMEWORKS := .venv-frameworks
END := .venv-newest
# What may depend on the release of JAX: its internals, and what all methods are held to.
# Where the shapes that annotations promise are checked at run time with every change.
ANNOTATED := tests/test_domains.py tests/test_reference.py tests/test_stream.py tests/test_grad.py \
	tests/test_over_tasks.py
ENDS := tests/programs tests/test_agreement.py tests/test_oracles.py tests/test_conformance.py

.PHONY: help demo test test-newest test-frameworks soak lint format types docs look bench clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo  ## race hypergradients against random search and TPE, from nothing
	$(BIN)/rfho run races

test: $(VENV)/.installed-test  ## run the whole test suite (WORKERS=2 processes)
	$(BIN)/python -m pytest -n $(WORKERS) --durations=10
	RFHO_ANNOTATIONS=1 $(BIN)/python -m pytest -n $(WORKERS) --hypothesis-profile=few $(ANNOTATED)

test-newest: $(END)/.installed  ## run the tests that depend on the release of JAX with the newest Python there is
	RFHO_ANNOTATIONS=1 $(END)/bin/python -m pytest -n $(WORKERS) --durations=10 $(ENDS)

test-frameworks: $(FRAMEWORKS)/.installed  ## run the tests that need frameworks and trackers, in an environment of their own
	$(FRAMEWORKS)/bin/python -m pytest -n $(WORKERS) --durations=10 tests/frameworks \
		tests/test_tracking.py tests/test_pages.py
	$(FRAMEWORKS)/bin/python -m pytest -n $(WORKERS) -m soak tests/frameworks tests/test_pages.py

soak: $(VENV)/.installed-test  ## run the long versions of the tests of endurance
	RFHO_ANNOTATIONS=1 $(BIN)/python -m pytest -n $(WORKERS) -m soak --durations=10

lint: $(VENV)/.installed-dev  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev $(VENV)/.installed-test  ## check the types of src/
	$(BIN)/pyright src

docs: $(VENV)/.installed-docs  ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -E -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check_site.py docs/_build/html

look: docs $(VENV)/.installed-look  ## look at every page in a browser, and ask the site what newcomers ask
	$(BIN)/python docs/ask.py docs/_build/html
	$(BIN)/python docs/look.py docs/_build/html docs/_build/pictures

bench: $(VENV)/.installed-test  ## time and weigh every method against plain training
	$(BIN)/python -m benchmarks

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(FRAMEWORKS) $(END) build dist docs/_build docs/reference/generated \
		.pytest_cache .ruff_cache .hypothesis .jupyter_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml $(PINS) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint $(PINS) 'pip>=25.1'
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		--constraint $(PINS) --editable . --group $*
	@touch $@

$(FRAMEWORKS)/.installed: pyproject.toml constraints-frameworks.txt
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --disable-pip-version-check --quiet \
		--constraint constraints-frameworks.txt 'pip>=25.1'
	$(FRAMEWORKS)/bin/python -m pip install --disable-pip-version-check --quiet \
		--constraint constraints-frameworks.txt --editable . --group test-frameworks
	@touch $@

$(END)/.installed: pyproject.toml constraints-newest.txt
	@test -n "$(NEWEST)" || { echo "the newest JAX needs Python 3.12 or 3.13, and neither is there" >&2; exit 1; }
	$(NEWEST) -m venv $(END)
	$(END)/bin/python -m pip install --disable-pip-version-check --quiet \
		--constraint constraints-newest.txt 'pip>=25.1'
	$(END)/bin/python -m pip install --disable-pip-version-check --quiet \
		--constraint constraints-newest.txt --editable . --group test
	@touch $@
