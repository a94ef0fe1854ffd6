from __future__ import annotations

import logging

import grpc
from google.rpc import code_pb2, error_details_pb2

from espalier.errors import EntityUnknown, Overloaded
from espalier.serving.grpc_errors import status_name, to_status


def details(status, kind):
    found = kind()
    assert any(detail.Unpack(found) for detail in status.details)
    return found


def test_an_error_of_ours_is_told_with_reason_fix_and_metadata():
    status = to_status(EntityUnknown("no such one", fix="look again", entity_id="7"), "Predict")
    assert status.code == code_pb2.NOT_FOUND
    assert status.message == "no such one; look again"
    info = details(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("ENTITY_UNKNOWN", "espalier.dev")
    assert info.metadata == {"entity_id": "7"}


def test_overload_says_when_to_try_again():
    status = to_status(Overloaded("full"), "Predict")
    assert status.code == code_pb2.RESOURCE_EXHAUSTED
    assert details(status, error_details_pb2.RetryInfo).retry_delay.seconds == 1


def test_a_surprise_is_opaque_and_logged_under_its_id(caplog):
    with caplog.at_level(logging.ERROR):
        status = to_status(ValueError("the password is hunter2"), "Predict")
    assert status.code == code_pb2.INTERNAL
    error_id = details(status, error_details_pb2.ErrorInfo).metadata["error_id"]
    assert error_id in status.message
    assert "hunter2" not in str(status)
    (record,) = caplog.records
    assert record.error_id == error_id
    assert record.method == "Predict"
    assert "hunter2" in str(record.exc_info[1])


def test_codes_have_their_names():
    assert status_name(0) == "OK"
    assert all(status_name(code.value[0]) == code.name for code in grpc.StatusCode)
