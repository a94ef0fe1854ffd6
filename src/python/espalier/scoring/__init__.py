"""Batch scoring: every entity known on a day, by one model version, each exactly once.

`plan` cuts the entities into ranges of keys, `work` reads, scores and writes one range anywhere,
`execute` runs the ranges on Dask, here or on a cluster. Where scores go to is a sink: `parquet`
writes files into a folder or object store, `postgres` a partition of `espalier.scores`. Both know
what is there already, so that a run can be taken up again.
"""
