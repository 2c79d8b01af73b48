"""The prediction log: what was asked, what was answered and by which version, kept so that it can be proved later."""
