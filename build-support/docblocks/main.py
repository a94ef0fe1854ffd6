"""Counts the shell blocks of README.md and docs/, and runs those that want no stack.

    python3.11 build-support/docblocks/main.py              what is run, what is not and why
    python3.11 build-support/docblocks/main.py --run clone  in a clone of this checkout

Exit code 1 when a block is wrong, or does not do what its page says.
build-support/stack/check.py runs the settings `stack` and `fresh`. Python's standard library alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docblocks.blocks import Block, Fault, Setting, pages, read
from docblocks.checks import faults
from docblocks.session import Failed, Place, run

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE_SECONDS = 1800
_COMMAND = CHECKOUT / "dist" / "espalier.pex"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, or run; give the exit code."""
    parser = argparse.ArgumentParser(description="The shell blocks of README.md and docs/.")
    parser.add_argument("--run", choices=["clone"], help="run the blocks of this setting")
    parser.add_argument("page", nargs="*", help="of these pages alone, as docs/stack.md")
    asked = parser.parse_args(arguments)
    try:
        found = find(CHECKOUT)
        if wrong := faults(CHECKOUT, found):
            print(*wrong, sep="\n", file=sys.stderr)
            return 1
        if asked.run:
            in_a_clone({page: found[page] for page in asked.page or found})
        else:
            print(summary(found))
    except (Fault, Failed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def find(checkout: Path) -> dict[str, list[Block]]:
    """The blocks of every page that has one, by page.

    Raises:
        Fault: a page is not written as it should be.
    """
    found: dict[str, list[Block]] = {}
    wrong = []
    for page in pages(checkout):
        try:
            if blocks := read(checkout, page):
                found[blocks[0].page] = blocks
        except Fault as fault:
            wrong.append(str(fault))
    if wrong:
        raise Fault("\n".join(wrong))
    return found


def of_setting(found: Mapping[str, Sequence[Block]], setting: Setting) -> dict[str, list[Block]]:
    """The blocks that are run in a setting, by page."""
    chosen = {
        page: [one for one in blocks if one.setting is setting] for page, blocks in found.items()
    }
    return {page: blocks for page, blocks in chosen.items() if blocks}


def run_all(
    found: Mapping[str, Sequence[Block]],
    place: Callable[[], Place],
    say: Callable[[str], None],
) -> None:
    """Run blocks, page after page.

    Args:
        found: The blocks of each page.
        place: Gives each page where it begins.
        say: Is told a line for each page.

    Raises:
        Failed: a command did not do what its page says.
    """
    for page, blocks in found.items():
        began = time.monotonic()
        run(blocks, place(), seconds=PAGE_SECONDS)
        commands = sum(len(block.commands) for block in blocks)
        took = time.monotonic() - began
        say(f"{page}: {len(blocks)} blocks, {commands} commands as it says, {took:.0f} s")


def in_a_clone(found: Mapping[str, Sequence[Block]]) -> None:
    """Run the blocks of the setting `clone`, each page in a clone of its own, with dist/espalier.pex.

    Raises:
        Failed: a command did not do what its page says.
    """
    folder = Path(tempfile.mkdtemp(prefix="docblocks-"))

    def clone() -> Place:
        made = Path(tempfile.mkdtemp(dir=folder)) / "espalier"
        subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(made)], check=True)
        if _COMMAND.exists():
            (made / "dist").mkdir()
            # A copy, which `package` may overwrite.
            shutil.copy2(_COMMAND, made / "dist")
        # A daemon would outlive its folder.
        return Place(made, {**os.environ, "PANTS_PANTSD": "false", "PANTS_DYNAMIC_UI": "false"})

    try:
        run_all(of_setting(found, Setting.CLONE), clone, print)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(found: Mapping[str, Sequence[Block]]) -> str:
    """How many blocks are run where, and why the others are not."""
    every = [block for blocks in found.values() for block in blocks]
    run_in = Counter(block.setting.value for block in every if block.setting)
    same = [block for block in every if block.same_as]
    skipped = [block for block in every if block.reason]
    where = [f"{count} {name}" for name, count in sorted(run_in.items())]
    if same:
        where.append(f"{len(same)} as another page")
    ran = run_in.total() + len(same)
    told = f"{ran} run ({', '.join(where)}), {len(skipped)} not"
    why = [f"  {block.place}: {block.reason}" for block in skipped]
    return "\n".join([f"{len(every)} shell blocks in {len(found)} pages: {told}", *why])


if __name__ == "__main__":
    sys.exit(main())
