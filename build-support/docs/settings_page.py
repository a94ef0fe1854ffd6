"""The page of environment variables, from settings.py."""

from __future__ import annotations

from dataclasses import fields

from docs.markup import code, page, table
from espalier.cli.environment import PORTS
from espalier.settings import PASSWORD, PASSWORD_FILE, Settings

_INTRODUCTION = f"""
Every variable that the platform reads. They are read once, when a program starts. A file `.env` in
the working directory is read too; the environment wins over it. An empty variable is the default.
[.env.example](../../.env.example) is the same list to copy, and `espalier.pex env` writes a `.env`
with a random password. `{PASSWORD_FILE}` names a file that holds the password alone,
as containers' secrets are; `{PASSWORD}` wins over it.
"""
_PORTS = """
## Ports of the stack

`process-compose up` and the containers read these; with them `espalier.pex env --block N` gives a
second checkout ports of its own ([stack](../stack.md)). Programs read the addresses above.
"""


def rendered() -> str:
    """The page."""
    rows = [
        (
            code(field.metadata["env"]),
            code(str(field.default)),
            field.metadata["meaning"],
        )
        for field in fields(Settings)
    ]
    ports = [(code(name), code(str(port))) for name, port in PORTS.items()]
    return page(
        "Settings",
        "src/python/espalier/settings.py",
        _INTRODUCTION,
        table(("variable", "default", "meaning"), rows),
        _PORTS,
        table(("variable", "default"), ports),
    )
