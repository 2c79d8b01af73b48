# The binary, the offline kit and what shows that they work: docs/offline-install.md.
#   KEY=FILE       private key that signs the kit
#   BUNDLES=...    bundles that travel in it
BINARY := .cache/binary
KEY ?=
BUNDLES ?=
# Builds against an older C library where this machine can make such a root (Debian, as root): more systems run it.
OLD_ROOT ?= $(BINARY)/debian11

.PHONY: old-root binary kit deb kit-test

old-root:
	sh packaging/pyinstaller/old-root.sh $(OLD_ROOT)

binary: $(BINARY)/out/sbom.cdx.json

# Built anew when anything that goes in has changed.
$(BINARY)/out/sbom.cdx.json: $(shell find appliance packaging/pyinstaller -type f ! -name '*.pyc') \
  packaging/sbom/binary.py requirements/device.txt pyproject.toml
	ROOT="$(wildcard $(OLD_ROOT))" PYTHON="$(PYTHON)" sh packaging/pyinstaller/build.sh $(BINARY)/out
	@touch $@

kit: $(VENV)/.dev $(BINARY)/out/sbom.cdx.json
	KEY="$(KEY)" APPLIANCE="$(BIN)/appliance" APPLIANCE_PYTHON="$(BIN)/python" \
	  sh packaging/offline/kit.sh $(BINARY)/out dist $(BUNDLES)

# The Debian package of the same program.
deb: $(BINARY)/out/sbom.cdx.json
	sh packaging/debian/deb.sh $(BINARY)/out dist

# On a host with systemd, mosquitto and nothing else, which FLEET gives (see the test); as root.
FLEET ?= fleet
kit-test: $(VENV)/.dev $(BINARY)/out/sbom.cdx.json
	FLEET="$(FLEET)" BINARY="$(BINARY)/out" $(BIN)/python -m pytest --timeout=900 tests/heavy/test_binary.py \
	  tests/heavy/test_offline_kit.py
