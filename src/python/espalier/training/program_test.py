from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from espalier.training.program import LOCK, UNKNOWN, Program, identify


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one module of a package and a lock."""
    root = tmp_path / "checkout"
    package = root / "src/python/espalier/training"
    package.mkdir(parents=True)
    (package / "fit.py").write_text("SEED = 1\n")
    (package / "fit_test.py").write_text("assert 1\n")
    lock = root / LOCK
    lock.parent.mkdir(parents=True)
    lock.write_text("numpy==1\n")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def in_checkout(root: Path, folder: Path) -> Program:
    return identify(folder=folder, package=root / "src/python/espalier/training")


def test_a_checkout_tells_its_commit_its_changes_and_its_lock(checkout, tmp_path) -> None:
    found = in_checkout(checkout, tmp_path)
    assert found.git_commit == git(checkout, "rev-parse", "HEAD")
    assert found.git_dirty == "false"
    assert found.lock_digest == hashlib.sha256(b"numpy==1\n").hexdigest()
    assert found.lock_source == LOCK
    (checkout / "new.py").write_text("")
    assert in_checkout(checkout, tmp_path).git_dirty == "true"


@pytest.fixture
def installed(checkout: Path, tmp_path: Path) -> Path:
    """The package as a PEX unpacks it, without its tests."""
    folder = tmp_path / "site-packages/training"
    shutil.copytree(checkout / "src/python/espalier/training", folder)
    (folder / "fit_test.py").unlink()
    return folder


def test_code_that_was_copied_out_is_known_by_its_bytes(checkout, installed, tmp_path) -> None:
    found = identify(folder=checkout / "src", package=installed)
    assert found.git_commit == git(checkout, "rev-parse", "HEAD")
    assert identify(folder=tmp_path, package=installed).git_commit == UNKNOWN
    # Another checkout than the one it was made from tells nothing of it.
    (installed / "fit.py").write_text("SEED = 2\n")
    assert identify(folder=checkout, package=installed) == Program()


@pytest.mark.parametrize(("baked", "dirty"), [("abc", "false"), ("abc-dirty", "true")])
def test_what_the_build_left_stands_in_for_a_checkout(
    checkout, installed, tmp_path, baked, dirty
) -> None:
    found = identify(folder=tmp_path, package=installed, baked_commit=baked)
    assert (found.git_commit, found.git_dirty) == ("abc", dirty)
    found = identify(folder=checkout, package=installed, baked_commit=baked)
    assert found.git_commit == git(checkout, "rev-parse", "HEAD")


def pex(path: Path, **info: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PEX-INFO", json.dumps(info))
    return path


def test_a_pex_tells_its_digest_and_that_of_its_distributions(installed, tmp_path) -> None:
    wheels = {"numpy-1-py3-none-any.whl": "aa"}
    one = pex(tmp_path / "churn-train.pex", code_hash="c0de", distributions=wheels)
    found = identify(folder=tmp_path, package=installed, pex=one)
    assert (found.pex, found.code_hash) == ("churn-train.pex", "c0de")
    assert found.pex_sha256 == hashlib.sha256(one.read_bytes()).hexdigest()
    assert found.lock_source == "PEX-INFO"
    other = pex(tmp_path / "other.pex", code_hash="c0de", distributions={"numpy-2.whl": "aa"})
    assert identify(folder=tmp_path, package=installed, pex=other).lock_digest != found.lock_digest


def test_what_is_no_pex_tells_nothing(installed, tmp_path) -> None:
    (tmp_path / "file").write_text("no zip")
    for path in (tmp_path / "gone.pex", tmp_path / "file", tmp_path):
        assert identify(folder=tmp_path, package=installed, pex=path) == Program()


def test_without_git_the_commit_is_unknown(checkout, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert in_checkout(checkout, checkout) == Program()
