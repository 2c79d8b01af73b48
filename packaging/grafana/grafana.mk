# What Prometheus and Grafana read: docs/how-to/monitor.md. `make test` tries the rules with promtool; this compiles the
# dashboard against Grafana's own types (npm: @grafana/schema).
GRAFANA := .cache/grafana

.PHONY: grafana-check

grafana-check: $(GRAFANA)/.done
	PATH="$(CURDIR)/$(GRAFANA)/venv/bin:$$PATH" node $(GRAFANA)/check.mjs packaging/grafana/dashboard.json

# At the versions and digests of package-lock.json; node and npm come from PyPI.
$(GRAFANA)/.done: $(wildcard packaging/grafana/types/*) packaging/release/actionlint/requirements.txt
	@mkdir -p $(GRAFANA)
	$(PYTHON) -m venv $(GRAFANA)/venv
	$(GRAFANA)/venv/bin/python -m pip install --quiet --require-hashes -r packaging/release/actionlint/requirements.txt
	cp packaging/grafana/types/* $(GRAFANA)/
	PATH="$(CURDIR)/$(GRAFANA)/venv/bin:$$PATH" npm ci --prefix $(GRAFANA) --ignore-scripts --no-audit --no-fund
	@touch $@
