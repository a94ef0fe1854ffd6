from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from espalier import settings
from espalier.cli import environment
from espalier.errors import ConfigurationError, UsageError
from espalier.processes import reserved_port

COMPOSE = Path("deploy/process-compose.yaml").absolute()


def options(*, block=0, keep=False):
    return argparse.Namespace(block=block, keep=keep)


def lines(text):
    return dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))


def test_it_is_written_once_and_for_its_owner_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert environment.run(options(block=2)) == 0
    path = Path(".env")
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    with pytest.raises(ConfigurationError, match=r"\.env is there already"):
        environment.run(options())
    assert environment.run(options(keep=True)) == 0
    assert path.read_text() == before
    assert "block 2" in capsys.readouterr().out


def test_the_password_is_another_one_each_time():
    first, second = (lines(environment.written(0))["POSTGRES_PASSWORD"] for _ in range(2))
    assert first != second
    assert re.fullmatch("[0-9a-f]{32}", first)


def test_no_two_blocks_share_a_port():
    taken = [port for block in range(501) for port in environment.ports(block).values()]
    assert len(taken) == len(set(taken))
    # Below those that the system hands out by itself.
    blocks = taken[len(environment.PORTS) :]
    assert max(blocks) < 32768
    # Nor is one taken by a quickstart while a service of the stack is started again.
    with reserved_port() as port:
        assert port < min(blocks)


@pytest.mark.parametrize("block", [-1, 501])
def test_there_are_so_many_blocks(block):
    with pytest.raises(UsageError, match=f"--block {block} is not between 0 and 500"):
        environment.ports(block)


def test_block_0_is_what_programs_take_by_default():
    written = settings.read(lines(environment.written(0)))
    given = settings.read({"POSTGRES_PASSWORD": written.postgres_password})
    # Without Prefect's address a flow from a shell runs unrecorded.
    assert written.prefect_api_url == "http://127.0.0.1:4200/api"
    assert written.environment() == {
        **given.environment(),
        "PREFECT_API_URL": written.prefect_api_url,
    }


def test_the_stack_is_where_the_file_says():
    text = COMPOSE.read_text()
    named = dict(re.findall(r"\$\{([A-Z_]+_PORT):-(\d+)\}", text))
    assert named == {name: str(port) for name, port in environment.PORTS.items()}
    told = dict(re.findall(r"^  - ([A-Z_]+)=(.*)$", text, re.MULTILINE))
    for name, address in environment.ADDRESSES.items():
        expected = re.sub(
            r"\{(\w+)\}", lambda m: f"${{{m[1]}:-{environment.PORTS[m[1]]}}}", address
        )
        assert told[name] == expected
