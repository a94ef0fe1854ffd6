"""The whole loop on one machine: ingest, features, training, serving, monitoring."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path

from espalier import settings as configuration
from espalier.cli import loop, stack, summary
from espalier.cli.console import Console
from espalier.cli.products import add_project
from espalier.errors import ConfigurationError, UsageError
from espalier.orchestration import recorded
from espalier.project import Project, load_function, load_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Quickstart's options."""
    add_project(parser)
    parser.add_argument(
        "--full", action="store_true", help="all of the project's data, not the sample"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget what earlier runs left and start anew"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="at the end leave everything running until Ctrl-C, and print the addresses",
    )


def run(options: argparse.Namespace) -> int:
    """Run the loop, carrying on from what an earlier run left.

    Raises:
        EspalierError: a stage failed, or another run has the state folder.
    """
    settings, project, console = configuration.load(), load_project(options.project), Console()
    folder = settings.state_dir / ("full" if options.full else "sample") / project.name
    with ExitStack() as exits:
        exits.enter_context(_only_one(folder))
        if options.fresh:
            _forget(folder)
        data = settings.data_dir / project.name
        if options.full:
            with console.step("data") as step:
                data = _full_data(project, folder / "data")
                step.note("built in full")
        months = batches(project, data)
        with console.step("PostgreSQL") as step:
            running = exits.enter_context(stack.running(folder, settings))
            step.note(f"16, on port {running.settings.postgres_port}")
        stack.adopt(running.settings, folder)
        stages = loop.Loop(project, running.settings, console)
        stages.load_libraries(running)
        exits.enter_context(recorded.delivered())
        stages.ingest(months)
        stages.materialize()
        model = stages.train()
        serving = exits.enter_context(stages.serve(running))
        predicted = stages.predict(serving)
        stages.score(folder / "scores" / f"v{model.version}")
        drift = stages.monitor()
        console.say()
        console.say(summary.of_run(project, model, predicted, drift, console.seconds))
        if options.keep:
            entity_id = predicted.grpc.entity_id
            console.say(summary.addresses(project, running, serving, entity_id))
            # Told to stop, it has done what was asked.
            with suppress(KeyboardInterrupt):
                running.keep(serving.process)
        else:
            console.say(
                summary.next_steps(project, named=project.name != settings.product_names[0])
            )
    return 0


def batches(project: Project, folder: Path) -> dict[date, Path]:
    """The batch folders, by the day on which each is known, oldest first.

    Raises:
        ConfigurationError: there are none.
    """
    found = {
        project.calendar.as_of(int(path.name[-3:])): path
        for path in sorted(folder.glob("month_[0-9][0-9][0-9]"))
    }
    if not found:
        raise ConfigurationError(
            f"no batches in {folder}",
            fix="put them there as month_000, month_001 ..., or set ESPALIER_DATA_DIR",
        )
    return found


def _full_data(project: Project, folder: Path) -> Path:
    """The folder with all of the project's data, built at first use."""
    if project.full_data is None:
        raise UsageError(f"project {project.name} has no more data than its sample")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as making:
            load_function(project.full_data)(Path(making) / "data")
            # Whole or not at all, should we be killed.
            (Path(making) / "data").rename(folder)
    return folder


def _forget(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name != _LOCK:
            shutil.rmtree(entry)


_LOCK = "lock"


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the state folder; the system frees it when this process ends in whatever way."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another quickstart is using {folder}",
                fix="end it, or set ESPALIER_STATE_DIR to another folder",
            ) from error
        yield
