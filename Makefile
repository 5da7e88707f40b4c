# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BUDGET ?= quick  # of the notebooks' runs in `make docs`: smoke takes seconds for each, quick minutes

.PHONY: demo test test-oldest coverage lab studio docs lint format clean

demo: $(READY)
	mkdir -p results
	$(BIN)/nstlab transfer coffee swirl_strokes --out results/demo.png --frames 16
	@echo "Open results/demo.png (the picture) and results/demo.gif (how it emerged)."

test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist worksteal  # two cores are kept busy: some tests wait for browsers and servers

# With the oldest releases that pyproject.toml allows; the newer packages that they bring along warn of them.
test-oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet uv
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest/bin/python --resolution lowest-direct --editable '.[test]'
	$(VENV)-oldest/bin/python -m pytest -n 3 --dist worksteal -W default

# Branches that no test takes; processes that tests start are not seen.
coverage: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[coverage]'
	$(BIN)/python -m pytest -n 3 --dist worksteal --cov

lab: $(READY)
	$(BIN)/jupyter lab notebooks

studio: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[voila]'
	$(BIN)/jupyter server --config=notebooks/studio_config.py notebooks

docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/nstlab notebooks run --budget $(BUDGET)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo "Open results/docs/index.html."

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	find notebooks -name '*.ipynb' -exec $(BIN)/nbstripout --verify {} +

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Reinstalled only when one of these files changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(READY)

clean:
	rm -rf $(VENV) $(VENV)-oldest .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
