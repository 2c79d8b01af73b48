"""The speed, memory and size figures, each a command (`python -m benchmarks.rest`)."""
