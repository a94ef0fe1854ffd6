"""Writes a new ML product from a person's own files: what they hold is inferred, shown and asked."""
