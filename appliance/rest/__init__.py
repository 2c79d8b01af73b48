"""The HTTP door: every protocol's routes, as thin adapters over the one Predictor."""
