"""Runs the whole stack, as deploy/process-compose.yaml tells it, and takes it to pieces."""
