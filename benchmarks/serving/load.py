"""Load by the clients that people know: ghz for gRPC, wrk and, at a given rate, vegeta for HTTP."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PREDICT = "espalier.prediction.v1.PredictionService/Predict"
_INSTALL = {
    "ghz": "go install github.com/bojand/ghz/cmd/ghz@v0.93.0",
    "wrk": "apt-get install wrk",
    "vegeta": "go install github.com/tsenart/vegeta/v12@v12.12.0",
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


def paced(url: str, path: str, bodies: Sequence[str], *, rate: float, seconds: float) -> Load:
    """POST the bodies in turn, so many a second whatever the server does.

    A request is sent when it is due, on a further connection while the others wait for answers.
    """
    with tempfile.TemporaryDirectory() as scratch:
        targets, answers = Path(scratch) / "targets.jsonl", Path(scratch) / "answers"
        targets.write_text("".join(_target(f"{url}{path}", body) for body in bodies))
        _run(
            [
                *(_program("vegeta"), "attack", "-format=json", f"-targets={targets}"),
                *(f"-rate={round(rate * 60)}/1m", f"-duration={seconds:g}s", "-timeout=20s"),
                f"-output={answers}",
            ]
        )
        report = json.loads(_run([_program("vegeta"), "report", "-type=json", str(answers)]))
    answered = report["status_codes"].get("200", 0)
    return Load(
        rate=answered / ((report["duration"] + report["wait"]) / 1e9),
        p50=report["latencies"]["50th"] / 1e6,
        p99=report["latencies"]["99th"] / 1e6,
        failed=report["requests"] - answered,
    )


def _target(url: str, body: str) -> str:
    target = {
        "method": "POST",
        "url": url,
        "header": {"Content-Type": ["application/json"]},
        "body": base64.b64encode(body.encode()).decode(),
    }
    return json.dumps(target) + "\n"


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
