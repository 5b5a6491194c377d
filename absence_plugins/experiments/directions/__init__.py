"""Direction pairs where the concepts are known: synthetic features, and the bundled digits network."""
