"""A handful of the kills that `crash_ingest.py --kills 50` makes."""

from __future__ import annotations

from pathlib import Path

import crash_ingest


def test_an_ingest_killed_at_a_random_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    kills = crash_ingest.crash(kills=3, customers=1_000, seed=7, folder=tmp_path)
    assert len(kills) == 3
    # Else the moments would not be random.
    assert any(kill.when == "before it stored anything" for kill in kills)
