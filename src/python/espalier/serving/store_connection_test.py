from __future__ import annotations

import asyncio
import os
import select
import socket

import pytest
import uvloop

from espalier.serving.store_connection import ConnectionLost, StoreConnection


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_is_lost_in_a_read_leaves_the_loop_before_another_has_its_socket(
    dsn, factory
):
    async def body():
        loop = asyncio.get_running_loop()
        connection = await StoreConnection.open(dsn, seconds=60)
        number = connection._socket
        # One round trip, which does not end by itself.
        asleep = b"SELECT pg_sleep(600)"
        read = asyncio.create_task(connection._run(lambda: connection._pg.send_query(asleep)))
        await asyncio.sleep(0)
        with socket.socket(fileno=os.dup(number)) as same:
            same.shutdown(socket.SHUT_RDWR)
        answer = connection._answer
        assert answer is not None
        while not answer.done():
            # As the loop does, but nothing else gets its turn.
            assert select.select([number], [], [], 60)[0]
            connection._on_readable()
        assert not loop.remove_reader(number)
        with pytest.raises(ConnectionLost):
            await read
        assert not connection.is_open

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(body())
