# The Debian package of the same program that the offline kit holds.
.PHONY: deb

deb: $(BINARY)/out/sbom.cdx.json
	sh packaging/debian/deb.sh $(BINARY)/out dist
