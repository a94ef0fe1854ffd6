"""TLS for both transports, from PEM files that are read again when they change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from espalier.errors import ConfigurationError

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """A certificate chain, its key, and for mTLS the authorities whose clients are let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The context of a server, TLS 1.2 and newer.

        Raises:
            ConfigurationError: a file cannot be read, or key and certificate do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load_into(context)
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:  # an SSLError is one
                raise _unusable(f"client authorities {self.client_ca}", error) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have new connections of `context` use the certificate as it is now.

        Raises:
            ConfigurationError: see `context`.
        """
        try:
            # Without a password a protected key would be asked for at the terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except OSError as error:
            raise _unusable(f"certificate {self.certificate} with key {self.key}", error) from error

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """The same for gRPC, which looks at the files at each handshake.

        Raises:
            ConfigurationError: see `context`.
        """
        self.context()
        seen = self.stamp()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            now = self.stamp()
            if now == seen:
                return None
            seen = now
            try:
                self.context()
                return self._grpc_configuration()
            except (ConfigurationError, OSError) as error:
                # Between the two files of a renewal: the next handshake looks again.
                _log.warning("certificate not renewed", extra={"problem": str(error)})
                return None

        return grpc.dynamic_ssl_server_credentials(
            self._grpc_configuration(),
            renewed,  # type: ignore[arg-type]  # None is for no change, as its documentation says
            require_client_authentication=self.client_ca is not None,
        )

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        roots = None if self.client_ca is None else self.client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def stamp(self) -> tuple[int, ...]:
        """Changes when a file does; 0 for one that is not there just now."""
        stamps = []
        for path in filter(None, [self.certificate, self.key, self.client_ca]):
            try:
                stamps.append(path.stat().st_mtime_ns)
            except OSError:
                stamps.append(0)
        return tuple(stamps)


async def keep_current(files: TlsFiles, context: ssl.SSLContext) -> None:
    """Have `context` follow the files, until cancelled."""
    seen = files.stamp()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if (now := files.stamp()) == seen:
            continue
        try:
            files.load_into(context)
        except ConfigurationError as error:
            _log.warning("certificate not renewed", extra={"problem": str(error)})
        else:
            seen = now
            _log.info("certificate renewed")


def _unusable(what: str, error: OSError) -> ConfigurationError:
    told = getattr(error, "reason", None) or error.strerror or "it is not PEM"
    return ConfigurationError(
        f"TLS: {what} cannot be used: {told}", fix="give PEM files that belong together"
    )
