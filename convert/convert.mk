# Conversion with the oldest scikit-learn that is supported, pyproject.toml's lower bound; everything else as it comes.
# With the newest: make convert-newest (packaging/release/release.mk).
OLDEST := .cache/convert-oldest
OLDEST_SCIKIT_LEARN := 1.5.*
# docs/coverage.md, which these compare with, is of the newest scikit-learn's estimators.
NEWEST_ONLY := $(addprefix --deselect tests/convert/test_lint.py::test_lint_refuses_, \
  nothing_that_the_coverage_page_has_as_exact by_name_every_estimator_that_the_coverage_page_refuses) \
  --ignore tests/convert/test_coverage.py
CONVERT_TESTS := 'catboost>=1.2' 'lightgbm>=4.0' 'xgboost-cpu>=2.1' 'hypothesis>=6.100' 'pytest>=8.3' 'pytest-timeout>=2.3'

.PHONY: convert-oldest

convert-oldest: $(OLDEST)/.done
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider --timeout 600 tests/convert $(NEWEST_ONLY)

# scikit-learn 1.5 reads polars through an interchange that polars 2 has dropped.
$(OLDEST)/.done: pyproject.toml convert/convert.mk
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet 'scikit-learn==$(OLDEST_SCIKIT_LEARN)' 'polars>=1.0,<2' $(CONVERT_TESTS) \
	  --editable '.[convert]'
	@touch $@

# What a conversion takes, and what the graphs cost on a device beside plain skl2onnx's.
.PHONY: bench-convert
bench-convert: $(VENV)/.dev
	$(BIN)/python -W ignore -m benchmarks.convert
