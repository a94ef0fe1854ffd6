"""An own PostgreSQL 16 that takes this process's place: process-compose runs, probes and stops it.

Its role, password and databases are made before it listens, so who reaches it finds them.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from psycopg import sql

from espalier.errors import ConfigurationError, DependencyUnreachable
from espalier.postgres import embedded, programs
from espalier.settings import Settings


def prepare(data: Path, settings: Settings, *databases: str) -> list[str]:
    """Make the cluster at first use, and what is not in it yet; the server's argument vector.

    Args:
        data: The cluster's folder.
        settings: The server's address, and the role whose password is brought to this one.
        databases: More databases than the settings name.

    Raises:
        ConfigurationError: the settings name no password or another host, or the binaries cannot
            run here.
        DependencyUnreachable: initdb fails, or another server has the cluster.
    """
    if not settings.postgres_password:
        raise ConfigurationError(
            "POSTGRES_PASSWORD is not set",
            fix="set it in .env; `espalier.pex env` writes one with a random password",
        )
    if settings.postgres_host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigurationError(
            f"POSTGRES_HOST={settings.postgres_host} is not this machine",
            fix="the stack brings its own PostgreSQL: set 127.0.0.1",
        )
    folder = programs.on_path()
    embedded.make_cluster(
        data, user=settings.postgres_user, password=settings.postgres_password, folder=folder
    )
    postgres = programs.command("postgres", folder=folder)
    _execute(
        [*postgres, "--single", "-D", str(data), "postgres"],
        _statements(settings, settings.postgres_db, *databases),
    )
    listen = ("-h", settings.postgres_host, "-p", str(settings.postgres_port), "-k", "")
    return [*postgres, "-D", str(data), *listen]


def write_psql(path: Path, settings: Settings) -> None:
    """Write a script that is psql on the settings' database: a probe, and a shell for people.

    Args:
        path: The script; the password lies beside it, and none but its owner may read both.
        settings: The database.
    """
    psql = (programs.on_path() or programs.packaged()) / "bin" / "psql"
    address = (settings.postgres_host, str(settings.postgres_port))
    secret = path.with_name(f"{path.name}.pgpass")
    fields = (*address, "*", settings.postgres_user, settings.postgres_password)
    escaped = (field.replace("\\", "\\\\").replace(":", "\\:") for field in fields)
    _write(secret, ":".join(escaped) + "\n", mode=0o600)
    user, database = settings.postgres_user, settings.postgres_db
    command = [str(psql), "-h", address[0], "-p", address[1], "-U", user, "-d", database]
    text = (
        f"#!/bin/sh\nPGPASSFILE={shlex.quote(str(secret.absolute()))} "
        f'PGCONNECT_TIMEOUT=5 exec {shlex.join(command)} "$@"\n'
    )
    _write(path, text, mode=0o700)


def _statements(settings: Settings, *databases: str) -> Iterator[str]:
    role = sql.Identifier(settings.postgres_user)
    password = sql.Literal(settings.postgres_password)
    yield sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(role).as_string()
    yield sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, password).as_string()
    for name in databases:
        query = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), role)
        yield query.as_string()


def _execute(single: list[str], statements: Iterator[str]) -> None:
    """Run statements, one a line, by PostgreSQL without a server; what is there already may stay."""
    script = "".join(f"{' '.join(line.splitlines())}\n" for line in statements)
    done = subprocess.run(single, input=script, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "ERROR:" in line or "FATAL:" in line]
    wrong = [line for line in said if not line.endswith("already exists") or "FATAL:" in line]
    if done.returncode or wrong:
        why = wrong[0] if wrong else done.stderr.strip() or f"exit code {done.returncode}"
        raise DependencyUnreachable(f"PostgreSQL was not prepared: {why}")


def _write(path: Path, text: str, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.making")
    making.touch(mode=mode)
    making.chmod(mode)
    making.write_text(text)
    making.replace(path)
