"""Open Inference as data, whatever carries it: requests to arrays, outputs to responses."""
