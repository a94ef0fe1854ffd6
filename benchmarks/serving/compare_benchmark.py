"""Predict against the usual template and against a bare echo, in one run, side after side.

Run it by `./pants run benchmarks/serving/compare_benchmark.py -- --rounds 5`.

Needs ghz, wrk and vegeta on PATH. Each round starts every side anew and loads it alone, by the same
client on the same cores; sides take turns, the order turns round every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from measure import machine, markdown, spread, spread_header
from serving import load, servers
from serving.load import PREDICT, Load
from serving.place import Place, prepared
from serving.servers import Side

# Of the template's most answers a second; at all of it its queue alone would be measured.
_SHARES = (0.5, 0.7, 0.9)
_OURS_GRPC, _ECHO, _OURS_HTTP, _TEMPLATE = "ours gRPC", "echo gRPC", "ours HTTP", "template HTTP"

Start = Callable[[Place], AbstractContextManager[Side]]
Call = Callable[[Side, int, float], Load]


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/seeds"), help="churn's batches")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--server", help="churn-server.pex; default: from source")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(options.data.absolute(), Path(scratch)) as place,
    ):
        sides: dict[str, tuple[Start, Call]] = {
            _OURS_GRPC: (lambda p: servers.ours(p, program=options.server), _by_grpc(place)),
            _ECHO: (servers.echo, _by_grpc(place)),
            _OURS_HTTP: (lambda p: servers.ours(p, program=options.server), _by_http(place)),
            _TEMPLATE: (servers.template, _by_http(place)),
        }
        found = _measure(place, sides, options.rounds, options.seconds, options.callers)
        _tell(found, options.callers)
        most = max(
            statistics.median(one.rate for one in found[_TEMPLATE, many])
            for many in options.callers
        )
        for share in _SHARES:
            _tell_equal_load(place, sides, most, share, options)
        print(f"\n{machine()}; {len(place.entities):,} customers online")


def _by_grpc(place: Place) -> Call:
    messages: list[dict[str, object]] = [{"entity_id": name} for name in place.entities[:2000]]
    return lambda side, callers, seconds: load.grpc(
        side.grpc, PREDICT, messages, callers=callers, seconds=seconds
    )


def _by_http(place: Place) -> Call:
    key = place.project.entity.join_key
    bodies = [json.dumps({key: name}) for name in place.entities[:2000]]
    return lambda side, callers, seconds: load.http(
        side.http, "/predict", bodies, callers=callers, seconds=seconds
    )


def _measure(
    place: Place,
    sides: dict[str, tuple[Start, Call]],
    rounds: int,
    seconds: float,
    callers: list[int],
) -> dict[tuple[str, int], list[Load]]:
    found: dict[tuple[str, int], list[Load]] = {}
    for number in range(rounds):
        names = list(sides)
        for name in names if number % 2 == 0 else reversed(names):
            start, call = sides[name]
            with start(place) as side:
                call(side, 8, 1.0)  # warms up connections, caches and code paths
                for many in callers:
                    one = call(side, many, seconds)
                    found.setdefault((name, many), []).append(one)
                    print(f"round {number + 1}: {name}, {many} callers: {one}", file=sys.stderr)
    return found


def _tell(found: dict[tuple[str, int], list[Load]], callers: list[int]) -> None:
    lines = [
        [
            f"{name}, {many} callers",
            *spread([load.rate for load in loads], ",.0f"),
            *spread([load.p50 for load in loads], ".2f"),
            *spread([load.p99 for load in loads], ".2f"),
            str(sum(load.failed for load in loads)),
        ]
        for (name, many), loads in sorted(found.items(), key=lambda item: item[0][1])
    ]
    header = [
        "side",
        *spread_header("answers/s"),
        *spread_header("p50 ms"),
        *spread_header("p99 ms"),
        "failed",
    ]
    print(markdown(header, lines))
    ratios = []
    for many in callers:
        for ours, theirs in ((_OURS_GRPC, _ECHO), (_OURS_HTTP, _TEMPLATE), (_OURS_GRPC, _TEMPLATE)):
            pairs = list(zip(found[ours, many], found[theirs, many], strict=True))
            ratios.append(
                [
                    f"{ours} / {theirs}, {many} callers",
                    *spread([one.rate / other.rate for one, other in pairs], ".2f"),
                    *spread([one.p50 - other.p50 for one, other in pairs], ".2f"),
                    *spread([one.p99 / other.p99 for one, other in pairs], ".3f"),
                ]
            )
    print()
    header = [*spread_header("answers/s"), *spread_header("p50 more ms"), *spread_header("p99")]
    print(markdown(["ratio of", *header], ratios))


def _tell_equal_load(
    place: Place,
    sides: dict[str, tuple[Start, Call]],
    most: float,
    share: float,
    options: argparse.Namespace,
) -> None:
    """Latency when both are asked equally often, `share` of the template's most, by one client."""
    key = place.project.entity.join_key
    bodies = [json.dumps({key: name}) for name in place.entities[:2000]]
    rate = most * share
    found: dict[str, list[Load]] = {_OURS_HTTP: [], _TEMPLATE: []}
    for number in range(options.rounds):
        names = list(found)
        for name in names if number % 2 == 0 else reversed(names):
            start, call = sides[name]
            with start(place) as side:
                call(side, 8, 1.0)
                one = load.paced(
                    side.http,
                    "/predict",
                    bodies,
                    rate=rate,
                    seconds=options.seconds * 2,
                )
            found[name].append(one)
            print(f"round {number + 1}: {name}, {rate:.0f}/s: {one}", file=sys.stderr)
    pairs = list(zip(found[_OURS_HTTP], found[_TEMPLATE], strict=True))
    print(f"\nBoth asked {rate:.0f} times a second, {share:.0%} of the template's most:")
    lines = [
        [
            name,
            *spread([one.rate for one in loads], ",.0f"),
            *spread([one.p50 for one in loads], ".2f"),
            *spread([one.p99 for one in loads], ".2f"),
            str(sum(one.failed for one in loads)),
        ]
        for name, loads in found.items()
    ]
    ratio = [
        "ratio",
        *spread([a.rate / b.rate for a, b in pairs], ".2f"),
        *spread([a.p50 / b.p50 for a, b in pairs], ".3f"),
        *spread([a.p99 / b.p99 for a, b in pairs], ".3f"),
        "",
    ]
    header = ["side", *spread_header("answers/s"), *spread_header("p50 ms")]
    print(markdown([*header, *spread_header("p99 ms"), "failed"], [*lines, ratio]))


if __name__ == "__main__":
    main()
