from __future__ import annotations

import pytest

from espalier.authoring.names import identifier, identifiers
from espalier.project import _NAME


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("PassengerId", "passenger_id"),
        ("mean radius", "mean_radius"),
        ("od280/od315_of_diluted_wines", "od280_od315_of_diluted_wines"),
        ("2nd", "c_2nd"),
        ("Größe (cm)", "gr_e_cm"),
        ("€", "column"),
        ("x" * 60, "x" * 40),
    ],
)
def test_a_name_that_the_platform_takes(column, name):
    assert identifier(column) == name
    assert _NAME.fullmatch(name)


def test_no_name_comes_twice_and_none_is_the_platforms_own():
    found = identifiers(["a b", "a-b", "A_B", "label", "y" * 50, "y" * 51], also_taken=["a_b"])
    assert list(found.values()) == [
        *("a_b_2", "a_b_3", "a_b_4", "label_2"),
        "y" * 40,
        "y" * 38 + "_2",
    ]
    assert all(_NAME.fullmatch(name) for name in found.values())
