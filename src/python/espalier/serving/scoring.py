"""Scores rows of features that callers bring along: several requests in one run of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.errors import EspalierError, InvalidRequest, ScoreInvalid
from espalier.serving.batching import Batcher, BatchObserver, Origins
from espalier.serving.loading import LoadedModel
from espalier.serving.scorer import valid

# Up to this many rows a model run blocks the event loop for less than handing it over would take.
INLINE_ROWS = 32


@dataclass(frozen=True, eq=False)
class _Rows:
    """One request's rows; equal to no other, so that each is answered for itself."""

    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """The scores of a request, [n] or [n, k], and the model that gave all of them."""

    model: LoadedModel
    scores: NDArray[np.float64]


async def run_model(model: LoadedModel, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores, unchecked, of rows [n, f]; many rows are scored in a thread."""
    if len(matrix) <= INLINE_ROWS:
        return model.scorer.run(matrix)
    return await asyncio.to_thread(model.scorer.run, matrix)


class RowScorer:
    """Batches requests of feature rows for the model in force."""

    def __init__(
        self,
        describe: Callable[[str], LoadedModel],
        *,
        max_batch: int = 4096,
        max_waiting: int = 200_000,
        max_rows: int = 100_000,
        observer: BatchObserver | None = None,
    ) -> None:
        """Make an idle scorer.

        Args:
            describe: Gives the model in force, by the name that the caller uses.
            max_batch: How many rows of several requests are scored together.
            max_waiting: How many rows may wait before requests are refused.
            max_rows: How many one request may have.
            observer: Is told of batches and refusals.
        """
        self._describe, self._max_rows = describe, max_rows
        self._batcher = Batcher[_Rows, Scored | EspalierError](
            self._run, max_batch=max_batch, max_waiting=max_waiting, workers=1, observer=observer
        )

    async def score(
        self, matrix: NDArray[np.float64], *, model: str, deadline: float | None
    ) -> Scored:
        """The scores of rows [n, f], all by one model version.

        Raises:
            InvalidRequest: there are too many rows, or not as many features as the model takes.
            ScoreInvalid: a score is no probability, or no finite number.
            ModelUnknown, ModelNotReady: see `Predictor.describe`.
            Overloaded, DeadlineTooShort: see `Batcher.submit`.
        """
        self._describe(model)
        if len(matrix) > self._max_rows:
            raise InvalidRequest(
                f"{len(matrix)} rows in one request", fix=f"send at most {self._max_rows}"
            )
        # An empty request still weighs something, or any number of them would be taken.
        size = max(1, len(matrix))
        (result,) = await self._batcher.submit([_Rows(matrix)], deadline, size=size)
        if isinstance(result, EspalierError):
            raise result
        return result

    async def close(self, seconds: float) -> bool:
        """Refuse new requests and wait for those under way; true when all were answered."""
        return await self._batcher.close(seconds)

    async def _run(
        self,
        requests: Sequence[_Rows],
        origins: Origins[_Rows],  # noqa: ARG002  # nothing of these is logged
    ) -> Mapping[_Rows, Scored | EspalierError]:
        model = self._describe("")
        width = len(model.manifest.features)
        # The model may have been swapped for one of another width since the request came.
        fitting = [request for request in requests if request.matrix.shape[1] == width]
        answers: dict[_Rows, Scored | EspalierError] = {
            request: InvalidRequest(
                f"rows of {request.matrix.shape[1]} features", fix=f"the model takes {width}"
            )
            for request in requests
            if request.matrix.shape[1] != width
        }
        if fitting:
            scores = await run_model(model, np.concatenate([r.matrix for r in fitting]))
            ends = np.cumsum([len(request.matrix) for request in fitting])[:-1]
            for request, part in zip(fitting, np.split(scores, ends), strict=True):
                answers[request] = _checked(model, part)
        return answers


def _checked(model: LoadedModel, scores: NDArray[np.float64]) -> Scored | EspalierError:
    task = model.manifest.task
    wrong = ~valid(scores, task)
    if wrong.any():
        what = "finite number" if task == "regression" else "probability"
        return ScoreInvalid(
            f"{int(wrong.sum())} of {len(scores)} rows have a score that is no {what}",
            fix="look for nulls and infinities among the features",
        )
    return Scored(model, scores)
