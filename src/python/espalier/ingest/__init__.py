"""Ingest: a folder of CSV files is read, staged, validated and kept as an immutable snapshot.

`run.ingest` is the way in; `snapshots` tells what was stored.
"""
