"""Batch scoring: every entity known on a day, by one model version, into a folder of Parquet.

`score` reads, splits and scores on Dask; `parts` writes files that say what they belong to, so that
a run can be taken up again.
"""
