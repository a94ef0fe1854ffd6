"""Which programs a shell command calls, with which words, and who provides them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Of bash itself, or of a usual Linux or macOS with git and Python.
USUAL = _set("""
    . : [ alias cd command echo eval exit export false jobs kill printf pwd read set shift source
    test trap true type umask unset wait
    awk cat chmod chown cmp cp curl cut date df diff du find git grep gunzip gzip head id ln ls
    mkdir mktemp mv ps python3 python3.11 rm sed sha256sum sleep sort tail tar tee touch tr uname
    uniq unzip wc xargs
""")
# What a page says that its reader needs.
NEEDED = _set("""
    copier createdb direnv docker dropdb jupyter jupytext kubectl nix node npm npx openssl pg_dump
    pg_restore pip pyenv python
""")
# By build-support/tools/install or `nix develop`.
TOOLS = _set("""
    alertmanager amtool buf buildah chromium go grpcurl hadolint kubernetes-validate
    process-compose prometheus promtool
""")
# Of this repository, and of the stack's state.
OURS = _set("build_with_buildah install make_base pants psql relock")
# Of ./pants, as far as people type them; pants.toml adds its aliases.
GOALS = _set("""
    check dependencies dependents fix fmt help lint list package peek run tailor test
""")

_KEYWORDS = _set("! do done elif else fi if then time until while { }")
_WRAPPERS = frozenset(["env", "exec", "nohup", "sudo"])
_ASSIGNMENT = re.compile(r"\w+\+?=")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_ENDS = frozenset(";|&()")
_REDIRECTS = frozenset("<>")
# What a reader puts in: VERSION, DAY, <name>.
_PLACEHOLDER = re.compile(r"<.*>|\[.*|.*\]|[A-Z][A-Z_-]*(?:\|\w+)?|\.\.\.|.*\$.*")


@dataclass(frozen=True)
class Call:
    """One program with its words, and the assignments before it."""

    program: str
    words: tuple[str, ...]
    assigned: tuple[str, ...] = ()

    @property
    def placeholders(self) -> bool:
        """Whether the reader has to put something in."""
        return any(_PLACEHOLDER.fullmatch(word) for word in self.words)


def calls(text: str) -> list[Call]:
    """The programs that a command calls, by their names without folders.

    What a command substitution or a quoted script calls is not seen.
    """
    found: list[Call] = []
    words: list[str] = []
    tokens = _tokens(_without_heredocs(text))
    skip = False
    for token in [*tokens, ";"]:
        if skip:
            skip = False
        elif set(token) <= _REDIRECTS | {"&"} and set(token) & _REDIRECTS:
            # The file comes next, and the number of what goes there came before.
            skip = True
            if words and words[-1].isdigit():
                words.pop()
        elif set(token) <= _ENDS:
            if token.startswith("()") and len(words) == 1:
                found.append(Call(words[0], (), ("function",)))
            else:
                found += _call(words)
            words = []
        else:
            words.append(token)
    return found


def functions(found: Sequence[Call]) -> list[str]:
    """Those of the calls that define a function of that name."""
    return [call.program for call in found if call.assigned == ("function",)]


def nobodys(found: Sequence[Call], defined: Collection[str]) -> list[str]:
    """The programs that nothing provides.

    Args:
        found: What is called.
        defined: Names of functions that pages define.
    """
    known = USUAL | NEEDED | TOOLS | OURS | frozenset(defined)
    return [
        call.program
        for call in found
        if call.program not in known and not call.program.endswith(".pex") and call.program
    ]


def _call(words: Sequence[str]) -> list[Call]:
    assigned = []
    rest = list(words)
    while rest:
        if _ASSIGNMENT.match(rest[0]):
            assigned.append(rest.pop(0))
        elif rest[0] in _KEYWORDS or rest[0] in _WRAPPERS:
            rest.pop(0)
        else:
            break
    if not rest or rest[0] in ("for", "case", "function"):
        return []
    # A program that a variable names is the reader's own.
    name = rest[0].rpartition("/")[2]
    return [Call("" if name.startswith("$") else name, tuple(rest[1:]), tuple(assigned))]


def _tokens(text: str) -> list[str]:
    lines = text.replace("\\\n", " ")
    found: list[str] = []
    # A newline ends a command, unless it stands in quotes.
    lexer = shlex.shlex(_marked_newlines(lines), posix=True, punctuation_chars=";|&()<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found.extend(lexer)
    return found


def _marked_newlines(text: str) -> str:
    """Newlines outside of quotes as `;`, and without comments."""
    out, quote, comment, before = [], "", False, "\n"
    for letter in text:
        if comment and letter != "\n":
            continue
        comment = False
        if quote:
            quote = "" if letter == quote and before != "\\" else quote
        elif letter in "'\"" and before != "\\":
            quote = letter
        elif letter == "#" and before.isspace():
            comment = True
            continue
        out.append(" ; " if letter == "\n" and not quote else letter)
        before = letter
    return "".join(out)


def _without_heredocs(text: str) -> str:
    kept, until = [], ""
    for line in text.splitlines():
        if until:
            until = "" if line.strip() == until else until
            continue
        kept.append(line)
        if found := _HEREDOC.search(line):
            until = found[1]
    return "\n".join(kept)
