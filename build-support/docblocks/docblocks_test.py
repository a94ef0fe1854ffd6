"""Every shell block of README.md and docs/: marked, and of programs and options that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docblocks import blocks, checks, main, parsers, programs

CHECKOUT = Path.cwd()
PAGES = [page.relative_to(CHECKOUT).as_posix() for page in blocks.pages(CHECKOUT)]
# Code in a line, which begins with one of our programs.
INLINE = re.compile(r"`((?:dist/)?[a-z]+(?:-[a-z]+)?\.pex [^`]+|\./pants [^`]+)`")


@pytest.fixture(scope="module")
def found():
    return main.find(CHECKOUT)


def test_every_block_has_a_mark_that_is_true_and_programs_that_somebody_provides(found):
    assert checks.faults(CHECKOUT, found) == []
    assert sum(map(len, found.values())) > 20
    print(main.summary(found))


@pytest.mark.parametrize("page", PAGES)
def test_what_is_told_of_our_programs_is_what_they_take(page):
    text = (CHECKOUT / page).read_text()
    told = [
        (f"{page}:{command.line}", command.text, True)
        for block in blocks.blocks(text, page)
        for command in block.commands
    ]
    told += [
        (f"{page}:{text.count(chr(10), 0, found.start()) + 1}", found[1], False)
        for found in INLINE.finditer(text)
    ]
    wrong = [
        f"{place}: {said}"
        for place, line, whole in told
        for call in programs.calls(line)
        if (said := parsers.wrong(call, whole=whole))
    ]
    assert wrong == []
