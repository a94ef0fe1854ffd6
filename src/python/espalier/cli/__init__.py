"""The `espalier` program: the whole loop on one machine, and a client for predictions."""
