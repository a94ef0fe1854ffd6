from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from espalier.errors import ConfigurationError, Unauthenticated
from espalier.serving import tokens
from espalier.serving.tokens import TokenFile, new_token

HASH = "0" * 64


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_new_token_is_accepted_by_its_line_which_does_not_tell_it(tmp_path):
    token, line = new_token("shop")
    assert token.startswith("espalier_")
    assert len(token) > 50
    assert token not in line
    assert new_token("shop")[0] != token
    file = TokenFile(write(tmp_path / "tokens", "# who may call", "", line))
    assert file.name_of(f"Bearer {token}") == "shop"
    assert file.name_of(f"bearer  {token} ") == "shop"


def test_two_tokens_of_one_name_are_valid_at_once_and_the_old_one_expires(tmp_path):
    (old, old_line), (new, new_line) = new_token("shop"), new_token("shop")
    days = iter([1, 2, 3, 3])
    file = TokenFile(
        write(tmp_path / "tokens", f"{old_line} 2030-01-03", new_line),
        clock=lambda: datetime(2030, 1, next(days), 23, 59, tzinfo=UTC),
    )
    assert [file.name_of(f"Bearer {old}") for _ in range(2)] == ["shop", "shop"]
    with pytest.raises(Unauthenticated, match="not valid"):
        file.name_of(f"Bearer {old}")
    assert file.name_of(f"Bearer {new}") == "shop"


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Basic dTpw", f"Bearer {HASH}", "Bearer ž\udcff" * 99]
)
def test_others_are_refused(tmp_path, given):
    file = TokenFile(write(tmp_path / "tokens", new_token("shop")[1]))
    with pytest.raises(Unauthenticated):
        file.name_of(given)


def test_a_changed_file_is_in_force_and_a_broken_one_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tokens, "_LOOK_SECONDS", 0.0)
    (first, line), (second, other) = new_token("a"), new_token("b")
    path = write(tmp_path / "tokens", line)
    file = TokenFile(path)
    assert file.name_of(f"Bearer {first}") == "a"
    write(path, other, "# changed")
    assert file.name_of(f"Bearer {second}") == "b"
    with pytest.raises(Unauthenticated):
        file.name_of(f"Bearer {first}")
    with caplog.at_level(logging.ERROR):
        write(path, "broken")
        assert file.name_of(f"Bearer {second}") == "b"
        path.unlink()
        assert file.name_of(f"Bearer {second}") == "b"
    assert "line 1 is not" in caplog.records[0].problem
    assert "No such file" in caplog.records[1].problem
    assert not any(t in caplog.text for t in (first, second))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("shop", "line 1"),
        (f"shop {HASH} 2030-01-01 more", "line 1"),
        (f"shop {HASH[1:]}", "line 1"),
        (f"sh/op {HASH}", "line 1"),
        (f"shop {HASH} tomorrow", "line 1"),
        ("# nothing", "no token"),
    ],
)
def test_a_malformed_file_is_told_without_its_content(tmp_path, line, told):
    path = write(tmp_path / "tokens", line)
    with pytest.raises(ConfigurationError, match=told) as caught:
        TokenFile(path)
    assert HASH[1:] not in str(caught.value)
