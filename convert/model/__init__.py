"""The original model and what is known of it: its table, its steps, and how it is asked."""
