"""Quality: how often a version is right by its labels; read from the prediction log, joined by id, kept as sums."""
