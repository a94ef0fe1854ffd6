from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.errors import DeadlineTooShort, DependencyUnreachable, Overloaded
from espalier.serving import batching
from espalier.serving.batching import Batcher


class Runner:
    """Answers "k" with "k!", but only when `gate` is open; keeps what it was given."""

    def __init__(self, *, is_open: bool = True):
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.started = asyncio.Semaphore(0)
        if is_open:
            self.gate.set()

    async def __call__(self, keys, origins):
        assert list(origins) == list(keys)
        self.batches.append(list(keys))
        self.started.release()
        await self.gate.wait()
        if "bad" in keys:
            raise ValueError("a bad key")
        return {key: key + "!" for key in keys}


class Sheds:
    def __init__(self):
        self.reasons: list[str] = []

    def shed(self, reason):
        self.reasons.append(reason)

    def batch(self, size, waited):
        assert size > 0
        assert all(seconds >= 0 for seconds in waited)


async def waiting_behind(batcher, runner, *requests):
    """Occupy the only worker, then submit `requests`, which wait in the queue."""
    first = asyncio.create_task(batcher.submit(["first"]))
    await runner.started.acquire()
    tasks = [asyncio.create_task(batcher.submit(keys)) for keys in requests]
    await asyncio.sleep(0)
    return first, tasks


def test_what_waits_goes_in_one_batch_and_each_gets_its_own():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1)
        first, tasks = await waiting_behind(batcher, runner, ["a", "b"], ["c"], ["b", "a", "b"])
        assert batcher.waiting == 6
        runner.gate.set()
        assert await asyncio.gather(first, *tasks) == [
            ["first!"],
            ["a!", "b!"],
            ["c!"],
            ["b!", "a!", "b!"],
        ]
        assert runner.batches == [["first"], ["a", "b", "c"]]
        assert batcher.waiting == 0

    asyncio.run(body())


def test_a_cancelled_caller_does_not_hurt_its_batch_mates():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1)
        first, tasks = await waiting_behind(batcher, runner, ["a"], ["b"], ["c"], ["d"])
        # Only the batch that runs is let through; the next one waits at a gate of its own.
        let_through, runner.gate = runner.gate, asyncio.Event()
        let_through.set()
        await first
        await runner.started.acquire()
        assert runner.batches[1] == ["a", "b", "c", "d"]
        assert not any(task.done() for task in tasks)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        runner.gate.set()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == ["a!"]
        assert isinstance(results[1], asyncio.CancelledError)
        assert results[2:] == [["c!"], ["d!"]]
        assert await batcher.submit(["e"]) == ["e!"]

    asyncio.run(body())


def test_a_caller_cancelled_in_the_queue_is_not_run_and_gives_its_room_back():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1, max_waiting=2)
        first, (gone, stays) = await waiting_behind(batcher, runner, ["gone"], ["stays"])
        with pytest.raises(Overloaded):
            await batcher.submit(["x"])
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        late = asyncio.create_task(batcher.submit(["late"]))
        await asyncio.sleep(0)
        runner.gate.set()
        assert await asyncio.gather(first, stays, late) == [["first!"], ["stays!"], ["late!"]]
        assert runner.batches[1:] == [["stays", "late"]]

    asyncio.run(body())


def test_a_full_queue_refuses_and_those_in_it_are_answered():
    async def body():
        runner, sheds = Runner(is_open=False), Sheds()
        batcher = Batcher(runner, workers=1, max_waiting=3, observer=sheds)
        first, tasks = await waiting_behind(batcher, runner, ["a", "b"])
        with pytest.raises(Overloaded, match="2 keys wait"):
            await batcher.submit(["c", "d"])
        assert sheds.reasons == ["overloaded"]
        tasks.append(asyncio.create_task(batcher.submit(["c"])))
        await asyncio.sleep(0)
        runner.gate.set()
        await asyncio.gather(first, *tasks)

    asyncio.run(body())


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits():
    async def body():
        runner = Runner()
        batcher = Batcher(runner, max_batch=2, max_waiting=3)
        keys = [str(n) for n in range(10)]
        assert await batcher.submit(keys) == [key + "!" for key in keys]
        assert runner.batches == [keys]

    asyncio.run(body())


