# One environment, made once from the pinned versions; every target below uses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint docs clean

demo: $(READY)  ## Measure this machine, build a table, adapt MobileNetV1 to it; results in runs/demo.
	$(BIN)/netadapt demo --out runs/demo

# Most tests wait for another process, so three files at a time.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile

test: $(READY)  ## Tests that need no phone, GPU or network, but for the slow ones.
	$(PYTEST) -m "not slow"

# In the order of their names: by default the files of few tests come last, and they are the long ones here.
test-slow: $(READY)  ## Those that kill, fill disks and adapt whole networks.
	$(PYTEST) --no-loadscope-reorder -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)  ## The documentation as web pages in site/, with every link checked.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,dev,docs]"
	touch $(READY)

clean:
	rm -rf $(VENV) runs site
