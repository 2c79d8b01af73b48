"""Versions compared on a host's own rows: what is counted, what it proves, and who acts on it."""