def test_a_request_is_never_split_and_batches_keep_their_size():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1, max_batch=3)
        first, tasks = await waiting_behind(batcher, runner, ["a", "b"], ["c", "d"], ["e"])
        runner.gate.set()
        await asyncio.gather(first, *tasks)
        assert runner.batches[1:] == [["a", "b"], ["c", "d", "e"]]

    asyncio.run(body())


def test_a_passed_deadline_is_refused_at_once():
    async def body():
        runner, sheds = Runner(), Sheds()
        batcher = Batcher(runner, observer=sheds)
        with pytest.raises(DeadlineTooShort):
            await batcher.submit(["a"], asyncio.get_running_loop().time() - 0.001)
        assert runner.batches == []
        assert sheds.reasons == ["deadline"]

    asyncio.run(body())


def begin(submitted):
    """Run a call until it waits for the first time: what is raised, is raised at once."""
    try:
        submitted.send(None)
    finally:
        submitted.close()


def test_a_deadline_that_the_queue_cannot_make_is_refused_at_once():
    async def body():
        loop = asyncio.get_running_loop()

        async def slow(keys, origins):
            await asyncio.sleep(0.2)
            return dict.fromkeys(keys, "")

        batcher = Batcher(slow, workers=1, max_batch=1)
        await batcher.submit(["learn how long a batch takes"])
        tasks = [asyncio.create_task(batcher.submit([str(n)])) for n in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(DeadlineTooShort):
            begin(batcher.submit(["x"], loop.time() + 0.1))
        assert await batcher.submit(["y"], loop.time() + 30) == [""]
        await asyncio.gather(*tasks)

    asyncio.run(body())


def test_slow_batches_of_the_past_do_not_refuse_callers_when_a_slot_is_free():
    async def body():
        delay = 1

        async def run(keys, origins):
            await asyncio.sleep(delay)
            return dict.fromkeys(keys, "")

        batcher = Batcher(run, workers=1)
        await batcher.submit(["slow"])
        delay = 0
        assert await batcher.submit(["x"], asyncio.get_running_loop().time() + 0.9) == [""]

    asyncio.run(body())


def test_a_deadline_shorter_than_every_recent_batch_is_refused_at_once_for_a_while():
    async def body():
        loop = asyncio.get_running_loop()

        async def run(keys, origins):
            await asyncio.sleep(0.1)
            return dict.fromkeys(keys, "")

        batcher = Batcher(run, workers=1)
        for number in range(4):
            await batcher.submit([str(number)])
        with pytest.raises(DeadlineTooShort):
            begin(batcher.submit(["x"], loop.time() + 0.05))
        await asyncio.sleep(batching._BELIEVED_SECONDS)
        # It may have become fast, so it is tried again, and given up only at the deadline.
        start = loop.time()
        with pytest.raises(DeadlineTooShort):
            await batcher.submit(["x"], start + 0.05)
        assert loop.time() - start >= 0.05

    asyncio.run(body())


def test_overload_tells_when_to_try_again_by_what_waits():
    async def body():
        gate, loop = asyncio.Event(), asyncio.get_running_loop()

        async def run(keys, origins):
            await asyncio.sleep(0.2)
            await gate.wait()
            return dict.fromkeys(keys, "")

        batcher = Batcher(run, workers=1, max_batch=1, max_waiting=3)
        gate.set()
        began = loop.time()
        await batcher.submit(["learn how long a batch takes"])
        took = loop.time() - began
        gate.clear()
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(batcher.submit([str(number)])))
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as caught:
            await batcher.submit(["x"])
        assert 0.6 < float(caught.value.metadata["retry_seconds"]) <= 4 * took + 0.001
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(body())


@pytest.mark.parametrize("in_batch", [True, False])
def test_a_deadline_that_passes_ends_the_wait_in_queue_or_batch(in_batch):
    async def body():
        runner, sheds = Runner(is_open=False), Sheds()
        batcher = Batcher(runner, workers=1, observer=sheds)
        occupied = [] if in_batch else [asyncio.create_task(batcher.submit(["first"]))]
        await asyncio.sleep(0.01)
        start = time.monotonic()
        with pytest.raises(DeadlineTooShort):
            await batcher.submit(["late"], asyncio.get_running_loop().time() + 0.05)
        assert time.monotonic() - start > 0.04
        assert sheds.reasons == ["deadline"]
        runner.gate.set()
        await asyncio.gather(*occupied)
        assert (["late"] in runner.batches) is in_batch
        assert batcher.waiting == 0

    asyncio.run(body())


