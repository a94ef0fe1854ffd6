"""What every flow PEX runs: a command line, or the flow run that a Prefect worker asks for.

The PEX's own arguments name the flow as `module:attribute` and the project. Started by a worker,
which says so by PREFECT__FLOW_RUN_ID, the process becomes that flow run's engine. From a shell the
flow's parameters are options; the run is recorded when PREFECT_API_URL names a server, and
otherwise simply done, since Prefect would start a server of its own for it.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espalier import commandline
from espalier.errors import UsageError

# What went wrong is said once, by us, on one line; Prefect's server has the rest. Its logging takes
# names of levels alone.
_NO_CONSOLE = "CRITICAL"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow that the first argument names; give the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get("PREFECT__FLOW_RUN_ID"):
        # The same process, which the worker watches and signals, becomes Prefect's engine.
        engine = [sys.executable, "-m", "prefect.flow_engine", *given[:1]]
        os.execv(sys.executable, engine)  # noqa: S606  # no shell is wanted
    if not sys.warnoptions:
        # Those of libraries are not for who runs a flow; python -W shows them.
        warnings.simplefilter("ignore")
    return commandline.run(_program(), lambda: _from_shell(given))


def _from_shell(given: list[str]) -> int:
    # A run of a worker, which never comes here, begins sooner without them.
    from espalier import settings
    from espalier.orchestration import recorded
    from espalier.orchestration.options import parse, parser_of
    from espalier.project import load_function

    if not given:
        raise UsageError("no flow is named", fix="give it as module:attribute, then its options")
    entrypoint, *rest = given
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", _NO_CONSOLE)
    flow: Any = load_function(entrypoint)
    fixed = {}
    if rest[:1] and rest[0].startswith("--project="):
        fixed["project"] = rest.pop(0).partition("=")[2]
    values = parse(parser_of(flow.fn, _program(), **fixed), rest)
    api_url = settings.load().prefect_api_url
    facts = recorded.run(flow, values, api_url=api_url) if api_url else flow.fn(**values)
    print(json.dumps(facts, indent=2, default=str))
    return 0 if facts["passed"] else 1


def _program() -> str:
    """The PEX's name as it was called."""
    return Path(os.environ.get("PEX") or sys.argv[0]).name


if __name__ == "__main__":
    sys.exit(main())
