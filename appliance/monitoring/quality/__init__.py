"""How often a version is right, once labels come: read from the prediction log, joined by id, kept as sums."""
