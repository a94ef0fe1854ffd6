from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.errors import DependencyUnreachable
from espalier.processes import Process, python_environment, reserved_port

# A server that ignores SIGTERM and has a child of its own; says both pids once they run.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
OWNER = """
import sys, time
from pathlib import Path
from espalier.processes import Process
Process("stubborn", [sys.executable, "-u", "-c", sys.argv[1]], log=Path(sys.argv[2]), grace_seconds=0.3)
time.sleep(600)
"""


def wait(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie waits for a parent of its container to reap it; it runs no more.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_leaves_no_process_not_even_a_stubborn_one(tmp_path: Path, how):
    log = tmp_path / "log"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, STUBBORN, str(log)],
        env={**os.environ, **python_environment()},
    )
    wait(lambda: log.exists() and log.read_text().endswith("\n"))
    pids = [int(word) for word in log.read_text().split()]
    assert [alive(pid) for pid in pids] == [True, True]
    owner.send_signal(how)
    owner.wait()
    wait(lambda: not any(alive(pid) for pid in pids))


def test_stop_is_orderly_and_waits(tmp_path: Path):
    polite = """
import signal, sys, time
def leave(*_):
    print("leaving"); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(600)
"""
    log = tmp_path / "log"
    with Process("polite", [sys.executable, "-c", polite], log=log) as process:
        process.wait_until(lambda: "ready" in log.read_text(), seconds=20)
    assert log.read_text() == "ready\nleaving\n"
    assert process.exit_code == 0


@pytest.mark.parametrize(
    ("printed", "cause", "told"),
    [
        ("first\\nno such thing", "", "no such thing"),
        ("first\\nERROR: full\\nERROR: so it ends\\nbye", "ERROR:", "ERROR: full"),
        ("first\\nbye", "ERROR:", "bye"),
        ("", "", "no output"),
    ],
)
def test_a_server_that_ends_at_start_is_told_with_its_reason(tmp_path: Path, printed, cause, told):
    log = tmp_path / "log"
    log.write_text("ERROR: of the time before\n")
    argv = [sys.executable, "-c", f"import sys; print('{printed}'); sys.exit(3)"]
    with (
        Process("server", argv, log=log, cause=cause) as process,
        pytest.raises(DependencyUnreachable, match=f"exit code 3: {told}; its log is"),
    ):
        process.wait_until(lambda: False, seconds=20)


def test_a_server_that_is_never_ready_is_told(tmp_path: Path):
    code = "import time; time.sleep(600)"
    with (
        Process("server", [sys.executable, "-c", code], log=tmp_path / "log") as process,
        pytest.raises(DependencyUnreachable, match="server was not ready within 0 s"),
    ):
        process.wait_until(lambda: False, seconds=0.2)


@pytest.fixture
def port(tmp_path: Path, monkeypatch) -> Iterator[int]:
    """A port that other tests leave alone, and that can be reserved again."""
    with reserved_port() as port:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        yield port


def test_a_reserved_port_is_the_asked_one_unless_something_listens_there(port):
    with socket.create_server(("127.0.0.1", port)), reserved_port(port) as other:
        assert other != port
    with reserved_port(port) as again:
        assert again == port


def test_a_reserved_port_is_nobody_elses_though_nothing_listens_there_yet(port):
    with reserved_port(port) as first, reserved_port(port) as second:
        assert first == port
        assert second != port
    with reserved_port(port) as again:
        assert again == port


def test_a_reserved_port_is_none_that_the_system_gives_to_others():
    # As ip(7) says.
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with reserved_port() as port:
        assert port < lowest


def test_what_reserves_a_port_is_gone_with_it(port, tmp_path: Path):
    with reserved_port(port):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reserved_port_is_free_again_when_its_holder_is_killed(port, tmp_path: Path):
    holder = """
import sys, time
from espalier.processes import reserved_port
with reserved_port(int(sys.argv[1])) as port:
    print(port, flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(port)],
        stdout=subprocess.PIPE,
        env={**os.environ, **python_environment(), "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == port
    with reserved_port(port) as other:
        assert other != port
    process.kill()
    process.wait()
    process.stdout.close()
    with reserved_port(port) as again:
        assert again == port
