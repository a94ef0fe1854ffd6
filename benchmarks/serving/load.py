"""Load by the clients that people know: ghz for gRPC, wrk for HTTP."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

PREDICT = "espalier.prediction.v1.PredictionService/Predict"
_INSTALL = {
    "ghz": "go install github.com/bojand/ghz/cmd/ghz@v0.93.0",
    "wrk": "apt-get install wrk",
}
# Every thread begins at its own place in the list and goes through it.
_WRK_SCRIPT = """\
local bodies = {%s}
local at = 0
function init(args) at = math.random(#bodies) end
function request()
  at = at %% #bodies + 1
  return wrk.format("POST", "%s", {["Content-Type"] = "application/json"}, bodies[at])
end
function done(summary, latency, requests)
  io.write(string.format('JSON {"requests": %%d, "microseconds": %%d, "errors": %%d, ' ..
    '"p50": %%f, "p99": %%f}\\n', summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What a client saw: answers a second, latencies in milliseconds, calls that failed."""

    rate: float
    p50: float
    p99: float
    failed: int


def grpc(
    address: str,
    method: str,
    messages: Sequence[dict[str, object]],
    *,
    callers: int,
    seconds: float,
    rate: int = 0,
    protoset: Path | None = None,
) -> Load:
    """Call `package.Service/Method` for `seconds`, the messages in turn.

    Args:
        address: HOST:PORT.
        method: The full method name.
        messages: Requests as JSON.
        callers: How many call at once, each on a connection shared by 16.
        seconds: How long.
        rate: Calls a second in all, or 0 for as many as go.
        protoset: Descriptors, for a server without reflection.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "messages.json"
        data.write_text(json.dumps(list(messages)))
        output = _run(
            [
                *(_program("ghz"), "--insecure", "--call", method, "--data-file", str(data)),
                *("--concurrency", str(callers), "--connections", str(max(1, callers // 16))),
                *("--duration", f"{seconds}s", "--duration-stop", "wait", "--format", "json"),
                *(("--rps", str(rate)) if rate else ()),
                *(("--protoset", str(protoset)) if protoset else ()),
                address,
            ]
        )
    report = json.loads(output)
    percentiles = {p["percentage"]: p["latency"] / 1e6 for p in report["latencyDistribution"] or ()}
    answered = sum(n for code, n in report["statusCodeDistribution"].items() if code == "OK")
    return Load(
        rate=answered / (report["total"] / 1e9),
        p50=percentiles.get(50, float("nan")),
        p99=percentiles.get(99, float("nan")),
        failed=report["count"] - answered,
    )


def http(url: str, path: str, bodies: Sequence[str], *, callers: int, seconds: float) -> Load:
    """POST the bodies in turn for `seconds`, by `callers` connections."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "post.lua"
        script.write_text(_WRK_SCRIPT % (", ".join(f"[==[{body}]==]" for body in bodies), path))
        output = _run(
            [
                *(_program("wrk"), "--threads", "1", "--connections", str(callers)),
                *("--duration", f"{seconds:g}s", "--timeout", "20s", "--script", str(script), url),
            ]
        )
    found = re.search(r"JSON (\{.*\})", output)
    if found is None:
        raise RuntimeError(f"wrk said: {output}")
    report = json.loads(found[1])
    return Load(
        rate=(report["requests"] - report["errors"]) / (report["microseconds"] / 1e6),
        p50=report["p50"] / 1e3,
        p99=report["p99"] / 1e3,
        failed=report["errors"],
    )


def paced(
    url: str, path: str, bodies: Sequence[str], *, rate: float, callers: int, seconds: float
) -> Load:
    """POST the bodies in turn, so many a second whatever the server does; by `callers` connections.

    A latency counts from when the request was due, so one that had to wait for a connection, since
    those before it took long, has that in it.
    """
    address = urlsplit(url)
    connections = threading.local()

    def post(body: str, due: float) -> tuple[float, bool]:
        time.sleep(max(0.0, due - time.perf_counter()))
        if not hasattr(connections, "own"):
            connections.own = HTTPConnection(str(address.hostname), address.port, timeout=20)
        connections.own.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connections.own.getresponse()
        answer.read()
        return time.perf_counter() - due, answer.status == HTTPStatus.OK

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter() + 0.1
        count = max(1, int(rate * seconds))
        answers = list(
            pool.map(
                post,
                (bodies[number % len(bodies)] for number in range(count)),
                (began + number / rate for number in range(count)),
            )
        )
        took = time.perf_counter() - began
    milliseconds = sorted(seconds * 1e3 for seconds, _ in answers)
    answered = sum(ok for _, ok in answers)
    return Load(
        rate=answered / took,
        p50=milliseconds[count // 2],
        p99=milliseconds[min(count - 1, count * 99 // 100)],
        failed=count - answered,
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not on PATH; install it: {_INSTALL[name]}")
    return found
