from __future__ import annotations

import contextvars
import json
import logging
import sys

import pytest

from espalier.serving.caller import CURRENT, Caller
from espalier.serving.logs import JsonFormatter, configure


def record(message, **values):
    made = logging.makeLogRecord({"name": "espalier.x", "levelname": "INFO", "msg": message})
    vars(made).update(values)
    return made


def test_a_record_is_one_json_line_with_what_was_given_as_extra():
    line = JsonFormatter().format(record("model in force", version="3", path=object))
    assert "\n" not in line
    values = json.loads(line)
    assert values["event"] == "model in force"
    assert values["version"] == "3"
    assert values["logger"] == "espalier.x"
    assert values["time"].endswith("+00:00")
    assert set(values) == {"time", "level", "logger", "event", "version", "path"}


def test_a_trace_stays_on_the_line():
    try:
        int("wrong")
    except ValueError:
        line = JsonFormatter().format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["trace"]


def test_an_unknown_level_is_an_error():
    with pytest.raises(ValueError, match="LOUD"):
        configure("LOUD")


def test_a_line_of_a_request_tells_whose_it_was():
    context = contextvars.copy_context()
    context.run(CURRENT.set, Caller("order-1", "shop", "a" * 32, "b" * 16))
    values = json.loads(context.run(JsonFormatter().format, record("refused")))
    assert values["request_id"] == "order-1"
    assert values["token"] == "shop"
    assert (values["trace_id"], values["parent_id"]) == ("a" * 32, "b" * 16)
    context.run(CURRENT.set, Caller("order-2"))
    values = json.loads(context.run(JsonFormatter().format, record("refused")))
    assert set(values) == {"time", "level", "logger", "event", "request_id"}
