# The Python distribution: an sdist, and the wheel that is made from it alone.
#   make wheel         both, in dist/wheel, the same bytes for the same commit, checked by twine
#   make wheel-twice   makes them again from a copy of the tree and compares
#   make wheel-test    installs both into bare environments: base, each extra, all (EXTRAS="parquet cbor": these alone)
#   make wheel-push    to PyPI, as the workflow release.yml (trusted publishing); elsewhere twine asks for a token
WHEEL := .cache/wheel
WHEEL_OUT := dist/wheel
#   make upgrade-test OLD=COMMIT   that commit's program and this one take turns on the same state folder
EXTRAS ?=
OLD ?=

.PHONY: wheel wheel-twice wheel-test wheel-push upgrade-test

wheel: $(WHEEL)/.done
	@rm -rf $(WHEEL_OUT)
	$(WHEEL)/bin/python packaging/release/wheel.py $(WHEEL_OUT)
	$(WHEEL)/bin/python -m twine check --strict $(WHEEL_OUT)/*

$(WHEEL)/.done: packaging/release/wheel.txt
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --require-hashes -r packaging/release/wheel.txt
	@touch $@

# Another place, other dates and modes of the files, another umask: none of them is in the archives.
wheel-twice: wheel
	@rm -rf $(WHEEL)/again && mkdir -p $(WHEEL)/again/tree
	(umask 077 && tar -cf - --exclude=__pycache__ appliance convert docs examples packaging/release pyproject.toml \
	  MANIFEST.in README.md LICENSE CHANGELOG.md | tar -xmf - --no-same-permissions -C $(WHEEL)/again/tree)
	umask 077 && SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
	  $(WHEEL)/bin/python $(WHEEL)/again/tree/packaging/release/wheel.py $(WHEEL)/again/out
	cd $(WHEEL)/again/out && for file in *; do cmp $$file $(CURDIR)/$(WHEEL_OUT)/$$file || exit 1; done
	@rm -rf $(WHEEL)/again

# Large, and from the network: several gigabytes of libraries pass through pip.
wheel-test: wheel $(VENV)/.dev
	WHEEL="$(WHEEL_OUT)" EXTRAS="$(EXTRAS)" $(BIN)/python -m pytest -o pythonpath=tests/heavy --timeout=3600 -rA tests/heavy/test_wheel.py

# What it finds in dist/wheel, so that a workflow publishes what was tested.
wheel-push: $(WHEEL)/.done
	$(WHEEL)/bin/python -m twine upload --non-interactive --skip-existing $(WHEEL_OUT)/*

upgrade-test: $(VENV)/.dev
	@test -n "$(OLD)" || { echo 'upgrade-test: name OLD, the commit or tag of the older version' >&2; exit 2; }
	OLD="$(OLD)" $(BIN)/python -m pytest -o pythonpath=. --timeout=900 -rA tests/heavy/test_upgrade.py
