PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check docs clean

run: .venv/ready
	$(BIN)/align run

test: .venv/ready
	$(BIN)/python -m pytest

docs: .venv/ready
	$(BIN)/python -m docs.generate

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .align build *.egg-info

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
