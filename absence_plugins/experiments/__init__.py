"""What the command line runs: methods, adapters and reports brought together."""
