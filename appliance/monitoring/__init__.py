"""Watches the service from inside: counters for Prometheus and log lines. The predictor tells it; it tells nobody."""
