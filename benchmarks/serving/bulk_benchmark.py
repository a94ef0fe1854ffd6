"""BatchPredict and StreamPredict against a bare SQL read of the same rows.

./pants run benchmarks/serving/bulk_benchmark.py -- --rounds 5
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc

from espalier.features.layout import select_rows
from espalier.postgres.connect import connect
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from measure import machine, markdown, rounds, spread, spread_header, table
from serving import servers
from serving.place import Place, prepared


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/seeds"), help="churn's batches")
    parser.add_argument("--server", help="churn-server.pex; default: from source")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000, help="predictions a round")
    parser.add_argument("--batch", type=int, default=1000, help="entities in one request")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(options.data.absolute(), Path(scratch)) as place,
        servers.ours(place, program=options.server) as side,
        grpc.insecure_channel(side.grpc) as channel,
    ):
        stub = pb_grpc.PredictionServiceStub(channel)
        # The customers over and over, as the sample has fewer.
        keys = [place.entities[i % len(place.entities)] for i in range(options.rows)]
        batches = [keys[i : i + options.batch] for i in range(0, len(keys), options.batch)]
        timings = rounds(
            {
                "SQL read": lambda: _read(place, batches),
                "BatchPredict": lambda: _batches(stub, batches),
                "StreamPredict": lambda: _stream(stub, keys),
            },
            options.rounds,
            warm_up=1,
        )
        print(table(timings, rows=options.rows, against="SQL read"))
        base = timings.pop("SQL read").seconds
        shares = [
            [name, *spread([b / s for b, s in zip(base, one.seconds, strict=True)], ".2f")]
            for name, one in timings.items()
        ]
        print("\n" + markdown(["rows/s as a share of", *spread_header("SQL read")], shares))
        print(f"\n{options.batch} entities a batch; {machine()}")


def _read(place: Place, batches: list[list[str]]) -> int:
    project = place.project
    query = select_rows(
        project.name, project.view.name, project.entity.join_key, project.view.features
    )
    with connect(place.dsn) as connection:
        return sum(len(connection.execute(query, [batch]).fetchall()) for batch in batches)


def _batches(stub: pb_grpc.PredictionServiceStub, batches: list[list[str]]) -> int:
    return sum(
        len(stub.BatchPredict(pb.BatchPredictRequest(entity_ids=batch), timeout=60).predictions)
        for batch in batches
    )


def _stream(stub: pb_grpc.PredictionServiceStub, keys: list[str]) -> int:
    def requests() -> Iterator[pb.StreamPredictRequest]:
        for key in keys:
            yield pb.StreamPredictRequest(entity_id=key)

    return sum(1 for _ in stub.StreamPredict(requests(), timeout=600))


if __name__ == "__main__":
    main()
