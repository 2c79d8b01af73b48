# `make attack`: what was tried on the appliance to make it answer wrongly, lose rows, lend rights or take a host's memory.
# Loopback alone, bounded in count and time; some 40 minutes on two cores, of which the fuzzer takes most. docs/security.md
# says what is checked where.
#   RUNS=100000     bodies that the fuzzer gives each decoder (default 1,000,000)
#   FUZZ_SECONDS=600  for each decoder at most
#   ATTACK_FLAGS    more flags for pytest
RUNS ?= 1000000
FUZZ_SECONDS ?= 600
ATTACK := tests/heavy/attack
ATTACK_FLAGS ?=

.PHONY: attack attack-cases fuzz

attack: attack-cases fuzz

# Under the limits of a container (128 MiB, by cgroup) and of RLIMIT_DATA; needs root or a delegated cgroup.
attack-cases: $(VENV)/.dev $(VENV)/.system
	$(BIN)/python -m pytest -rA --show-capture=no --timeout=300 -o pythonpath="$(ATTACK) ." $(ATTACK_FLAGS) $(ATTACK) \
	  tests/appliance/bundle/test_hostile.py

# libFuzzer, by atheris where it has a wheel for this Python; the decoders' own property tests (Hypothesis) run in `make test`.
fuzz: .cache/attack/.done
	PYTHONPATH=.cache/attack:. $(BIN)/python $(ATTACK)/fuzz.py --runs $(RUNS) --seconds $(FUZZ_SECONDS)

.cache/attack/.done: $(VENV)/.dev requirements/attack.txt
	@$(BIN)/python -m pip install --quiet --require-hashes --only-binary=:all: --target .cache/attack -r requirements/attack.txt
	@touch $@
