"""The proof that a graph answers as the original does: rows, comparison, verdict and certificate."""
