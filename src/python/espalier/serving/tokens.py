"""Bearer tokens: a file of their hashes, read again when it changes.

A line is `NAME SHA256 [EXPIRES]`: whose token it is, the sha256 of the token in hexadecimal, and the
day (UTC) from which it is refused. Two lines may have one name, so that the next token is valid
before the last one ends. A token of ours is 256 random bits, which nobody finds by trying: there is
nothing for a slow, salted password hash to protect, and sha256 costs a request a microsecond.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from espalier.errors import ConfigurationError, Unauthenticated

_log = logging.getLogger(__name__)

PREFIX = "espalier_"
_LOOK_SECONDS = 1.0
_SCHEME = "bearer "
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_FIELDS = (2, 3)


@dataclass(frozen=True)
class Token:
    """One token that is accepted, until the day `expires` begins."""

    name: str
    digest: bytes
    expires: date | None = None


def new_token(name: str) -> tuple[str, str]:
    """A fresh token and the line for the file, which does not tell it.

    Raises:
        ConfigurationError: the name has characters that a line cannot hold.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a token's name", fix="use letters, digits, dot, dash and underscore"
        )
    token = PREFIX + secrets.token_urlsafe(32)
    return token, f"{name} {hashlib.sha256(token.encode()).hexdigest()}"


def parse(text: str, what: str) -> tuple[Token, ...]:
    """The tokens of a file's text; `#` begins a comment.

    Raises:
        ConfigurationError: a line is malformed, or there is no token at all.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            if len(fields) not in _FIELDS or not _NAME.fullmatch(fields[0]):
                raise ValueError  # noqa: TRY301  # each fault of a line is told alike
            if not _HASH.fullmatch(fields[1]):
                raise ValueError  # noqa: TRY301  # likewise
            expires = date.fromisoformat(fields[2]) if fields[2:] else None
        except ValueError as error:
            raise ConfigurationError(
                f"{what} line {number} is not NAME SHA256 [YYYY-MM-DD]",
                fix="make one with --new-token NAME",
            ) from error
        tokens.append(Token(fields[0], bytes.fromhex(fields[1]), expires))
    if not tokens:
        raise ConfigurationError(f"{what} holds no token", fix="make one with --new-token NAME")
    return tuple(tokens)


class TokenFile:
    """The tokens in a file. A change is in force a second later; a broken one is logged."""

    def __init__(
        self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it cannot be read, or a line is malformed.
        """
        self._path, self._clock = path, clock
        self._seen = self._stamp()
        self._tokens = self._read()
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def name_of(self, authorization: str | None) -> str:
        """The name of the token in an `Authorization: Bearer TOKEN` header.

        Raises:
            Unauthenticated: there is none, or it is unknown or expired.
        """
        self._renew()
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated(
                "this call needs a token", fix="send the header Authorization: Bearer TOKEN"
            )
        given = hashlib.sha256(
            authorization[len(_SCHEME) :].strip().encode(errors="replace")
        ).digest()
        found = None
        # Over all of them: neither time nor order tells which one was nearly right.
        for token in self._tokens:
            if hmac.compare_digest(token.digest, given):
                found = token
        if found is None or (found.expires is not None and self._clock().date() >= found.expires):
            raise Unauthenticated("the token is not valid", fix="ask for a new one")
        return found.name

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            self._tokens = self._read()
        except ConfigurationError as error:
            # Those of before stay in force: a slip of an editor locks nobody out.
            _log.error("tokens not renewed", extra={"problem": str(error)})
        else:
            _log.info("tokens renewed", extra={"names": [t.name for t in self._tokens]})

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[Token, ...]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        return parse(text, str(self._path))

    def _unreadable(self, error: Exception) -> ConfigurationError:
        told = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return ConfigurationError(f"tokens file {self._path} cannot be read: {told}")
