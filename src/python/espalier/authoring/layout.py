"""Python source, laid out as ruff formats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Raw:
    """An expression as it is written."""

    text: str


@dataclass(frozen=True)
class Call:
    """A call with keyword arguments, or with plain ones."""

    name: str
    named: Mapping[str, object]
    plain: Sequence[object] = ()


def text(value: str) -> str:
    """A string in double quotes, unless it holds more of those than of single ones."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    out = "".join(_escaped(one, quote) for one in value)
    return f"{quote}{out}{quote}"


def _escaped(one: str, quote: str) -> str:
    if one in (quote, "\\"):
        return f"\\{one}"
    return one if one.isprintable() else one.encode("unicode_escape").decode()


def layout(value: object, *, indent: int = 0, before: int = 0, after: int = 0) -> str:
    """An expression on one line, or with its parts on lines of their own where that is too long.

    Args:
        value: A call, raw text, a string, a number or a tuple of such.
        indent: Of the line that it begins on.
        before: How many characters stand before it on that line, beyond the indent.
        after: How many follow it.
    """
    line = _line(value)
    if indent + before + len(line) + after <= WIDTH:
        return line
    match value:
        case Call(name, named, plain):
            parts = [layout(one, indent=indent + 4, after=1) for one in plain]
            parts += [
                f"{k}={layout(v, indent=indent + 4, before=len(k) + 1, after=1)}"
                for k, v in named.items()
            ]
            return _spread(f"{name}(", parts, indent)
        case tuple():
            return _spread("(", [layout(one, indent=indent + 4, after=1) for one in value], indent)
    return line


def _spread(opening: str, parts: Sequence[str], indent: int) -> str:
    inner = " " * (indent + 4)
    return "\n".join([opening, *(f"{inner}{part}," for part in parts), f"{' ' * indent})"])


def _line(value: object) -> str:
    match value:
        case Raw(written):
            return written
        case Call(name, named, plain):
            parts = [*map(_line, plain), *(f"{k}={_line(v)}" for k, v in named.items())]
            return f"{name}({', '.join(parts)})"
        case tuple():
            inside = ", ".join(map(_line, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        case str():
            return text(value)
    return repr(value)
