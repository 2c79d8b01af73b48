# The binary, the offline kit and what shows that they work: docs/offline-install.md.
#   KEY=FILE       private key that signs the kit
#   BUNDLES=...    bundles that travel in it
#   SITE=dist/docs the documentation site (make docs), to travel in it
#   ARCH=arm64     for another processor (amd64, arm64): needs `make old-root ARCH=...`, and an emulator (qemu-user 8 or newer)
BINARY ?= .cache/binary
KEY ?=
SITE ?=
BUNDLES ?=
MACHINE := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
ARCH ?= $(MACHINE)
FOREIGN := $(if $(filter-out $(MACHINE),$(ARCH)),-$(ARCH))
# Builds against an older C library where this machine can make such a root (Debian, as root): more systems run it.
OLD_ROOT ?= $(BINARY)/debian11$(FOREIGN)
BINARY_OUT := $(BINARY)/out$(FOREIGN)
KIT_TOOLS := .cache/kit-tools

.PHONY: old-root binary binary-test binary-start kit deb man kit-test kit-host-test

old-root:
	sh packaging/pyinstaller/old-root.sh $(OLD_ROOT) $(if $(FOREIGN),$(ARCH) $(BINARY)/debian11)

binary: $(BINARY_OUT)/sbom.cdx.json

# Built again when one of its inputs has changed.
$(BINARY_OUT)/sbom.cdx.json: $(shell find appliance packaging/pyinstaller -type f ! -name '*.pyc') \
  packaging/sbom/binary.py packaging/sbom/parts.py requirements/shipped.txt pyproject.toml
	@[ -z "$(FOREIGN)" ] || [ -e $(OLD_ROOT)/.complete ] || { echo "first: make old-root ARCH=$(ARCH)" >&2; exit 2; }
	ROOT="$(wildcard $(OLD_ROOT))" PYTHON="$(PYTHON)" sh packaging/pyinstaller/build.sh $(BINARY_OUT)
	@touch $@

# The device's lock is the only one: the binary is made from it, and so is what signs the kit and describes its bundles.
kit: $(KIT_TOOLS)/.done $(BINARY_OUT)/sbom.cdx.json
	KEY="$(KEY)" SITE="$(SITE)" PYTHONPATH="$(CURDIR)" APPLIANCE="$(abspath $(KIT_TOOLS))/bin/python -m appliance" \
	  APPLIANCE_PYTHON="$(abspath $(KIT_TOOLS))/bin/python" sh packaging/offline/kit.sh $(BINARY_OUT) dist $(BUNDLES)

$(KIT_TOOLS)/.done: requirements/device.txt
	$(PYTHON) -m venv $(KIT_TOOLS)
	$(KIT_TOOLS)/bin/python -m pip install --quiet --require-hashes -r requirements/device.txt
	@touch $@

# The Debian package of the same program.
deb: $(KIT_TOOLS)/.done $(BINARY_OUT)/sbom.cdx.json
	APPLIANCE_PYTHON="$(abspath $(KIT_TOOLS))/bin/python" sh packaging/debian/deb.sh $(BINARY_OUT) dist

# The manual page of all commands: man dist/appliance.1
man: $(VENV)/.dev
	@mkdir -p dist
	PYTHONPATH="$(CURDIR)" $(BIN)/python packaging/debian/man.py $(IMAGE_VERSION) > dist/appliance.1

# What is inside, that it answers as this machine does, that nothing leaves it. One for another processor is emulated, with
# the libraries of its old root.
BINARY_TESTS := tests/heavy/test_binary.py tests/heavy/test_binary_answers.py tests/heavy/test_debian_package.py \
  $(if $(FOREIGN),,tests/heavy/test_nothing_leaves.py)
binary-test: $(VENV)/.dev $(BINARY_OUT)/sbom.cdx.json
	sh tests/heavy/system-packages.sh
	BINARY="$(BINARY_OUT)" $(if $(FOREIGN),QEMU_LD_PREFIX="$(abspath $(OLD_ROOT))" QEMU_CPU=cortex-a72) \
	  $(BIN)/python -m pytest -o pythonpath=tests/heavy --timeout=900 $(BINARY_TESTS)

# Seconds from the start to the first prediction, beside the same from Python, with the iris model.
binary-start: $(VENV)/.dev $(BINARY_OUT)/sbom.cdx.json
	@rm -rf $(BINARY)/start && mkdir -p $(BINARY)/start
	@$(BIN)/python examples/iris/train.py $(BINARY)/start > /dev/null
	@cd $(BINARY)/start && $(abspath $(BIN))/appliance convert model.joblib --name iris --version 1.0.0 --sample sample.csv \
	  --target species > /dev/null 2>&1
	@APPLIANCE_STATE_DIR=$(BINARY)/start/state $(BIN)/appliance install $(BINARY)/start/iris-1.0.0.bundle > /dev/null
	@APPLIANCE_STATE_DIR=$(BINARY)/start/state $(BIN)/appliance activate iris 1.0.0 > /dev/null
	$(BIN)/python packaging/pyinstaller/start.py $(BINARY_OUT)/appliance/appliance $(BIN)/appliance $(BINARY)/start/state

# On a host with systemd, mosquitto and nothing else, which FLEET gives (see the test); as root. kit-host-test is that alone.
FLEET ?= fleet
kit-test: binary-test
	$(MAKE) kit-host-test
kit-host-test: $(VENV)/.dev $(BINARY_OUT)/sbom.cdx.json
	FLEET="$(FLEET)" BINARY="$(BINARY_OUT)" $(BIN)/python -m pytest --timeout=900 tests/heavy/test_offline_kit.py $(KIT_TEST_FLAGS)
