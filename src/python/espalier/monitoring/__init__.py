"""Drift: how far today's features and newest labels are from what the model was trained on.

`drift` decides and stores, `report` writes the pages, `evidently_adapter` is the one module that
knows Evidently. Scores are stored in `espalier.drift`.
"""
