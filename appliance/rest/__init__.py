"""The HTTP listener: every protocol's routes, as thin adapters over the one Predictor."""
