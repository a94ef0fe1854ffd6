from __future__ import annotations

import pytest

from docblocks.blocks import Fault, Setting, blocks

PAGE = """\
Told here.

<!-- run: stack, after something -->
```console
$ one --a \\
    --b   # as it is
said

said again
$ two '{"a":
> 1}'   # exit code 4
```

```text
$ none of ours
```

1. In a list:

    <!-- not run: it takes
    a day -->
    ```sh
    # why
    for i in 1 2; do
      three $i
    done
    four
    ```

<!-- run: as README.md -->

```bash
cat <<END
five
END
```
"""


def test_commands_with_what_they_show_and_the_marks():
    first, second, third = blocks(PAGE, "docs/a.md")
    assert (first.place, first.setting, first.before) == ("docs/a.md:4", Setting.STACK, "something")
    one, two = first.commands
    assert one.text == "one --a \\\n    --b   # as it is"
    assert (one.shown, one.exit_code, one.line) == ("said\n\nsaid again", 0, 5)
    assert two.text == "two '{\"a\":\n1}'   # exit code 4"
    assert (two.shown, two.exit_code) == ("", 4)
    assert (second.setting, second.reason) == (None, "it takes a day")
    assert [one.text for one in second.commands] == [
        "for i in 1 2; do\n  three $i\ndone",
        "four",
    ]
    assert third.same_as == "README.md"
    assert [one.text for one in third.commands] == ["cat <<END\nfive\nEND"]


def test_a_block_without_a_mark_has_none():
    (block,) = blocks("```console\n$ ls\n```\n", "a.md")
    assert not block.marked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\n$ ls\n```", "a.md:1: say the block's language"),
        ("text\n\n    ls -l\n", "a.md:3: write ``` and a language"),
        ("```console\n$ ls\n", "a.md:1: the block has no end"),
        ("```console\n$ echo 'a\n```", "a.md:1: a command is not complete"),
        ("```sh\nls\n$ ls\n```", "a.md:1: begin with a command: line 3"),
        ("<!-- run: ci", "a.md:1: the comment has no end"),
        ("<!-- run: ci -->\nls", "a.md:2: no block comes after the mark"),
        ("<!-- run: ci -->\n```text\n```", "a.md:2: the mark is before a block that is no shell's"),
        ("<!-- run: moon -->\n```sh\nls\n```", "a.md:2: 'moon' is no setting: fresh, stack"),
        ("<!-- not run: -->\n```sh\nls\n```", "a.md:2: say why it is not run"),
    ],
)
def test_what_is_not_written_as_it_should_be_is_said_with_its_line(text, said):
    with pytest.raises(Fault) as fault:
        blocks(text, "a.md")
    assert str(fault.value).startswith(said)
