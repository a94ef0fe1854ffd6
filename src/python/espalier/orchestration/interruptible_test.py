from __future__ import annotations

import signal
import threading
import time

import pytest

from espalier.orchestration.interruptible import interruptible


class Passed(BaseException):
    """What the handler that was in force before raises."""


@pytest.fixture(autouse=True)
def _handler():
    def handler(_number, _frame):
        raise Passed

    before = signal.signal(signal.SIGTERM, handler)
    yield
    assert signal.signal(signal.SIGTERM, before) is handler


def test_sigterm_interrupts_and_then_is_passed_on():
    inside = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
        except BaseException as error:
            inside.append(type(error))
            raise

    with pytest.raises(Passed), interruptible():
        work()
    assert inside == [KeyboardInterrupt]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_are_as_they_were(error):
    with pytest.raises(error), interruptible():
        raise error


def test_it_works_beside_the_main_thread():
    seen = []

    def work():
        with interruptible():
            seen.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["done"]
