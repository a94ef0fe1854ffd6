"""One thread for all fits of the tests, as training itself has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads for small sums wait for each other, the more the busier the machine is."""
    with threadpool_limits(1):
        yield
