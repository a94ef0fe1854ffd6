"""The launcher ./pants, run as a user runs it: the real script and bootstrap in a scratch repository.

Where a download would be needed the interpreters are stand-ins: a script that answers the probe as
a CPython would, records how it is called, and plays venv, pip and pex. What uv does when it really
fetches an interpreter is not shown here, only that the launcher asks it and takes the result: the uv
is a stand-in too. pip's refusals come from the real pip.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bootstrap.conftest import (
    PINS,
    PYTHON39,
    PYTHON311,
    STAND_IN,
    Sandbox,
    executable,
    wait_until,
)

SHIM = "#!/bin/bash\necho 'pyenv: python3.9: command not found' >&2\nexit 127\n"


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def first_error(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    return process.stderr.readline()


def pants_version() -> str:
    found = re.search(r'^pants_version = "(.+)"$', Path("pants.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def logical_lines(path: Path) -> list[str]:
    text = path.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["pants", "pex", "uv"])
def test_every_requirement_is_pinned_by_hash_and_no_host_is_named(name: str) -> None:
    path = PINS / f"{name}.txt"
    lines = logical_lines(path)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+(\s+--hash=sha256:[0-9a-f]{64})+", line), line
    assert not re.search(r"://|\.(org|com|io|net|dev)\b", path.read_text())


def test_the_pinned_pants_is_the_one_that_pants_toml_asks_for_with_a_wheel_for_each_platform() -> (
    None
):
    wanted = pants_version()
    pins = {line.split("==")[0]: line for line in logical_lines(PINS / "pants.txt")}
    pants = pins["pantsbuild-pants"]
    assert pants.split()[0] == f"pantsbuild-pants=={wanted}"
    assert pants.count("--hash") == 4


def test_runs_pants_in_the_root_with_the_arguments_given(box: Sandbox) -> None:
    done = box.on_path().run("test", "a b::", "--", "-k x")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [str(box.repo), "args: test a b:: -- -k x"]
    assert "once, about" in done.stderr


def test_hands_pants_the_pex_cli_for_all_platforms(box: Sandbox) -> None:
    out = box.on_path().run().stdout.splitlines()
    (entry,) = box.entries()
    version = logical_lines(PINS / "pex.txt")[0].split()[0].replace("pex==", "v")
    digest = (entry / "pex.digest").read_text().strip()
    assert f"PANTS_PEX_CLI_VERSION={version}" in out
    assert f"PANTS_PEX_CLI_URL_TEMPLATE=file://{entry}/pex" in out
    known = next(line for line in out if line.startswith("PANTS_PEX_CLI_KNOWN_VERSIONS="))
    for platform in ("linux_x86_64", "linux_arm64", "macos_x86_64", "macos_arm64"):
        assert f"'{version}|{platform}|{digest}'" in known
    assert digest.endswith(f"|{(entry / 'pex').stat().st_size}")


def test_installs_by_hash_only(box: Sandbox) -> None:
    box.on_path().run()
    for command, pins in (("install", "pants.txt"), ("download", "pex.txt")):
        (call,) = box.calls(f"-m pip {command}")
        assert "--require-hashes --no-deps --only-binary :all:" in call
        assert str(box.repo / PINS / pins) in call
    (call,) = box.calls("-m pex")
    assert "--no-index" in call


def test_works_by_a_chain_of_symlinks_from_another_folder(box: Sandbox) -> None:
    (box.folder / "first").symlink_to(box.repo / "pants")
    (box.folder / "second").symlink_to("first")
    elsewhere = box.folder / "elsewhere"
    elsewhere.mkdir()
    done = box.on_path().run(cwd=elsewhere, script=box.folder / "second")
    assert done.stdout.splitlines()[:1] == [str(box.repo)]


def test_a_warm_start_runs_no_interpreter_but_pants(box: Sandbox) -> None:
    box.on_path().run()
    before = len(box.calls())
    (box.bin / "python3").unlink()
    done = box.run("--version", PYTHONPATH="/shadow", PYTHONHOME="/shadow")
    assert done.returncode == 0
    assert done.stderr == ""
    (call,) = box.calls()[before:]
    assert "bin/pants --version" in call
    assert "/shadow" not in done.stdout


def test_a_shim_that_does_not_run_is_passed_over_for_pyenvs_newest(box: Sandbox) -> None:
    box.on_path()
    executable(box.bin / "python3.9", SHIM)
    versions = box.folder / "home/.pyenv/versions"
    for version in ("3.9.9", "3.9.18"):
        box.python(versions / version / "bin/python3.9", PYTHON39)
    assert box.run().returncode == 0
    (call,) = box.calls("-m venv")
    assert call.startswith(str(versions / "3.9.18/bin/python3.9"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SHIM, "pyenv: python3.9: command not found"),
        (STAND_IN.replace("$answer", "CPython 3.10 1"), "it is CPython 3.10.1"),
        (STAND_IN.replace("$answer", "PyPy 3.9 1"), "it is PyPy 3.9.1"),
        ("#!/bin/bash\necho 'No module named ensurepip' >&2; exit 1\n", "named ensurepip"),
    ],
    ids=["shim", "other version", "other implementation", "no ensurepip"],
)
def test_a_missing_interpreter_is_one_line_that_says_why_and_exit_code_2(
    box: Sandbox, text: str, reason: str
) -> None:
    box.on_path()
    executable(box.bin / "python3.9", text.replace("$calls", os.devnull))
    done = box.run()
    assert done.returncode == 2
    line = last_line(done)
    assert line.startswith("pants: CPython 3.9 (runs Pants) is missing")
    assert reason in line
    assert "pyenv install 3.9" in line
    assert "ESPALIER_PYTHON39" in line
    assert box.entries() == []


def test_the_probe_takes_a_real_interpreter_for_what_it_is(box: Sandbox) -> None:
    box.on_path()
    done = box.run(ESPALIER_PYTHON39=sys.executable)
    assert done.returncode == 2
    assert "it is CPython 3.11." in last_line(done)
    done = box.run(ESPALIER_PYTHON311=sys.executable)
    assert done.returncode == 0, done.stderr


def test_a_patch_older_than_pants_toml_asks_for_is_missing(box: Sandbox) -> None:
    toml = box.repo / "pants.toml"
    text = re.sub(
        r"(?m)^interpreter_constraints.*$",
        'interpreter_constraints = ["CPython>=3.11.8,<3.12"]',
        toml.read_text(),
    )
    toml.write_text(text)
    done = box.on_path().run()
    assert done.returncode == 2
    assert "CPython 3.11.8+ (runs our code) is missing" in last_line(done)


def test_overrides_win_and_pants_sees_the_311_asked_for_alone(box: Sandbox) -> None:
    box.on_path()
    given39 = box.python(box.folder / "other/python3.9", PYTHON39)
    given311 = box.python(box.folder / "third/python3.11", PYTHON311)
    done = box.run(ESPALIER_PYTHON39=str(given39), ESPALIER_PYTHON311=str(given311))
    assert done.returncode == 0, done.stderr
    (call,) = box.calls("-m venv")
    assert call.startswith(str(given39))
    assert f"PANTS_PYTHON_BOOTSTRAP_SEARCH_PATH=['{given311.parent}']" in done.stdout
    assert f"PATH={given311.parent}:{box.bin}" in done.stdout.splitlines()


@pytest.mark.parametrize("version", ["39", "311"])
def test_a_wrong_override_is_not_replaced_by_another_interpreter(
    box: Sandbox, version: str
) -> None:
    box.on_path().run()
    wrong: dict[str, Any] = {f"ESPALIER_PYTHON{version}": "/nowhere/python"}
    done = box.run(**wrong)
    assert done.returncode == 2
    assert last_line(done).startswith(f"pants: ESPALIER_PYTHON{version}=/nowhere/python is not")


def test_no_python_at_all_is_one_line_and_exit_code_2(box: Sandbox) -> None:
    (box.bin / "python3").unlink()
    done = box.run()
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "install CPython 3.9" in done.stderr


def test_missing_interpreters_are_fetched_by_uv_and_311_is_put_on_path(box: Sandbox) -> None:
    """uv is a stand-in that makes stand-in interpreters: no download can be made here."""
    uv = box.bin / "uv"
    box.python(box.folder / "template39", PYTHON39)
    box.python(box.folder / "template311", PYTHON311)
    executable(
        uv,
        f"""#!/bin/bash
