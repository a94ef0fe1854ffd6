"""Runs checks side by side, each for a bounded time; whatever goes wrong is a finding."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from espalier.cli.doctor.finding import Check, Finding, Subject, fail
from espalier.errors import EspalierError


@dataclass(frozen=True)
class Examined:
    """A check's finding, and how long it took."""

    name: str
    finding: Finding
    seconds: float


@dataclass
class _Running:
    """A check under way in a thread. A thread that hangs is left behind; it holds nothing up."""

    check: Check
    done: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)
    found: Examined | None = None

    def settle(self, finding: Finding) -> None:
        if self.found is None:
            self.found = Examined(self.check.name, finding, time.monotonic() - self.began)
        self.done.set()


def examine(checks: Sequence[Check], subject: Subject) -> Iterator[Examined]:
    """The findings, in the checks' order, each as soon as those before it are known.

    A check starts when those that it needs are well; one of them that is not among `checks` is
    taken to be.
    """
    running = {check.name: _Running(check) for check in checks}
    importing = threading.Lock()
    for one in running.values():
        threading.Thread(
            target=_follow, args=(one, running, subject, importing), daemon=True
        ).start()
    for one in running.values():
        one.done.wait()
        assert one.found is not None, "set before done"
        yield one.found


def _follow(
    one: _Running, running: dict[str, _Running], subject: Subject, importing: threading.Lock
) -> None:
    """Wait for what the check needs, then for the check itself, no longer than it may take."""
    for name in one.check.needs:
        if (before := running.get(name)) is None:
            continue
        before.done.wait()
        assert before.found is not None, "set before done"
        if before.found.finding.state in ("fail", "note", "skipped"):
            # The root of it, and not the whole chain.
            root = before.found.finding.what if before.found.finding.state == "skipped" else ""
            one.settle(Finding("skipped", root or f"not looked at: see {name}"))
            return
    # One after another, for large packages import each other in circles.
    with importing:
        broken = _imported(one.check)
    if broken is not None:
        one.settle(broken)
        return
    one.began = time.monotonic()
    answer: list[Finding] = []
    worker = threading.Thread(
        target=lambda: answer.append(_looked(one.check, subject)), daemon=True
    )
    worker.start()
    worker.join(one.check.seconds)
    one.settle(
        answer[0]
        if answer
        else fail(
            f"no answer within {one.check.seconds:g} s: it accepts connections and hangs, or the "
            "machine is overloaded",
            "look at its log, then restart it",
        )
    )


def _looked(check: Check, subject: Subject) -> Finding:
    try:
        return check.run(subject)
    except EspalierError as error:
        return fail(error.message, error.fix or f"see {check.name} in docs/troubleshooting.md")
    except Exception as error:  # noqa: BLE001  # whatever is broken, a person gets a line
        return _surprise(error)


def _imported(check: Check) -> Finding | None:
    """Import what takes long; a finding when it cannot be."""
    try:
        for name in check.imports:
            import_module(name)
    except Exception as error:  # noqa: BLE001  # a broken installation raises anything
        return _surprise(error)
    return None


def _surprise(error: Exception) -> Finding:
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return fail(
        f"{type(error).__name__}: {said}" if said else type(error).__name__,
        "this is no known trouble: see the log of the part, or report it",
    )
