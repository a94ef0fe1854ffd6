"""The whole stack from an empty state, for real: `python3 build-support/stack/check.py`.

It runs the programs in dist/ (`./pants package ::`) with the tools of build-support/tools/install:
up, a prediction, every flow by the worker, what README.md and docs/ tell to type, each process
killed once, a second checkout beside it, down. Exit code 0 when all of that went well. Linux; nothing but Python's standard library.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docblocks import main as docblocks
from docblocks.blocks import Fault, Setting
from docblocks.session import Failed as NotAsTold
from docblocks.session import Place
from stack.compose import Failed, Stack, missing
from stack.deployments import Prefect, declared

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = ("process-compose", "grpcurl", "prometheus", "alertmanager")
# Of the committed data.
ENTITY, NEWEST_BATCH = "00004", "1998-06-30"
SERVICE = "espalier.prediction.v1.PredictionService"
# What a page tells and this check does, or the stack.
OWN = (
    "process-compose up",
    "process-compose down",
    "dist/espalier.pex worker",
    "dist/espalier.pex exporter",
)
_PATIENCE_SECONDS = 300
_DOCTOR_SECONDS = 60


class Lines:
    """What is said, each line with the seconds so far."""

    def __init__(self) -> None:
        """Time begins."""
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say a line."""
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)


def main() -> int:
    """Check all; give the exit code."""
    if lost := missing(TOOLS, shutil.which):
        print(f"stack: not on PATH: {', '.join(lost)}; build-support/tools/install gets them")
        return 2
    if not (CHECKOUT / "dist" / "espalier.pex").exists():
        print("stack: dist/ has no programs; run ./pants package ::")
        return 2
    # Told to end, in whatever way, it leaves nothing running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    say = Lines()
    folder = Path(tempfile.mkdtemp(prefix="espalier-stack-"))
    try:
        with Stack(CHECKOUT, folder / "one") as one, Stack(CHECKOUT, folder / "two") as two:
            check(one, two, say)
    except (Failed, Fault, NotAsTold) as error:
        say(f"FAILED: {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def check(one: Stack, two: Stack, say: Lines) -> None:
    """Every check, in an order that leaves both stacks ended.

    Raises:
        Failed, Fault, NotAsTold: one said no.
    """
    one.run("dist/espalier.pex", "--help", seconds=2 * _PATIENCE_SECONDS)
    say("espalier.pex is unpacked")
    block = one.choose_ports(first=1)
    one.up()
    one.wait_until_ready(seconds=2 * _PATIENCE_SECONDS)
    say(f"up from an empty state, on the ports of block {block}")
    told = one.log_of("grafana").splitlines()[-1]
    if one.states()["grafana"].status == "Completed":
        say(told)
    say(predicted(one))
    say(healthy(one))
    prefect = Prefect(one.environment["PREFECT_API_URL"])
    for name in declared(one.folder / "deploy" / "prefect" / "deployments.toml"):
        given = {"as_of": NEWEST_BATCH, **({"wait_seconds": 0} if name.startswith("loop/") else {})}
        took = prefect.wait(prefect.start(name, given), seconds=_PATIENCE_SECONDS)
        say(f"{name} by the worker: Completed, {took:.1f} s of run time")
    as_told(one, say)
    say(healthy(one))
    for name in sorted(state.name for state in one.states().values() if state.runs):
        one.kill(name, seconds=_PATIENCE_SECONDS)
        healthy(one)
        say(f"{name} killed: started again, all ready, doctor is green")
    say(predicted(one))
    block = two.choose_ports(first=block + 1)
    two.up()
    two.wait_until_ready(seconds=2 * _PATIENCE_SECONDS)
    say(f"a second checkout beside it, on the ports of block {block}")
    say(predicted(two))
    two.down(seconds=60)
    say("the second one down: no process left")
    say(healthy(one))
    one.down(seconds=60)
    say("down: no process left")


def as_told(stack: Stack, say: Lines) -> None:
    """Type what the pages tell, those for a fresh folder in folders of their own."""
    found = docblocks.find(CHECKOUT)

    def fresh() -> Place:
        folder = stack.folder.parent / secrets.token_hex(4)
        return Place(folder, Stack(CHECKOUT, folder).variables)

    def running() -> Place:
        # The page before may have restarted something.
        stack.wait_until_ready(seconds=_PATIENCE_SECONDS)
        return Place(stack.folder, stack.variables, stack.here, OWN)

    for setting, place in ((Setting.FRESH, fresh), (Setting.STACK, running)):
        docblocks.run_all(docblocks.of_setting(found, setting), place, say)
    stack.wait_until_ready(seconds=_PATIENCE_SECONDS)
    say(docblocks.summary(found))


def predicted(stack: Stack) -> str:
    """Ask the prediction server as a person does, by grpcurl; what it answered."""
    address = stack.environment["ESPALIER_GRPC_ADDRESS"]
    listed = stack.run("grpcurl", "-plaintext", address, "list").split()
    if SERVICE not in listed:
        raise Failed(f"grpcurl lists {listed}, not {SERVICE}")
    asked = json.dumps({"entity_id": ENTITY})
    answer = stack.run("grpcurl", "-plaintext", "-d", asked, address, f"{SERVICE}/Predict")
    found = json.loads(answer)
    if not 0 < found["score"] < 1:
        raise Failed(f"no score between 0 and 1: {answer}")
    return f"Predict of {ENTITY}: score {found['score']:.4f}"


def healthy(stack: Stack) -> str:
    """Let doctor look, again while it fails: Prometheus reads its targets after it is ready."""
    deadline = time.monotonic() + _DOCTOR_SECONDS
    while True:
        try:
            said = stack.run("dist/espalier.pex", "doctor", "--as-of", NEWEST_BATCH)
        except Failed:
            if time.monotonic() > deadline:
                raise
        else:
            return f"doctor is green, {len(said.splitlines())} lines"


if __name__ == "__main__":
    sys.exit(main())