def test_a_failed_batch_is_told_to_its_callers_only():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1, max_batch=2)
        first, tasks = await waiting_behind(batcher, runner, ["a"], ["bad"], ["b"], ["c"])
        runner.gate.set()
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [type(r) for r in results] == [list, ValueError, ValueError, list, list]
        assert await batcher.submit(["d"]) == ["d!"]

    asyncio.run(body())


def test_a_time_out_of_the_run_itself_is_no_deadline():
    async def body():
        async def run(keys, origins):
            raise TimeoutError("of the database")

        with pytest.raises(TimeoutError, match="of the database"):
            await Batcher(run).submit(["a"], asyncio.get_running_loop().time() + 5)

    asyncio.run(body())


def test_close_answers_what_waits_and_refuses_the_rest():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1)
        first, tasks = await waiting_behind(batcher, runner, ["a"])
        closing = asyncio.create_task(batcher.close(5))
        await asyncio.sleep(0)
        with pytest.raises(DependencyUnreachable, match="stopping"):
            await batcher.submit(["late"])
        assert not closing.done()
        runner.gate.set()
        assert await closing
        assert await asyncio.gather(first, *tasks) == [["first!"], ["a!"]]

    asyncio.run(body())


def test_close_gives_up_after_its_time():
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, workers=1)
        first, tasks = await waiting_behind(batcher, runner, ["a"])
        assert not await batcher.close(0.05)
        async with asyncio.timeout(60):
            results = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert all(isinstance(r, asyncio.CancelledError) for r in results)

    asyncio.run(body())


def test_an_idle_batcher_closes_at_once():
    assert asyncio.run(Batcher(Runner()).close(0))


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=12),
    cancelled=st.sets(st.integers(0, 11)),
    max_batch=st.integers(1, 8),
    workers=st.integers(1, 3),
)
def test_every_caller_gets_its_own_keys_in_order(requests, cancelled, max_batch, workers):
    async def body():
        runner = Runner(is_open=False)
        batcher = Batcher(runner, max_batch=max_batch, workers=workers)
        tasks = [asyncio.create_task(batcher.submit(keys)) for keys in requests]
        await asyncio.sleep(0)
        for number in cancelled & set(range(len(tasks))):
            tasks[number].cancel()
        runner.gate.set()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, (keys, result) in enumerate(zip(requests, results, strict=True)):
            if number in cancelled and keys:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == [key + "!" for key in keys]
        for batch in runner.batches:
            assert len(batch) == len(set(batch)) > 0
            longest = max(map(len, requests))
            assert len(batch) <= max(max_batch, longest)
        assert batcher.waiting == 0
        assert await batcher.close(1)

    asyncio.run(body())


def test_callers_that_come_one_by_one_go_together():
    async def body():
        runner = Runner()
        batcher = Batcher(runner, workers=2)

        async def caller(number):
            for _ in range(40):
                # As a transport hands them on: each in a turn of the loop of its own.
                for _ in range(number):
                    await asyncio.sleep(0)
                await batcher.submit([f"k{number}"])

        await asyncio.gather(*(caller(number) for number in range(16)))
        return runner.batches

    batches = asyncio.run(body())
    assert sum(map(len, batches)) == 16 * 40
    assert len(batches) < 16 * 40 / 4


def test_a_short_deadline_does_not_wait_for_company(monkeypatch):
    async def body():
        runner = Runner()
        batcher = Batcher(runner, workers=2)
        for _ in range(30):
            await asyncio.gather(*(batcher.submit([f"k{n}"]) for n in range(8)))
        loop = asyncio.get_running_loop()
        # A timer would be company's: with none, a lone request of a known crowd goes at once.
        waits: list[float] = []
        monkeypatch.setattr(loop, "call_later", lambda wait, *_: waits.append(wait))
        await batcher.submit(["alone"], loop.time() + batching._HURRY_SECONDS / 2)
        return waits

    assert asyncio.run(body()) == []
