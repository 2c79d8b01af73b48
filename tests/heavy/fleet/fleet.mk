# `make fleet-test`: the playbooks on five hosts with systemd and sshd, made for it and taken down again. Needs root and
# about an hour on two cores; docs/how-to/roll-out.md says what the playbooks do.
#   FLEET_LAB       makes the hosts: a command with the verbs that tests/heavy/fleet/hosts.py names, and `down`
#   BASE_IMAGE      loads a base image for the container method into an engine and prints its name
#   FLEET_ASSETS    where kits, bundles and the image are kept; delete it to have them made again
#   FLEET_FLAGS     more flags for pytest
FLEET_LAB ?= ../shared/lab/fleet
BASE_IMAGE ?= ../shared/lab/base-image -e docker
FLEET_ASSETS ?= .cache/fleet-assets
FLEET_FLAGS ?=
FLEET_TESTS := tests/heavy/fleet
# Of packaging/offline/kit.mk and ansible/ansible.mk, whichever is read first.
BINARY ?= .cache/binary
ANSIBLE ?= .cache/ansible

.PHONY: fleet-test fleet-assets

fleet-assets: $(FLEET_ASSETS)/image.tar.gz

$(FLEET_ASSETS)/.done: $(VENV)/.dev $(BINARY)/out/sbom.cdx.json $(FLEET_TESTS)/assets.py
	@sh $(FLEET_TESTS)/system-packages.sh
	@rm -rf $(FLEET_ASSETS)
	$(BIN)/python $(FLEET_TESTS)/assets.py $(FLEET_ASSETS) --binary $(BINARY)/out
	@touch $@

$(FLEET_ASSETS)/image.tar.gz: $(FLEET_ASSETS)/.done
	sh $(FLEET_TESTS)/image.sh $(FLEET_ASSETS) $(BASE_IMAGE) > $(FLEET_ASSETS)/image.log 2>&1 || \
	  { tail -n 30 $(FLEET_ASSETS)/image.log; exit 1; }

# The hosts are taken down whatever the tests found.
fleet-test: fleet-assets $(ANSIBLE)/collections/.done
	@FLEET_PACKAGES=docker.io,podman,iptables $(FLEET_LAB) up 5 > /dev/null
	@status=0; FLEET="$(abspath $(FLEET_LAB))" ASSETS="$(abspath $(FLEET_ASSETS))" $(BIN)/python -m pytest --timeout=1800 -rA \
	  --show-capture=no -o pythonpath=$(FLEET_TESTS) $(FLEET_FLAGS) $(FLEET_TESTS) || status=$$?; \
	  $(FLEET_LAB) down; exit $$status
