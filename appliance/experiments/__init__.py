"""Experiments: versions compared on a host's own rows; the counts, the tests, and the judge that acts on them."""
