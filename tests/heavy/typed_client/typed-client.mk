# `make typed-client`: a client generated from /openapi.json by openapi-python-client, in an environment of its own (its
# typer is older than what others need), asks a real service.
TYPED_CLIENT := .cache/typed-client

.PHONY: typed-client

typed-client: $(VENV)/.dev $(TYPED_CLIENT)/.done
	TYPED_CLIENT="$(TYPED_CLIENT)" $(BIN)/python -m pytest -rA --timeout=300 tests/heavy/typed_client

$(TYPED_CLIENT)/.done: requirements/typed-client.txt
	$(PYTHON) -m venv $(TYPED_CLIENT)
	$(TYPED_CLIENT)/bin/python -m pip install --quiet --require-hashes -r requirements/typed-client.txt
	@touch $@
