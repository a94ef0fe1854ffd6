from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from docblocks import session
from docblocks.blocks import blocks
from docblocks.outputs import agree
from docblocks.session import Failed, Place


def page(*commands):
    return blocks("```console\n" + "\n".join(commands) + "\n```\n", "a.md")


@pytest.fixture
def place(tmp_path: Path):
    return Place(tmp_path, dict(os.environ), here=lambda text: text.replace(":8000", ":20004"))


@pytest.mark.parametrize(
    ("shown", "said", "same"),
    [
        ("two lines", "two\n  lines\n", True),
        ("score 0.8...", "score 0.8123", True),
        ("a\n...\nb", "a\n1\n2\nb", True),
        ("a ... b", "a b c", False),
        ("a.c", "abc", False),
        ("part", "part of it", False),
    ],
)
def test_what_is_shown_is_compared(shown, said, same):
    assert agree(shown, said) is same


def test_a_page_is_one_shell(place):
    commands = ["$ mkdir a; cd a; b=1", "$ f() { echo f$1; }", "$ f $b; basename $PWD", "f1 a"]
    session.run([*page(*commands), *page("$ f 2", "f2")], place, seconds=20)
    assert (place.folder / "a").is_dir()


def test_an_exit_code_that_the_page_tells_is_right(place):
    session.run(page("$ (exit 4)   # exit code 4", "$ true"), place, seconds=20)
    with pytest.raises(Failed, match=r"a.md:2: true .*\nended with 0, not 4"):
        session.run(page("$ true  # exit code 4"), place, seconds=20)


def test_a_command_that_fails_ends_the_page(place):
    with pytest.raises(Failed, match=r"(?s)a.md:3: .*ended with 2:\nout\nerr"):
        session.run(
            page("$ true", "$ sh -c 'echo out; echo err >&2; exit 2'", "$ touch never"),
            place,
            seconds=20,
        )
    assert not (place.folder / "never").exists()


def test_another_output_than_shown_is_told_with_both(place):
    with pytest.raises(Failed, match=r"(?s)a.md:2: .*said:\ntwo\n--- shown:\none"):
        session.run(page("$ echo two", "one"), place, seconds=20)


def test_the_text_is_as_it_is_in_that_place(place):
    session.run(page("$ echo http://h:8000", "http://h:8000"), place, seconds=20)
    session.run(page("$ echo :8000 > port"), place, seconds=20)
    assert (place.folder / "port").read_text() == ":20004\n"


def test_what_the_place_does_itself_is_left_out(place):
    without = Place(place.folder, place.environment, without=("process-compose up",))
    session.run(page("$ process-compose up   # starts it"), without, seconds=20)


def test_a_command_that_does_not_end_is_ended_and_told(place):
    with pytest.raises(Failed, match=r"(?s)a.md:2: .*has not ended within 0 s:\nbegun"):
        session.run(page("$ echo begun; sleep 600"), place, seconds=0.4)


def test_what_a_page_leaves_running_is_ended(place):
    session.run(page("$ sleep 600 & echo $! > pid"), place, seconds=20)
    pid = int((place.folder / "pid").read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_reader_has_is_prepared(place, tmp_path, monkeypatch):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "a_file.sh").write_text("echo prepared >file; word=said\n")
    monkeypatch.setattr(session, "PREPARATIONS", tmp_path / "before")
    text = (
        "<!-- run: fresh, after a_file -->\n```console\n$ cat file; echo $word\nprepared said\n```"
    )
    session.run(blocks(text, "a.md"), place, seconds=20)
