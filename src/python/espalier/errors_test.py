from __future__ import annotations

import pickle

import pytest

from espalier import errors
from espalier.errors import BadData, EspalierError

GRPC_NAMES = {
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "UNAVAILABLE",
    "ALREADY_EXISTS",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "UNAUTHENTICATED",
}
TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EspalierError)
]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_has_a_reason_a_status_and_a_documented_exit_code(kind):
    assert kind.reason == kind.reason.upper()
    assert kind.code in GRPC_NAMES
    assert kind.exit_code in {1, 2, 3, 4}


def test_an_error_is_one_line_with_what_to_do():
    error = BadData("row 3\n is  bad", fix="mend\nit")
    assert str(error) == "row 3 is bad; mend it"
    assert str(BadData("no fix")) == "no fix"


def test_an_error_reaches_another_process_whole():
    error = pickle.loads(pickle.dumps(BadData("row 3", fix="mend it", table="users")))
    assert type(error) is BadData
    assert (str(error), error.metadata) == ("row 3; mend it", {"table": "users"})
