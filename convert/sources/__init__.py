"""Where a trained model comes from."""
