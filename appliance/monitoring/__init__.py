"""Watches the service from inside: counters for Prometheus, log lines, drift, the prediction log and quality."""
