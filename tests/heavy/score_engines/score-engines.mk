# `make score-engines-test`: whole files scored on a Ray cluster of several node processes, and the recipes for Spark and
# Dask, in an environment of their own (500 MB). Spark needs Java: `apt-get install openjdk-17-jre-headless`.
SCORE_ENGINES := .cache/score-engines

.PHONY: score-engines-test

score-engines-test: $(VENV)/.dev $(SCORE_ENGINES)/.done
	SCORE_ENGINES="$(SCORE_ENGINES)" $(BIN)/python -m pytest -rA --show-capture=no --timeout=600 tests/heavy/score_engines

$(SCORE_ENGINES)/.done: requirements/score-engines.txt pyproject.toml
	$(PYTHON) -m venv $(SCORE_ENGINES)
	$(SCORE_ENGINES)/bin/python -m pip install --quiet --require-hashes -r requirements/score-engines.txt
	$(SCORE_ENGINES)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@
