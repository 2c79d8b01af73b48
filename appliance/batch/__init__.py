"""Scores whole files with one version: streaming, resumable, over processes and shards of many machines."""
