from __future__ import annotations

import json
from datetime import date

import pytest

from espalier.cli.reproduce import _json, _text
from espalier.training.reproduce import Compared, Part, Reproduction

DIGEST, OTHER = "a1" * 32, "b2" * 32


def compared(*changed: str) -> Reproduction:
    values: list[tuple[Part, str, str, str]] = [
        ("result", "digest", DIGEST, OTHER),
        ("result", "metric roc_auc", "0.75", "0.74"),
        ("input", "seed", "1", "2"),
        ("input", "library numpy", "1.0", "2.0"),
        ("context", "commit", "abc", "def"),
    ]
    return Reproduction(
        "churn",
        "3",
        date(1998, 6, 30),
        tuple(
            Compared(part, name, before, after if name in changed else before)
            for part, name, before, after in values
        ),
    )


@pytest.mark.parametrize(
    ("changed", "same", "equal", "verdict"),
    [
        ([], True, True, "The model is the same, bit for bit."),
        (["commit"], True, True, "The model is the same, bit for bit."),
        (["seed"], True, False, "The model is the same, bit for bit. Changed since: seed."),
        (
            ["digest", "library numpy"],
            False,
            False,
            "Training gave another model. Changed since: library numpy.",
        ),
        (
            ["digest", "commit"],
            False,
            False,
            "Training gave another model. No input was changed; of the context: commit.",
        ),
        (["digest"], False, False, "Training gave another model. Nothing that is recorded was"),
    ],
)
def test_every_difference_is_named_and_judged(changed, same, equal, verdict) -> None:
    found = compared(*changed)
    assert (found.same_result, found.equal) == (same, equal)
    text = _text(found)
    assert verdict in text
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[1] for line in text.splitlines() if "DIFFERENT" in line] == [
        name.split()[0] for name in changed
    ]
    told = json.loads(_json(found, same=equal))
    assert [one["name"] for one in told["compared"] if not one["equal"]] == changed


def test_digests_are_told_by_their_start_for_people_and_whole_for_programs() -> None:
    found = compared("digest")
    assert "a1a1a1a1a1a1, now b2b2b2b2b2b2" in _text(found)
    assert OTHER in _json(found, same=False)
