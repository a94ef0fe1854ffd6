from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from stack import compose
from stack.compose import Failed, Stack


def listed(*, status="Running", is_ready="Ready", probed=True, exit_code=0):
    return {
        "name": "one",
        "status": status,
        "is_ready": is_ready,
        "has_ready_probe": probed,
        "exit_code": exit_code,
        "restarts": 0,
        "pid": 7,
    }


@pytest.mark.parametrize(
    ("said", "ready", "given_up"),
    [
        (listed(), True, False),
        (listed(is_ready="Not Ready"), False, False),
        (listed(is_ready="-"), False, False),
        (listed(is_ready="-", probed=False), True, False),
        (listed(status="Pending", is_ready="-"), False, False),
        (listed(status="Restarting", is_ready="-", exit_code=-1), False, False),
        # One that has done its work, or lacks its tool.
        (listed(status="Completed", is_ready="-"), True, False),
        (listed(status="Completed", is_ready="-", exit_code=3), False, True),
        (listed(status="Skipped", is_ready="-", exit_code=1), False, True),
        (listed(status="Error", is_ready="-", exit_code=1), False, True),
    ],
)
def test_what_is_ready_and_what_is_lost(said, ready, given_up):
    state = compose.read_states(json.dumps([said]))["one"]
    assert (state.ready, state.given_up) == (ready, given_up)


def test_the_first_block_with_all_ports_free_is_taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]

        def block(number):
            return {"A_PORT": str(taken if number < 3 else 0), "A_URL": "none", "B_PORT": "0"}

        assert compose.free_block(block, first=1) == 3
        with pytest.raises(Failed, match="no free block of ports from 1 on"):
            compose.free_block(lambda _: {"A_PORT": str(taken)}, first=1)


def test_an_environment_file_is_read():
    assert compose.read_environment("# told\nA=1\nB=http://h/?a=b\n\n") == {
        "A": "1",
        "B": "http://h/?a=b",
    }


def test_a_text_with_the_usual_ports_is_told_with_the_chosen_ones():
    usual, chosen = {"A_PORT": "8000", "B_PORT": "4200"}, {"A_PORT": "20004", "B_PORT": "20002"}
    told = "http://127.0.0.1:8000/x localhost:4200 127.0.0.1:80001 127.0.0.1:5001 8000"
    assert compose.with_ports(told, usual, chosen) == (
        "http://127.0.0.1:20004/x localhost:20002 127.0.0.1:80001 127.0.0.1:5001 8000"
    )


@pytest.fixture
def checkout(tmp_path: Path):
    for name in ("deploy", "data", "dist", "feature_repo"):
        (tmp_path / "checkout" / name).mkdir(parents=True)
    (tmp_path / "checkout" / ".pc_env").touch()
    return tmp_path / "checkout"


def test_a_command_that_fails_tells_all_that_it_said(checkout: Path, tmp_path: Path):
    with Stack(checkout, tmp_path / "one") as stack:
        assert stack.run("pwd").strip() == str(tmp_path / "one")
        with pytest.raises(Failed, match=r"(?s)exit code 3.*out.*err"):
            stack.run("sh", "-c", "echo out; echo err >&2; exit 3")


def test_what_somebody_configured_does_not_reach_the_stack(
    checkout: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("POSTGRES_PORT", "1")
    monkeypatch.setenv("KEPT", "2")
    with Stack(checkout, tmp_path / "one") as stack:
        assert stack.run("sh", "-c", "echo $POSTGRES_PORT/$KEPT") == "/2\n"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_whatever_a_stack_started_is_found_and_ended(checkout: Path, tmp_path: Path):
    with Stack(checkout, tmp_path / "one") as stack:
        assert stack.processes() == []
        # In a session of its own, its parent gone.
        pid = int(stack.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"))
        # In the midst of an exec a process shows no environment.
        until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00")
        assert stack.processes() == [pid]
    until(lambda: not Path(f"/proc/{pid}").exists())


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_programs_that_path_lacks_are_named():
    found = {"a": "/bin/a"}
    assert compose.missing(["a", "b"], found.get) == ["b"]
