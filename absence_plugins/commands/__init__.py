"""What people run on their own model, and the demo: adapters, methods and reports brought together."""
