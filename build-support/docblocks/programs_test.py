from __future__ import annotations

import pytest

from docblocks import parsers
from docblocks.programs import Call, calls, functions, nobodys


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dist/a.pex --b c   # told", [Call("a.pex", ("--b", "c"))]),
        ("A=1 a | b > c 2>&1 && env e", [Call("a", (), ("A=1",)), Call("b", ()), Call("e", ())]),
        ("set -a; . ./.env", [Call("set", ("-a",)), Call(".", ("./.env",))]),
        ("if a b; then\n  c\nfi", [Call("a", ("b",)), Call("c", ())]),
        ("a '# no; comment' \\\n  b", [Call("a", ("# no; comment", "b"))]),
        ("cat > f <<END\nrm -r /\nEND\nb &", [Call("cat", ()), Call("b", ())]),
        ('"$EDITOR" f', [Call("", ("f",))]),
        ('"$ROOT/dist/a.pex" f', [Call("a.pex", ("f",))]),
    ],
)
def test_the_programs_of_a_command(text, found):
    assert calls(text) == found


def test_a_program_that_nothing_provides_is_named_and_a_function_is_known():
    found = calls("run() { curl -s u; }; run; dist/x.pex; frobnicate")
    assert functions(found) == ["run"]
    assert nobodys(found, functions(found)) == ["frobnicate"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dist/espalier.pex models list --project churn", ""),
        ("dist/espalier.pex models show VERSION", ""),
        ("./pants quickstart --keep", ""),
        ("./pants test ::", ""),
        ("./pants --concurrent ...", ""),
        ("churn-ingest.pex --as-of 1998-06-30", ""),
        ("churn-server.pex --help", ""),
        ("PEX_SCRIPT=mlflow dist/espalier.pex anything", ""),
        ("dist/espalier.pex dance", "espalier has no dance"),
        ("dist/espalier.pex models list --colour", "espalier models list has no --colour"),
        ("./pants quickstart --colour", "espalier quickstart has no --colour"),
        ("./pants --no-pantsd dance ::", "pants has no goal dance"),
        ("churn-ingest.pex --as-off 1998-06-30", "churn-ingest has no --as-off"),
        ("churn-dance.pex", "no product has a program churn-dance.pex"),
        ("churn-ingest.pex --as-of 30.6.1998", "argument --as-of: '30.6.1998' is not a day"),
        ("churn-ingest.pex", "the following arguments are required: --as-of"),
    ],
)
def test_our_own_parsers_judge_what_is_ours(text, said):
    (call,) = calls(text)
    assert parsers.wrong(call)[: len(said) or None] == said


def test_of_a_part_that_is_talked_of_only_what_is_there_is_judged():
    (call,) = calls("churn-ingest.pex")
    assert parsers.wrong(call, whole=False) == ""
