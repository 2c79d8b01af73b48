"""Takes signed bundles from a folder, a web server or an OCI registry, for hosts that only connect out."""