echo "uv $*" >>"{box.calls_file}"
target="$UV_PYTHON_INSTALL_DIR/cpython-$3.1-linux/bin"
mkdir -p "$target" && cp "{box.folder}/template${{3/./}}" "$target/python$3"
""",
    )
    done = box.run(ESPALIER_UV=str(uv))
    assert done.returncode == 0, done.stderr
    assert box.calls("uv ") == ["uv python install 3.9", "uv python install 3.11"]
    bin311 = box.cache / "python/cpython-3.11.1-linux/bin"
    assert f"PATH={bin311}:{box.bin}" in done.stdout.splitlines()
    assert box.run(ESPALIER_UV=str(uv)).returncode == 0
    assert len(box.calls("uv ")) == 2


def test_two_at_once_bootstrap_once(box: Sandbox) -> None:
    box.on_path().hold("install")
    first = box.start("first")
    wait_until(lambda: bool(box.calls("-m pip install")), "the first to reach pip")
    second = box.start("second")
    assert "waiting for another bootstrap" in first_error(second)
    box.release("install")
    for process, name in ((first, "first"), (second, "second")):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert f"args: {name}" in out
    assert len(box.calls("-m pip install")) == 1
    assert len(box.entries()) == 1


@pytest.mark.parametrize("step", ["venv", "install", "download", "pex"])
def test_a_bootstrap_killed_in_any_step_is_begun_again(box: Sandbox, step: str) -> None:
    box.on_path().hold(step)
    killed = box.start()
    call = "-m pex" if step == "pex" else "-m venv" if step == "venv" else f"-m pip {step}"
    wait_until(lambda: bool(box.calls(call)), f"the step {step}")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert box.entries() == []
    box.release(step)
    done = box.run("again")
    assert done.returncode == 0, done.stderr
    assert "args: again" in done.stdout
    assert len(box.calls(call)) == 2
    assert list((box.cache / ".staging").iterdir()) == []


def test_a_pip_that_outlives_its_killed_bootstrap_is_waited_for(box: Sandbox) -> None:
    box.on_path().hold("install")
    killed = box.start()
    wait_until(lambda: bool(box.calls("-m pip install")), "the first to reach pip")
    for pid in (killed.pid, int(box.driver_pid.read_text())):
        os.kill(pid, signal.SIGKILL)
    killed.wait()
    again = box.start("again")
    assert "waiting for another bootstrap" in first_error(again)
    assert len(box.calls("-m pip install")) == 1
    box.release("install")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "args: again" in out
    assert len(box.calls("-m pip install")) == 2


@pytest.mark.parametrize("name", ["pants.txt", "pex.txt", "build.py"])
def test_a_changed_pin_makes_a_new_entry_and_the_old_one_stays(box: Sandbox, name: str) -> None:
    box.on_path().run()
    path = box.repo / PINS / name
    original = path.read_text()
    path.write_text(original + "# changed\n")
    assert box.run().returncode == 0
    assert len(box.entries()) == 2
    path.write_text(original)
    assert box.run().stderr == ""
    assert len(box.calls("-m pip install")) == 2


def test_an_entry_whose_interpreter_is_gone_is_built_again(box: Sandbox) -> None:
    box.on_path().run()
    (entry,) = box.entries()
    (entry / "venv/bin/python").unlink()
    assert box.run("again").returncode == 0
    assert box.entries() == [entry]
    assert len(box.calls("-m pip install")) == 2


def test_pins_that_pants_toml_contradicts_are_refused(box: Sandbox) -> None:
    toml = box.repo / "pants.toml"
    toml.write_text(re.sub(r"(?m)^pants_version.*$", 'pants_version = "9.9"', toml.read_text()))
    done = box.on_path().run()
    assert done.returncode == 2
    assert "build-support/bootstrap/relock" in last_line(done)


def test_a_cache_path_that_pants_cannot_read_is_refused(box: Sandbox) -> None:
    done = box.on_path().run(PANTS_SETUP_CACHE=str(box.folder / "ca che"))
    assert done.returncode == 2
    assert "PANTS_SETUP_CACHE" in last_line(done)


def real_venv_as_python39(box: Sandbox) -> str:
    """An interpreter that says it is 3.9 and is otherwise the one that runs this test."""
    pytest.importorskip("ensurepip", reason="the test's interpreter cannot make a venv with pip")
    path = executable(
        box.folder / "python-3.9-in-name",
        f"""#!/bin/bash
