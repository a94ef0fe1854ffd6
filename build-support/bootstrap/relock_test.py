"""What relock takes from pex's lock."""

from __future__ import annotations

import pytest

from bootstrap.process import BootstrapError
from bootstrap.relock import entries


def lock_of(*wheels: str) -> dict[str, list[dict[str, object]]]:
    artifacts = [
        {"url": f"https://index.invalid/{name}", "algorithm": "sha256", "hash": f"{n:064x}"}
        for n, name in enumerate(wheels)
    ]
    requirement = {"project_name": "thing", "version": "1.0", "artifacts": artifacts}
    return {"locked_resolves": [{"locked_requirements": [requirement]}]}


def test_one_wheel_for_any_platform_is_enough() -> None:
    (text,) = entries(lock_of("thing-1.0-py3-none-any.whl"))
    assert text == f"thing==1.0 \\\n    --hash=sha256:{0:064x}\n"


def test_wheels_of_other_platforms_are_left_out_and_the_index_is_not_named() -> None:
    (text,) = entries(
        lock_of(
            "thing-1.0-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "thing-1.0-cp39-cp39-manylinux2014_aarch64.whl",
            "thing-1.0-cp39-cp39-macosx_10_9_universal2.whl",
            "thing-1.0-cp39-cp39-musllinux_1_1_x86_64.whl",
            "thing-1.0-cp39-cp39-win_amd64.whl",
        )
    )
    assert text.count("--hash") == 3
    assert f"{3:064x}" not in text
    assert "index.invalid" not in text


def test_a_platform_without_a_wheel_is_refused_by_name() -> None:
    with pytest.raises(BootstrapError, match=r"thing==1\.0 has no wheel for Linux aarch64"):
        list(
            entries(
                lock_of(
                    "thing-1.0-cp39-abi3-manylinux2014_x86_64.whl",
                    "thing-1.0-cp39-abi3-macosx_10_9_universal2.whl",
                )
            )
        )
