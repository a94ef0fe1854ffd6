from __future__ import annotations

import ast

import pytest

from espalier.authoring.layout import WIDTH, Call, Raw, layout, text


@pytest.mark.parametrize(
    "value", ["plain", 'a "quoted" word', "it's", "back\\slash", "two\nlines", "Zoë", "\x07", ""]
)
def test_text_is_a_string_of_the_same_value(value):
    assert ast.literal_eval(text(value)) == value


def test_double_quotes_unless_single_ones_save_escapes():
    assert text("it's") == '"it\'s"'
    assert text('say "a"') == "'say \"a\"'"


def test_what_fits_is_one_line():
    assert layout(Call("Gate", {"suspicious": 1.0})) == "Gate(suspicious=1.0)"
    assert layout(("a",)) == '("a",)'


def test_what_does_not_fit_has_a_line_for_each_part():
    call = Call(
        "Table", {"name": "t", "columns": (Raw("_KEY"), *(f"column {n}" for n in range(9)))}
    )
    lines = layout(call, before=len("TABLE = ")).splitlines()
    assert lines[:4] == ["Table(", '    name="t",', "    columns=(", "        _KEY,"]
    assert max(map(len, lines)) <= WIDTH
    short = Call("f", {"a": "x" * 80})
    assert layout(short, before=WIDTH) == f'f(\n    a="{"x" * 80}",\n)'
