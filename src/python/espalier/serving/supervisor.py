"""Several worker processes on one port, kept alive by their parent.

The parent keeps the ports and serves nothing itself: the system spreads connections over the
workers' own listening sockets (SO_REUSEPORT). A gRPC channel is one connection, so a caller that
wants several workers opens several channels.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from espalier.errors import ConfigurationError
from espalier.processes import python_environment
from espalier.serving.listeners import bound, split
from espalier.serving.options import Addresses
from espalier.serving.shared_metrics import forget_gauges, share

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# A worker that ran so long did not fail at its start: the next pause is the first one again.
_STEADY_SECONDS = 30.0
# After the workers' own limit: for their transports, and the last write of their log.
_KILL_AFTER = 10.0


class Supervisor:
    """Starts `workers` processes of `command`, and another one for each that ends."""

    def __init__(
        self,
        command: Callable[[str, Path, Addresses], Sequence[str]],
        *,
        workers: int,
        grpc_address: str,
        http_address: str,
        drain_seconds: float,
        ready: Callable[[Addresses], None],
    ) -> None:
        """Describe the workers; nothing is started.

        Args:
            command: The argument vector of a worker, by slot, metrics folder and addresses. It
                writes a line to standard output when it is ready, and ends when its standard
                input does.
            workers: How many run.
            grpc_address: HOST:PORT; the port may be 0.
            http_address: HOST:PORT or empty.
            drain_seconds: How long a worker may take to end.
            ready: Called once, when each worker has been ready.
        """
        self._command, self._workers, self._ready = command, workers, ready
        self._grpc, self._http, self._drain = grpc_address, http_address, drain_seconds
        self._stop = asyncio.Event()
        self._were_ready: set[str] = set()
        self._refusal: int | None = None

    async def run(self) -> int:
        """Keep the workers running until SIGTERM or SIGINT; give the exit code.

        That is 0 when all ended by themselves in time, 1 when one had to be killed, and a worker's
        own code when none could start because of what it was told.

        Raises:
            ConfigurationError: an address is malformed or in use.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        with ExitStack() as exits:
            folder = Path(exits.enter_context(tempfile.TemporaryDirectory("-espalier-metrics")))
            share(folder, "parent")
            # Made only now: it goes into the folder.
            from prometheus_client import CollectorRegistry, Counter

            restarts = Counter(
                "espalier_worker_restarts",
                "Workers that ended by themselves and were started again.",
                registry=CollectorRegistry(),
            )
            addresses = Addresses(
                _keep(exits, self._grpc, "gRPC"),
                _keep(exits, self._http, "HTTP") if self._http else "",
            )
            slots = [f"w{number}" for number in range(self._workers)]
            codes = await asyncio.gather(
                *(self._keep_alive(slot, folder, addresses, restarts.inc) for slot in slots)
            )
        _log.info("stopped", extra={"workers": codes})
        if self._refusal is not None:
            return self._refusal
        return 0 if all(code == 0 for code in codes) else 1

    async def _keep_alive(
        self, slot: str, folder: Path, addresses: Addresses, restarted: Callable[[], None]
    ) -> int:
        """Run one slot's workers, one after the other; give the last one's exit code."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            began = loop.time()
            code = await self._run_once(slot, folder, addresses)
            forget_gauges(folder, slot)
            if self._stop.is_set():
                return code
            if code == ConfigurationError.exit_code and slot not in self._were_ready:
                self._refusal = code
                self._stop.set()
                return code
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            _log.error(
                "worker ended", extra={"worker": slot, "code": code, "restart_seconds": pause}
            )
            try:
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            except TimeoutError:
                pause = min(pause * 2, _LONGEST_PAUSE)
                restarted()
            else:
                return code

    async def _run_once(self, slot: str, folder: Path, addresses: Addresses) -> int:
        """Start a worker and see it to its end; give its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self._command(slot, folder, addresses),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, **python_environment()},
        )
        _log.info("worker started", extra={"worker": slot, "pid": process.pid})
        listening = asyncio.create_task(self._listen(slot, process, addresses))
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                process.terminate()
                try:
                    async with asyncio.timeout(self._drain + _KILL_AFTER):
                        await asyncio.shield(ended)
                except TimeoutError:
                    _log.error("worker killed", extra={"worker": slot})
                    process.kill()
            return await ended
        finally:
            stopping.cancel()
            await listening

    async def _listen(self, slot: str, process: Process, addresses: Addresses) -> None:
        assert process.stdout is not None
        async for _ in process.stdout:
            before = len(self._were_ready)
            self._were_ready.add(slot)
            if before < len(self._were_ready) == self._workers:
                self._ready(addresses)


def worker_command(argv: Sequence[str], slot: str, folder: Path, at: Addresses) -> list[str]:
    """This program with its own arguments, as one worker."""
    return [
        *(sys.executable, "-m", "espalier.serving.main", *argv),
        *("--grpc-address", at.grpc, "--http-address", at.http),
        *("--worker-slot", slot, "--metrics-folder", str(folder)),
    ]


def _keep(exits: ExitStack, address: str, what: str) -> str:
    """Take the address for the workers, until the end; give it with its port."""
    host, port = split(address)
    # Alone at first, so that another server's port is not shared by mistake.
    with bound(host, port, what) as alone:
        chosen: int = alone.getsockname()[1]
    exits.enter_context(bound(host, chosen, what, shared=True, listen=False))
    return f"{host}:{chosen}"
