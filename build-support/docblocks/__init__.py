"""Finds the shell blocks of README.md and docs/, and runs them where their marks say."""
