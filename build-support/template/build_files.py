"""BUILD files without what they say of files that did not go over."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from template.kept import fits

# What these targets hold when they name no sources.
_DEFAULTS = {
    "python_tests": ["*_test.py"],
    "python_test_utils": ["conftest.py"],
}


def without_absent(text: str, folder: str, paths: set[str], example: str) -> str:
    """A BUILD file's text for the repository of these paths.

    Gone are overrides of files that are absent, elements of lists that name an absent file beside
    the BUILD or the example, targets whose sources are all absent, and names that then nobody uses.
    A comment goes with what it stands above.
    """
    above = f"{folder}/" if folder else ""
    names = {path[len(above) :] for path in paths if path.startswith(above)}
    source = _Source(text)
    for statement in ast.parse(text).body:
        value = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
        if isinstance(value, ast.Call) and not _has_sources(value, names):
            source.drop_lines(statement, statement)
        elif value is not None:
            _prune(value, source, names, example)
    return _without_unused_names(source.text())


def _without_unused_names(text: str) -> str:
    source, tree = _Source(text), ast.parse(text)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for statement in tree.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id not in used:
            source.drop_lines(statement, statement)
    return source.text()


def _has_sources(call: ast.Call, names: set[str]) -> bool:
    kind = call.func.id if isinstance(call.func, ast.Name) else ""
    patterns = _DEFAULTS.get(kind)
    for keyword in call.keywords:
        if keyword.arg == "sources" and isinstance(keyword.value, ast.List):
            given = [str(e.value) for e in keyword.value.elts if isinstance(e, ast.Constant)]
            # One that is put together by code is not ours to judge.
            patterns = given if len(given) == len(keyword.value.elts) else None
    return patterns is None or any(fits(name, p) for p in patterns for name in names)


def _prune(value: ast.expr, source: _Source, names: set[str], example: str) -> None:
    for node in ast.walk(value):
        if isinstance(node, ast.keyword) and node.arg == "overrides":
            _prune_overrides(node.value, source, names)
        elif isinstance(node, ast.keyword) and node.arg == "sources":
            _prune_list(node.value, source, lambda text: _is_absent_source(text, names))
        elif isinstance(node, ast.List):
            _prune_list(node, source, lambda text: _is_absent(text, names, example))


def _prune_overrides(value: ast.expr, source: _Source, names: set[str]) -> None:
    if not isinstance(value, ast.Dict):
        return
    for key, entry in zip(value.keys, value.values, strict=True):
        files = key.elts if isinstance(key, ast.Tuple) else [key]
        absent = [f for f in files if isinstance(f, ast.Constant) and f.value not in names]
        if key is not None and len(absent) == len(files):
            source.drop_lines(key, entry)
        elif isinstance(key, ast.Tuple):
            _prune_list(key, source, lambda text: text not in names)


def _prune_list(value: ast.expr, source: _Source, is_absent: Callable[[str], bool]) -> None:
    elements = value.elts if isinstance(value, (ast.List, ast.Tuple)) else []
    for element in elements:
        if isinstance(element, ast.Constant) and is_absent(str(element.value)):
            source.drop_element(element)


def _is_absent_source(text: str, names: set[str]) -> bool:
    return not text.startswith("!") and not any(fits(name, text) for name in names)


def _is_absent(text: str, names: set[str], example: str) -> bool:
    if example in text:
        return True
    file = text.removeprefix("./").partition(":")[0]
    return text.startswith("./") and file.endswith(".py") and file not in names


class _Source:
    """A text, and the parts of it that go."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)
        # By line: which columns go, as (first, after the last).
        self._gone: dict[int, list[tuple[int, int]]] = {}

    def drop_lines(self, first: ast.expr | ast.stmt, last: ast.expr | ast.stmt) -> None:
        """Take out the lines of both and all between them, and the comment right above."""
        begin = first.lineno - 1
        while begin and self._lines[begin - 1].lstrip().startswith("#"):
            begin -= 1
        for number in range(begin, last.end_lineno or last.lineno):
            self._gone[number] = [(0, len(self._lines[number]))]

    def drop_element(self, node: ast.Constant) -> None:
        """Take a string out of a list."""
        number, (begin, end) = node.lineno - 1, (node.col_offset, node.end_col_offset or 0)
        line = self._lines[number]
        if line.strip().rstrip(",") == line[begin:end]:
            self.drop_lines(node, node)
            return
        after = line[end:]
        if after.startswith(", "):
            end += 2
        elif line[:begin].endswith(", "):
            begin -= 2
        self._gone.setdefault(number, []).append((begin, end))

    def text(self) -> str:
        """What is left, without lists and dicts that became empty and targets' double distance."""
        lines = []
        for number, line in enumerate(self._lines):
            gone = {
                column for begin, end in self._gone.get(number, []) for column in range(begin, end)
            }
            lines.append("".join(c for column, c in enumerate(line) if column not in gone))
        text = "".join(lines)
        for empty in (r"^ *\w+=\[\s*\],\n", r'^ *"\w+": \[\s*\],\n', r"^ *\w+=\{\s*\},\n"):
            text = re.sub(empty, "", text, flags=re.MULTILINE)
        text = re.sub(r'\((?:\n    (name="\w+"),\n)\)', r"(\1)", text)
        text = re.sub(r'\(("[^"]+")\): ', r"\1: ", text)
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n" if text.strip() else ""
