PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test faults check docs audit clean

run: .venv/ready
	$(BIN)/align run

# Five files at a time, each with a thread: much of a test waits for other processes.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 5

# Every fault that `make test` tries a part of: minutes. SEED=N repeats what failed at random.
faults: .venv/ready
	FAULTS=all OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/test_outages.py tests/test_moments.py

docs: .venv/ready
	$(BIN)/python -m docs.generate

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities in the pinned versions; what could not be looked up is a failure too. Needs the network.
audit: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r constraints.txt

clean:
	rm -rf .venv .align build *.egg-info

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
