"""Features: what Feast is told, the wide-row online store, and point-in-time training sets."""
