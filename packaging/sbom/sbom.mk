# Bills of materials (CycloneDX 1.6) of what was built (binary, kits, images), and of bundles: make sbom-test FILES='dist/*/sbom.cdx.json'
FILES ?= $(wildcard .cache/binary/out*/sbom.cdx.json dist/images/*.cdx.json dist/*/sbom.cdx.json dist/*/bundles/*.cdx.json)

.PHONY: sbom sbom-test

# make sbom BUNDLES=x.bundle prints it
sbom: $(VENV)/.dev
	@for bundle in $(BUNDLES); do $(BIN)/python packaging/sbom/bundle.py "$$bundle"; done

sbom-test: .cache/sbom/.done
	.cache/sbom/bin/python packaging/sbom/validate.py $(FILES)

.cache/sbom/.done: packaging/sbom/requirements.txt
	$(PYTHON) -m venv .cache/sbom
	.cache/sbom/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@
