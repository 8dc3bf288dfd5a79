# One environment, made once from the pinned versions; every target below uses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)  ## Measure this machine, build a table, adapt MobileNetV1 to it; results in runs/demo.
	$(BIN)/netadapt demo --out runs/demo

test: $(READY)  ## Every test that needs no phone, GPU or network; most of them wait for others, so three files at a time.
	$(BIN)/python -m pytest -n 3 --dist loadfile

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) runs
