"""The prediction log: rows, answers and the version that gave them, kept so that they can be proved later."""
