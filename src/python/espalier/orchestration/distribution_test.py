from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable
from espalier.orchestration import distribution
from espalier.testing_web import NOBODY, web_server

CONTENT = b"a program" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "dist" / "a.pex"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def url(program: Path, tmp_path: Path) -> str:
    url = distribution.address(str(tmp_path / "store"), DIGEST, "a.pex")
    assert distribution.publish(program, url)
    return url


def test_a_program_is_published_once_and_fetched_whole(
    url: str, program: Path, tmp_path: Path
) -> None:
    assert not distribution.publish(program, url)
    fetched = distribution.fetch(url, DIGEST, tmp_path / "cache")
    assert fetched.read_bytes() == CONTENT
    assert fetched.stat().st_mode & 0o111
    # The store is not asked again.
    Path(url).unlink()
    assert distribution.fetch(url, DIGEST, tmp_path / "cache") == fetched


@pytest.mark.parametrize("changed", [b"changed", CONTENT[:-1] + b"?"])
def test_what_was_changed_here_is_fetched_again(url: str, tmp_path: Path, changed: bytes) -> None:
    fetched = distribution.fetch(url, DIGEST, tmp_path / "cache")
    before = fetched.stat()
    fetched.write_bytes(changed)
    # Also when the times that can be set are set back.
    os.utime(fetched, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert distribution.fetch(url, DIGEST, tmp_path / "cache").read_bytes() == CONTENT


def test_what_was_changed_there_is_refused_and_nothing_is_kept(url: str, tmp_path: Path) -> None:
    Path(url).write_bytes(b"changed")
    with pytest.raises(BadData, match=r"has the sha256 \w{12}\.\.\., and the deployment wants"):
        distribution.fetch(url, DIGEST, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".lock"]


def test_many_at_once_download_once(program: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Counting, directory=str(program.parent))
    with web_server(handler) as address:
        url = f"http://{address}/a.pex"
        with ThreadPoolExecutor(4) as threads:
            fetch = partial(distribution.fetch, url, DIGEST)
            paths = set(threads.map(fetch, [tmp_path / "cache"] * 4))
    assert [path.read_bytes() for path in paths] == [CONTENT]
    assert asked == ["/a.pex"]


def test_a_store_that_is_away_or_unknown_is_one_line(program: Path, tmp_path: Path) -> None:
    url = f"http://{NOBODY}/a.pex"
    with pytest.raises(DependencyUnreachable, match="check the store of PEXes"):
        distribution.fetch(url, DIGEST, tmp_path / "cache")
    with pytest.raises(DependencyUnreachable):
        distribution.fetch(str(tmp_path / "nowhere" / "a.pex"), DIGEST, tmp_path / "cache")
    with pytest.raises(ConfigurationError, match="whose fsspec library is installed"):
        distribution.publish(program, "nosuch://store/a.pex")


def test_digests_are_recorded_as_sha256sum_does(program: Path) -> None:
    assert distribution.recorded(program.parent) == {}
    distribution.record(program.parent, {"a.pex": DIGEST})
    distribution.record(program.parent, {"b.pex": "0" * 64})
    assert (program.parent / "SHA256SUMS").read_text() == (f"{DIGEST}  a.pex\n{'0' * 64}  b.pex\n")
    assert distribution.recorded(program.parent)["a.pex"] == DIGEST
    (program.parent / "SHA256SUMS").write_text("whatever\n")
    with pytest.raises(ConfigurationError, match="line 1 is not a line of sha256sum"):
        distribution.recorded(program.parent)
