"""ruff for Pants 2.17."""
