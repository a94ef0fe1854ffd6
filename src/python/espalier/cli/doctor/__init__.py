"""Looks at every part of the platform, and says of each what is wrong and what to do."""
