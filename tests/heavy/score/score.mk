# The answers of `appliance score` for every model of docs/coverage.md: each is trained, converted and proved, for an hour.
.PHONY: score-coverage-test bench-score

score-coverage-test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --timeout 900 tests/heavy/score

bench-score: $(VENV)/.dev
	$(BIN)/python -m benchmarks.score $(if $(PEERS),--peers) $(if $(ROWS),--rows $(ROWS))
