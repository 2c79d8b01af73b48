# Everything a person runs: `make run` and `make test` set up what they need on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE ?= .cache/run
HOST ?= 127.0.0.1
PORT ?= 8080

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test sources-test lint audit bench bench-drift bench-mqtt bench-log bench-tls coverage lock clean help

help:
	@echo 'make run    train, convert with proof, install, activate and serve the iris model: HTTP on $(HOST):$(PORT), MQTT'
	@echo 'make test   set up and pass every test (RANDOM_ORDER=SEED: in a random order)'
	@echo 'make sources-test  fetch from a real MLflow server, DVC repository, S3 and SageMaker (own environment)'
	@echo 'make lint   ruff and mypy --strict'
	@echo 'make audit  ask for known vulnerabilities of what the device installs (needs pypi.org)'
	@echo 'make attack what was tried against the appliance, under limits of memory, and a fuzzer over every decoder'
	@echo 'make typed-client  a client generated from /openapi.json, in an environment of its own'
	@echo 'make grafana-check  compile the Grafana dashboard against the types of Grafana'
	@echo 'make bench  speed, memory and size against references (PEERS=1: also against mlserver and kserve)'
	@echo 'make bench-log  the prediction log: a million rows written, verified and replayed, and its memory'
	@echo 'make bench-drift  false alarms and detection of drift (YEARS=10: of ten years; PEERS=1: also Evidently, NannyML)'
	@echo 'make bench-mqtt  the same of MQTT (MINUTES=10: also whether memory stays flat)'
	@echo 'make bench-tls  what TLS on the port costs beside a plain port'
	@echo 'make docs   the documentation site in dist/docs, which opens from a file too'
	@echo 'make pictures  PNGs of the dashboard in docs/pictures, as the pages show them'
	@echo 'make settings-docs  the tables of docs/configuration.md, from appliance/config/'
	@echo 'make bench-score  whole files beside bare inference (PEERS=1: also MLflow, MLServer, Ray Data, Spark; ROWS=N)'
	@echo 'make score-coverage-test  score answers as /predict for every model of docs/coverage.md: about an hour'
	@echo 'make coverage  try every estimator and write docs/coverage.md, beside plain skl2onnx'
	@echo 'make images container images for amd64 and arm64 in dist/images; make images-test runs them'
	@echo 'make wheel  the sdist and the wheel, in dist/wheel; make wheel-test installs them and every extra'
	@echo 'make kit    the offline kit for hosts without Python and internet, in dist; make deb the Debian package; make man the manual page'
	@echo 'make collection  the Ansible collection; make ansible-lint; make fleet-test rolls it out to hosts of systemd-nspawn'
	@echo 'make lock   choose the dependencies again and write their hashes'

run: $(VENV)/.run
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/iris/run.py "$(STATE)" --host "$(HOST)" --port "$(PORT)"

# Three tests at once for two processors, since many wait for a broker or a service; WORKERS=0 runs one after another.
WORKERS ?= $(shell echo $$(($$(nproc) * 3 / 2)))

# RANDOM_ORDER=SEED runs them in another order, which must not matter; the same seed gives the same order.
RANDOMLY := -p randomly --randomly-dont-reset-seed --randomly-seed

test: $(VENV)/.dev $(VENV)/.system
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(if $(RANDOM_ORDER),$(RANDOMLY)=$(RANDOM_ORDER))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Asks the Python Package Index for advisories; a package that it does not know fails too: then nothing was asked.
audit: .cache/audit/.done
	.cache/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/shipped.txt
	.cache/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/convert.txt

.cache/audit/.done: requirements/audit.txt
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/python -m pip install --quiet --require-hashes -r requirements/audit.txt
	@touch $@

bench: $(VENV)/.dev $(VENV)/.system
	$(BIN)/python -m benchmarks.rest $(if $(PEERS),--peers)

bench-log: $(VENV)/.dev
	$(BIN)/python -m benchmarks.prediction_log

bench-tls: $(VENV)/.dev
	$(BIN)/python -m benchmarks.tls

bench-drift: $(VENV)/.dev
	$(BIN)/python -m benchmarks.drift $(if $(YEARS),--years $(YEARS)) $(if $(PEERS),--peers)

bench-mqtt: $(VENV)/.dev $(VENV)/.system
	$(BIN)/python -m benchmarks.mqtt $(if $(MINUTES),--minutes $(MINUTES))

coverage: $(VENV)/.dev
	$(BIN)/python -W ignore -m benchmarks.coverage

# A stamp says which lock file its environment was made from; bytecode is compiled so that the first start is quick.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/convert.txt requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo 'installing requirements/convert.txt and run.txt into $(VENV)'
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/convert.txt -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo 'installing requirements/dev.txt into $(VENV)'
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

SOURCES := .cache/sources

sources-test: $(SOURCES)/.done
	$(SOURCES)/bin/python -m pytest --timeout 300 tests/convert/sources/registries

$(SOURCES)/.done: requirements/sources.txt pyproject.toml
	$(PYTHON) -m venv $(SOURCES)
	$(SOURCES)/bin/python -m pip install --quiet --require-hashes -r requirements/sources.txt
	$(SOURCES)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

# The tests drive a real browser and the benchmarks a real load generator.
$(VENV)/.system: tests/system-packages.sh | $(VENV)/bin/python
	sh tests/system-packages.sh
	@touch $@

lock:
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet uv
	sh requirements/lock.sh .cache/lock/bin/uv

# What operations people receive: images and the rest; the fleet's tools; conversion with other scikit-learns.
include $(wildcard packaging/*/*.mk docs/*.mk ansible/*.mk convert/*.mk tests/heavy/*/*.mk)

clean:
	rm -rf $(VENV) .cache build dist *.egg-info
