"""Runs one command so that it ends when whoever asked for it ends, even by SIGKILL.

Run as a script: `python guard.py SIGNAL GRACE COMMAND...`. Its standard input is a pipe whose other
end the asking process holds and never writes to. End of file there, for whatever reason, sends
SIGNAL to the command's process group, and SIGKILL after GRACE seconds. The guard leaves with the
command's exit code. It uses the standard library alone, and no feature of one platform.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def _signal_group(group: int, number: int) -> bool:
    """Signal a process group; false when it has no process left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def main(argv: list[str]) -> int:
    """Run `argv[2:]` until it ends or standard input closes."""
    stop_signal, grace, command = signal.Signals[argv[0]], float(argv[1]), argv[2:]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the pipe's end counts: a Ctrl-C in the terminal must not race an orderly shutdown.
        signal.signal(ignored, signal.SIG_IGN)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_default_signals,  # noqa: PLW1509  # no thread runs yet
    )
    ended = threading.Event()

    def stop_at_end_of_file() -> None:
        # Not sys.stdin: a thread inside its buffer aborts the interpreter when that ends.
        while os.read(0, 1):
            pass
        if _signal_group(child.pid, stop_signal) and not ended.wait(grace):
            _signal_group(child.pid, signal.SIGKILL)

    threading.Thread(target=stop_at_end_of_file, daemon=True).start()
    code = child.wait()
    ended.set()
    # What the command left behind in its group has no one else to end it.
    _signal_group(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
