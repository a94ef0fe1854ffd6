from __future__ import annotations

import pytest

from espalier.serving.caller import Caller, identify

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_callers_id_and_trace_are_kept():
    caller = identify("order-17", f"00-{TRACE}-{SPAN}-01", token="shop")
    assert caller == Caller("order-17", "shop", TRACE, SPAN, sampled=True)
    later = identify("a", f"01-{TRACE}-{SPAN}-02-more")
    assert (later.trace_id, later.sampled) == (TRACE, False)


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, 'a"b', "a\nb", "ž"])
def test_an_id_that_could_not_stand_in_a_log_is_replaced_by_a_fresh_one(given):
    one, two = identify(given, None), identify(given, None)
    assert one.request_id != two.request_id
    assert given is None or given not in one.request_id or given == ""


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01x",
    ],
)
def test_a_malformed_traceparent_is_ignored(given):
    assert identify("a", given) == Caller("a")