case "$*" in
  *espalier-probe*) printf 'espalier-probe {PYTHON39}\\n%s\\n' "$0" ;;
  *) exec "{sys.executable}" "$@" ;;
esac
""",
    )
    return str(path)


def test_an_index_that_does_not_answer_is_one_line_exit_code_3_and_a_log(box: Sandbox) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        done = box.on_path().run(
            ESPALIER_PYTHON39=real_venv_as_python39(box),
            PIP_INDEX_URL=f"http://127.0.0.1:{closed.getsockname()[1]}/simple",
            PIP_RETRIES="1",
            PIP_CONFIG_FILE=os.devnull,
        )
    assert done.returncode == 3, done.stderr
    line = last_line(done)
    assert "PIP_INDEX_URL" in line
    (log,) = box.cache.glob("*.log")
    assert str(log) in line
    assert "refused" in log.read_text()
    assert list((box.cache / ".staging").iterdir()) == []


def test_a_file_that_differs_from_its_pin_is_refused_with_exit_code_4(box: Sandbox) -> None:
    version = pants_version()
    wheels = box.folder / "wheels"
    wheels.mkdir()
    (wheels / f"pantsbuild_pants-{version}-py3-none-any.whl").write_bytes(b"something else")
    (box.repo / PINS / "pants.txt").write_text(
        f"pantsbuild-pants=={version} --hash=sha256:{'0' * 64}\n"
    )
    done = box.on_path().run(
        ESPALIER_PYTHON39=real_venv_as_python39(box),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(wheels),
        PIP_CONFIG_FILE=os.devnull,
    )
    assert done.returncode == 4, done.stderr
    assert "differs from its pinned hash" in last_line(done)
