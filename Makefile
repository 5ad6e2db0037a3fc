# The commands of everyday work. `make help` lists them.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup retrain test fast check pictures format clean

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install everything

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

retrain: setup  ## train, judge and promote a model on generated images, on the embedded default
	$(BIN)/ratchet retrain experiment=generic/shapes/segmentation/smp \
		backbone.model.encoder_name=resnet18,mobilenet_v2 --model shapes_model

test: setup  ## all tests
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fast: setup  ## the tests that need neither training nor a server nor much time
	$(BIN)/python -m pytest -n 2 -m "not trains and not server and not flow and not postgres and not slow and not pets and not browser" --durations=5

pictures: setup  ## take pictures of the pages, light and dark, into docs/images, with Chromium
	$(BIN)/python -m pytest tests/test_pages.py -m browser --pictures docs/images

check: setup  ## lint, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and what tools left behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
