from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from espalier.errors import BatchLate
from espalier.orchestration.arrival import MARKER, wait_for


def test_a_complete_folder_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / MARKER).touch()
    wait_for(tmp_path, seconds=0)


def test_files_without_the_marker_are_not_complete(tmp_path: Path) -> None:
    (tmp_path / "users.csv").touch()
    with pytest.raises(BatchLate, match="is not complete after 0 s; deliver the files and, last"):
        wait_for(tmp_path, seconds=0.3)
    with pytest.raises(BatchLate, match="is not there") as late:
        wait_for(tmp_path / "nowhere", seconds=0)
    assert late.value.exit_code == 3


def test_it_returns_soon_after_the_marker_comes(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    came = []

    def deliver() -> None:
        folder.mkdir()
        came.append(time.monotonic())
        (folder / MARKER).touch()

    timer = threading.Timer(0.5, deliver)
    timer.start()
    wait_for(folder, seconds=60)
    assert came
    assert time.monotonic() - came[0] < 20
    timer.join()
