"""Whether a server answers over HTTP: what a start waits for."""

from __future__ import annotations

import httpx


def answers(url: str) -> bool:
    """Whether a GET there succeeds within 5 s; whatever keeps it from that is a no."""
    try:
        # Without TLS the certificates need not be loaded, which takes forty times as long.
        return httpx.get(url, timeout=5.0, verify=url.startswith("https")).is_success
    except httpx.HTTPError:
        return False
