from __future__ import annotations

import re
import subprocess
from pathlib import Path

from espalier.testing_tools import tool

COMPOSE = Path("deploy/process-compose.yaml").absolute()


def test_process_compose_takes_the_file_by_its_strict_rules(tmp_path: Path):
    done = subprocess.run(
        [tool("process-compose"), "-f", COMPOSE, "-L", tmp_path / "log", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    declared = re.findall(
        r"^  ([a-z]+):$", COMPOSE.read_text().partition("\nprocesses:\n")[2], re.MULTILINE
    )
    assert f"Validated {len(declared)} configured processes" in done.stdout


def test_every_process_logs_to_a_file_and_every_server_has_a_probe():
    text = COMPOSE.read_text().partition("\nprocesses:\n")[2]
    processes = re.split(r"^  (?=[a-z]+:$)", text, flags=re.MULTILINE)[1:]
    for process in processes:
        name = process.partition(":")[0]
        assert f"/stack/logs/{name}.log" in process, name
        kept = "<<: *server" in process or "<<: *optional" in process
        assert kept == ("readiness_probe:" in process), name
        assert kept == ("shutdown:" in process), name
        assert kept or "<<: *once" in process, name
