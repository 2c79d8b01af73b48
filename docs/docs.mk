# The documentation site, in dist/docs: search, navigation and pictures of the dashboard, opened from a file as well.
DOCS := .cache/docs

.PHONY: docs pictures settings-docs

docs: $(DOCS)/.done pictures
	$(DOCS)/bin/mkdocs build --strict --quiet
	$(BIN)/python -m pytest -o pythonpath=tests/heavy tests/heavy/test_docs_site.py

$(DOCS)/.done: requirements/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

# Pictures of the dashboard and of the fleet's page, in docs/pictures, which are not committed: by the tests that take them.
pictures: $(VENV)/.dev $(VENV)/.system
	rm -rf docs/pictures
	PICTURES="$(CURDIR)/docs/pictures" $(BIN)/python -m pytest tests/appliance/rest/test_dashboard.py \
	  tests/ansible/test_fleet_page.py -k 'day_of_a_plant or from_the_page or accessible_and_fits'

# The tables of docs/configuration.md, from appliance/config/.
settings-docs: $(VENV)/.dev
	$(BIN)/python docs/settings.py
