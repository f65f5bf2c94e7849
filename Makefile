# The stages in order. `make all` replicates at the default profile; `make test` runs the tests. Both set up first.
PYTHON  ?= python3
PROFILE ?= smoke
ARGS    ?=
VENV    := .venv
READY   := $(VENV)/.installed
RUN     := $(VENV)/bin/replicate

.PHONY: all test setup plan figures check lint bench clean
all: $(READY)            ## replicate everything at PROFILE (default: smoke)
	@$(RUN) all --profile $(PROFILE) $(ARGS)
test: $(READY)           ## all tests
	@$(VENV)/bin/python -m pytest -q $(ARGS)
setup: $(READY)          ## virtual environment with the pinned versions
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.lock $(PIP_ARGS)
	$(VENV)/bin/pip install --quiet --no-deps --editable .
	@touch $@
plan: $(READY)           ## what `make all` would do, and why
	@$(RUN) plan --profile $(PROFILE) $(ARGS)
figures: $(READY)        ## tables, figures and reports from the committed records alone
	@$(RUN) figures --results results $(ARGS)
check: $(READY)          ## compare results with their reference
	@$(RUN) check --profile $(PROFILE) --against golden $(ARGS)
lint: $(READY)           ## style
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
bench: $(READY)          ## measured ratios
	@$(VENV)/bin/python -m benchmarks.reader
	@$(VENV)/bin/python -m benchmarks.evaluate
	@$(VENV)/bin/python -m benchmarks.train
clean:                   ## remove runs and caches; results/ and .venv stay
	rm -rf runs build *.egg-info .pytest_cache .ruff_cache .hypothesis
