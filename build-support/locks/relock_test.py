from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from locks import relock

FOLDER = Path("3rdparty/python")
LINE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<marker> ; [^\\]+)?( \\)?$")


def requirements(name):
    for source in relock.LOCKS[name]:
        for line in (FOLDER / source).read_text().splitlines():
            if text := line.partition("#")[0].strip():
                yield Requirement(text)


def locked(name):
    text = (FOLDER / f"{name}.lock").read_text()
    return {
        canonicalize_name(found["name"]): found["version"]
        for line in text.splitlines()
        if (found := LINE.match(line))
    }


@pytest.fixture(autouse=True)
def in_this_checkout(monkeypatch):
    monkeypatch.setattr(relock, "FOLDER", FOLDER)


@pytest.mark.parametrize("name", relock.LOCKS)
def test_the_lock_is_of_these_requirements(name):
    made_of = (FOLDER / f"{name}.lock").read_text().split("\n", 1)[0].rpartition(" ")[2]
    assert made_of == relock.inputs_digest(relock.LOCKS[name]), (
        f"{name}.lock is older than its requirements: python3 build-support/locks/relock.py {name}"
    )


@pytest.mark.parametrize("name", relock.LOCKS)
def test_every_requirement_is_locked_at_a_version_it_allows(name):
    versions = locked(name)
    for requirement in requirements(name):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("name", relock.LOCKS)
def test_a_lock_holds_names_versions_and_hashes_and_no_address(name):
    lines = (FOLDER / f"{name}.lock").read_text().splitlines()
    hashed = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
    assert all(LINE.match(line) or hashed.match(line) for line in lines[1:])
    for line, following in zip(lines[1:], [*lines[2:], ""], strict=True):
        if LINE.match(line):
            assert hashed.match(following), f"{line} has no hash"


def test_a_marker_of_all_lines_is_dropped_and_another_one_kept():
    common = "python_full_version < '3.12' and sys_platform == 'linux'"
    lock = (
        f"one==1 ; {common} \\\n    --hash=sha256:1\n"
        f"two==2 ; {common} and platform_machine == 'x86_64' \\\n    --hash=sha256:2\n"
        f"three==3 ; {common} and implementation_name != 'PyPy' \\\n    --hash=sha256:3\n"
        f"four==4 ; {common} \\\n    --hash=sha256:4\n"
    )
    assert relock.without_common_marker(lock) == (
        "one==1 \\\n    --hash=sha256:1\n"
        "two==2 ; platform_machine == 'x86_64' \\\n    --hash=sha256:2\n"
        "three==3 \\\n    --hash=sha256:3\n"
        "four==4 \\\n    --hash=sha256:4\n"
    )


@pytest.mark.parametrize("package", ["numpy", "grpcio", "psycopg-binary", "onnxruntime", "pyarrow"])
def test_compiled_packages_are_locked_for_every_platform(package):
    """A wheel each for Linux and macOS: more hashes than one platform has."""
    text = (FOLDER / "default.lock").read_text()
    entry = re.search(rf"^{package}==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert entry is not None
    assert entry[0].count("--hash") > 4


def test_an_unknown_lock_is_one_line_and_exit_code_2(capsys):
    assert relock.main(["nope"]) == 2
    assert capsys.readouterr().err.startswith("relock: no lock 'nope'; there are default")
