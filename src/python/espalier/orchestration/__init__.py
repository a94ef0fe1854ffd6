"""Flows: one entry for each, from a shell or by a Prefect worker; the work is done elsewhere."""
