# One command per wish. Needs Python >= 3.10 (with venv) and make; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
VENV_MONAILABEL ?= .venv-monailabel
BIN_MONAILABEL := $(VENV_MONAILABEL)/bin
VENV_TOOLS ?= .venv-tools

.PHONY: help demo reproduce package test test-monailabel check docs nightly format clean tools

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements-export.txt requirements-backends.txt requirements-docs.txt requirements-clinic.txt \
		requirements-pretrained.txt $(VENV)/.runtime
	$(BIN)/pip install --disable-pip-version-check -q -r requirements-dev.txt
	touch $@

$(VENV_MONAILABEL)/.server: requirements-monailabel.txt
	$(PYTHON) -m venv $(VENV_MONAILABEL)
	$(BIN_MONAILABEL)/pip install --disable-pip-version-check -q $$(grep ^torch== $<)
	$(BIN_MONAILABEL)/pip install --disable-pip-version-check -q --no-deps -r $<
	touch $@

$(VENV_MONAILABEL)/.dev: requirements-dev.txt $(VENV_MONAILABEL)/.server
	$(BIN_MONAILABEL)/pip install --disable-pip-version-check -q $$(grep ^pytest $<)
	touch $@

$(VENV)/.extras: requirements-tracking.txt requirements-hub.txt requirements-ray.txt $(VENV)/.dev
	$(BIN)/pip install --disable-pip-version-check -q -r requirements-tracking.txt -r requirements-hub.txt \
		-r requirements-ray.txt
	touch $@

demo: $(VENV)/.runtime  ## the whole chain on a SYNTHETIC phantom, from nothing, in minutes on a laptop
	$(BIN)/python scripts/reproduce.py --output_dir runs/demo
	@echo
	@echo "SYNTHETIC phantom, not for clinical use. Look at:"
	@ls -1 runs/demo/report.html runs/demo/*/curves.png

reproduce: $(VENV)/.runtime  ## the whole chain on a real dataset: make reproduce DATA=/path/to/Dataset_BUSI_with_GT
	@test -n "$(DATA)" || { echo "make reproduce DATA=/path/to/dataset"; exit 2; }
	$(BIN)/python scripts/reproduce.py --dataset_dir "$(DATA)" --ours --paper --small --oracle

test: $(VENV)/.dev  ## run the tests, and tell which were slowest
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

test-monailabel: $(VENV_MONAILABEL)/.dev  ## both apps against a real MONAI Label server, in an environment of its own
	$(BIN_MONAILABEL)/python -m pytest tests/monailabel -m "monailabel and not slow"

check: $(VENV)/.dev  ## style, types, layers, configs, pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/check_config.py configs/*.json configs/*.yaml
	$(BIN)/python scripts/write_docs.py --check

docs: $(VENV)/.dev  ## the site, from docs/ into site/; a link that leads nowhere ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Look at it: $(BIN)/python -m http.server --directory site --bind 127.0.0.1"

package: $(VENV)/.dev  ## the zip that a model zoo hosts, tried in a new environment made from its own pins
	$(BIN)/python scripts/package.py --fresh-environment

$(VENV_TOOLS)/.tools: requirements-tools.txt
	$(PYTHON) -m venv $(VENV_TOOLS)
	$(VENV_TOOLS)/bin/pip install --disable-pip-version-check -q -r $<
	touch $@

tools: $(VENV_TOOLS)/.tools $(VENV)/.dev  ## what viewers and archives make of our objects: runs them, records the table
	TOOLS_PYTHON=$(VENV_TOOLS)/bin/python TOOLS_RECORD=docs/results/tools.json \
		$(BIN)/python -m pytest tests/outputs/test_other_tools.py -m slow
	$(BIN)/python scripts/write_docs.py

nightly: $(VENV)/.extras $(VENV_TOOLS)/.tools  ## the slow tests: kill and damage drills (an hour), real data where BUSI_DIR names it
	$(BIN)/python -m pytest -m slow

format: $(VENV)/.dev  ## let ruff mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, the site and the caches, never data or runs
	rm -rf site $(VENV) $(VENV_MONAILABEL) $(VENV_TOOLS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
