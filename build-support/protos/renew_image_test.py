from __future__ import annotations

import pytest

from protos import renew_image

PROTO = """syntax = "proto3";
package shop.v1;
message Order {
  string customer = 1;
}
"""


@pytest.fixture
def contract(tmp_path):
    (tmp_path / "buf.yaml").write_text("version: v2\n")
    (tmp_path / "shop/v1").mkdir(parents=True)
    (tmp_path / "shop/v1/order.proto").write_text(PROTO)
    assert renew_image.main([str(tmp_path)]) == 0
    return tmp_path


def change(contract, old, new):
    assert PROTO.count(old) == 1
    (contract / "shop/v1/order.proto").write_text(PROTO.replace(old, new))
    return (contract / renew_image.IMAGE).read_bytes()


def test_a_compatible_change_renews_the_image(contract):
    before = change(contract, "= 1;", "= 1;\n  string note = 2;")
    assert renew_image.main([str(contract)]) == 0
    assert (contract / renew_image.IMAGE).read_bytes() != before


def test_a_changed_comment_leaves_it_as_it_is(contract):
    before = change(contract, "message", "// What was bought.\nmessage")
    assert renew_image.main([str(contract)]) == 0
    assert (contract / renew_image.IMAGE).read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("customer", "buyer", 'changed name from "customer" to "buyer"'),
        ("string", "strin", "strin"),
    ],
    ids=["incompatible", "does not compile"],
)
def test_what_buf_refuses_is_named_and_leaves_it_as_it_is(contract, capsys, old, new, told):
    before = change(contract, old, new)
    assert renew_image.main([str(contract)]) == 1
    assert told in capsys.readouterr().err
    assert (contract / renew_image.IMAGE).read_bytes() == before


def test_a_broken_configuration_is_no_refusal(contract, capsys):
    (contract / "buf.yaml").write_text("version: v2\nlints: {}\n")
    assert renew_image.main([str(contract)]) == 2
    assert "lints" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["a", "b"], ["nowhere"]])
def test_wrong_use_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert renew_image.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
