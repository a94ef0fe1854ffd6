"""Checks of this host: interpreter, environment, addresses, disk."""

from __future__ import annotations

import difflib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from espalier import settings
from espalier.cli.doctor.finding import Finding, Subject, fail, ok, warn
from espalier.errors import ConfigurationError
from espalier.serving import listeners
from espalier.settings import PASSWORD_FILE, Settings, running_pex

_OLDEST, _TOO_NEW = (3, 11, 3), (3, 12)
_GIB = 2**30
# Variables that are no settings: of the launcher, tests, process-compose's file, and a secret's place.
_OTHERS = (
    "ESPALIER_ALERTMANAGER_PORT",
    "ESPALIER_ALERTMANAGER_URL",
    "ESPALIER_EXPORTER_PORT",
    "ESPALIER_GRAFANA_DASHBOARDS",
    "ESPALIER_GRAFANA_PORT",
    "ESPALIER_GRPC_PORT",
    "ESPALIER_HTTP_PORT",
    "ESPALIER_MLFLOW_PORT",
    "ESPALIER_PREFECT_PORT",
    "ESPALIER_PROMETHEUS_PORT",
    "ESPALIER_PYTHON",
    "ESPALIER_REQUIRE_TOOLS",
    "ESPALIER_SERVER_OPTIONS",
    "ESPALIER_TEST_SLOT",
    "ESPALIER_UV",
    "ESPALIER_WORKER_PORT",
    PASSWORD_FILE,
)


def interpreter(_subject: Subject) -> Finding:
    """The Python that our libraries are locked for."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not _OLDEST <= sys.version_info[:3] < _TOO_NEW:
        return fail(
            f"CPython {version} at {sys.executable}", "install CPython 3.11, from 3.11.3 on"
        )
    pex = running_pex()
    return ok(f"CPython {version}, running {pex.name if pex else 'from sources'}")


def environment(subject: Subject) -> Finding:
    """`.env` can be read, its values have their types, and no variable is misspelled."""
    from_file, broken = _env_file(subject.env_file)
    if broken:
        return fail(
            f"{subject.env_file} line {broken} is not NAME=value",
            "mend the line; .env.example shows all there are",
        )
    given = {**from_file, **subject.environ}
    try:
        settings.read(given)
    except ConfigurationError as error:
        return fail(error.message, error.fix)
    known = [*Settings().environment(), *_OTHERS]
    # Docker and PostgreSQL have POSTGRES_ variables of their own: of those only what is near.
    unknown = [name for name in sorted(given) if name.startswith("ESPALIER_") and name not in known]
    unknown += [
        name
        for name in sorted(given)
        if name.startswith("POSTGRES_") and name not in known and _near(name, known, 0.85)
    ]
    if unknown:
        guesses = [f"{name} ({_guess(name, known)})" for name in unknown]
        return warn(
            f"nothing reads {', '.join(guesses)}", "correct the name, or take the variable away"
        )
    where = f"{len(from_file)} from {subject.env_file}" if from_file else "no .env"
    ours = sum(name in known for name in subject.environ)
    return ok(f"{where}, {ours} from the environment, the rest by default")


def _near(name: str, known: list[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=cutoff)


def _guess(name: str, known: list[str]) -> str:
    near = _near(name, known, 0.8)
    return f"did you mean {near[0]}?" if near else "there is none like it"


def _env_file(path: Path) -> tuple[dict[str, str], int]:
    """The variables of a `.env`, and the first line that is none; 0 when all are."""
    from dotenv.parser import parse_stream

    if not path.is_file():
        return {}, 0
    values: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for binding in parse_stream(file):
            if binding.error:
                return values, binding.original.line
            if binding.key is not None and binding.value is not None:
                values[binding.key] = binding.value
    return values, 0


def addresses(subject: Subject) -> Finding:
    """Addresses and URLs are well-formed, of hosts that have an address, and no two are the same."""
    configured = subject.settings
    listening = {
        "ESPALIER_GRPC_ADDRESS": configured.grpc_address,
        "ESPALIER_HTTP_ADDRESS": configured.http_address,
        "ESPALIER_EXPORTER_ADDRESS": configured.exporter_address,
    }
    places = {name: listeners.split(at) for name, at in listening.items() if at}
    if not configured.postgres_host.startswith("/"):
        places["POSTGRES_PORT"] = (configured.postgres_host, configured.postgres_port)
    for name, url in _urls(configured):
        if (place := _place(url)) is None:
            return fail(f"{name} is no http or https address", "write http://HOST:PORT")
        places[name] = place
    seen: dict[tuple[str, int], str] = {}
    for name, place in places.items():
        if (other := seen.setdefault(place, name)) != name:
            return fail(
                f"{other} and {name} are both {place[0]}:{place[1]}", "give each a port of its own"
            )
    for name, (host, port) in places.items():
        try:
            socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or str(error)
            return fail(f"{name}: {host} has no address: {said}", f"correct {name}, or its host")
    return ok(f"{len(places)} addresses, all different")


def _place(url: str) -> tuple[str, int] | None:
    """The host and port of a URL; None when it is not of http or https."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    known = parts.scheme in ("http", "https")
    return (parts.hostname, port) if known and parts.hostname and port else None


def _urls(configured: Settings) -> Iterator[tuple[str, str]]:
    yield "MLFLOW_TRACKING_URI", configured.mlflow_tracking_uri
    if configured.prefect_api_url:
        yield "PREFECT_API_URL", configured.prefect_api_url
    yield "ESPALIER_PROMETHEUS_URL", configured.prometheus_url
    yield "ESPALIER_GRAFANA_URL", configured.grafana_url


def disk(subject: Subject) -> Finding:
    """State, reports and the cache of programs can be written and have room."""
    folders = {
        "ESPALIER_STATE_DIR": subject.settings.state_dir,
        "ESPALIER_REPORTS_DIR": subject.settings.reports_dir,
        "ESPALIER_PEX_CACHE": subject.settings.pex_cache.expanduser(),
    }
    least: tuple[int, Path] | None = None
    for name, folder in folders.items():
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            return fail(f"{name}: {there} is no folder that can be written", f"set {name} anew")
        free = shutil.disk_usage(there).free
        if least is None or free < least[0]:
            least = free, folder
    assert least is not None, "there are folders"
    free, folder = least
    told = f"{free / _GIB:.1f} GiB free for {folder}"
    if free < _GIB:
        return fail(told, "free some: old reports and the cache of programs can go")
    return warn(told, "free some soon") if free < 5 * _GIB else ok(told)
