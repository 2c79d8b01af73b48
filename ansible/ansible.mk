# The fleet's tools: an environment for the controller, the collection, and its lints. docs/how-to/roll-out.md tells more.
# Works by itself too: make -f ansible/ansible.mk collection
PYTHON ?= python3
ANSIBLE := .cache/ansible
ANSIBLE_BIN := $(ANSIBLE)/venv/bin
ANSIBLE_VERSION := $(shell sed -n 's/^version: *//p' ansible/galaxy.yml)
ANSIBLE_ENVIRONMENT := PATH="$(CURDIR)/$(ANSIBLE_BIN):$$PATH" ANSIBLE_HOME="$(CURDIR)/$(ANSIBLE)/home" \
  ANSIBLE_CONFIG="$(CURDIR)/ansible/ansible.cfg"

.PHONY: ansible-env collection ansible-lint ansible-docs rollout-test

ansible-env: $(ANSIBLE)/venv/.done

$(ANSIBLE)/venv/.done: requirements/ansible.txt
	@$(PYTHON) -m venv $(ANSIBLE)/venv
	@echo 'installing requirements/ansible.txt into $(ANSIBLE)/venv'
	@$(ANSIBLE_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/ansible.txt
	@touch $@

# Builds dist/inference-appliance-VERSION.tar.gz and installs it where ansible/ansible.cfg looks; no network is asked.
collection: $(ANSIBLE)/collections/.done

$(ANSIBLE)/collections/.done: $(ANSIBLE)/venv/.done $(shell find ansible -type f ! -name '*.pyc' ! -name '.*')
	@mkdir -p dist $(ANSIBLE)/collections
	$(ANSIBLE_ENVIRONMENT) ansible-galaxy collection build ansible --output-path dist --force
	@rm -rf $(ANSIBLE)/collections/ansible_collections
	$(ANSIBLE_ENVIRONMENT) ansible-galaxy collection install dist/inference-appliance-$(ANSIBLE_VERSION).tar.gz \
	  --offline --no-deps --force -p $(ANSIBLE)/collections
	@touch $@

# Profile production without exceptions (ansible/.ansible-lint), and yamllint.
ansible-lint: $(ANSIBLE)/collections/.done
	cd ansible && $(ANSIBLE_ENVIRONMENT) ansible-lint --offline --profile production --strict
	cd ansible && $(ANSIBLE_ENVIRONMENT) yamllint --strict .

# What every variable means, from the roles themselves; a test compares.
ansible-docs: $(ANSIBLE)/venv/.done
	$(ANSIBLE_BIN)/python ansible/variables.py > docs/ansible-variables.md

# rollout.yml over folders of this machine with real services; `make fleet-test` has real hosts.
rollout-test: $(VENV)/.dev $(ANSIBLE)/collections/.done
	$(BIN)/python -m pytest -rA --show-capture=no tests/ansible/heavy
