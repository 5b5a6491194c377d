"""The published experiments, and only these."""
