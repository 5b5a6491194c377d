"""The maps and pictures that commands and reports show: the doors to the three adapters."""
