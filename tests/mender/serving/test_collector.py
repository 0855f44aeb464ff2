"""Requests that arrive together are answered together, each client with its own answer."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mender.serving.collector import Collector, QueueFull


def serve(scenario, answer, **settings):
    """Runs a scenario against a collector; what it returns."""

    async def main():
        collector = Collector(answer, **settings)
        try:
            return await scenario(collector)
        finally:
            await collector.close()

    return asyncio.run(main())


@given(
    st.lists(st.lists(st.integers(), min_size=1, max_size=5), max_size=12),
    st.integers(1, 7),
    st.sampled_from([0, 1e-3]),
)
def test_every_client_gets_its_own_answers(clients, batch_size, wait):
    sizes = []

    def answer(numbers):
        sizes.append(len(numbers))
        return [2 * number for number in numbers]

    async def scenario(collector):
        return await asyncio.gather(*(collector.ask_all(client) for client in clients))

    settings = {"batch_size": batch_size, "wait": wait, "capacity": 100, "length": abs}
    found = serve(scenario, answer, **settings)
    assert found == [[2 * number for number in client] for client in clients]
    assert sum(sizes) == sum(map(len, clients)) and max(sizes, default=0) <= batch_size


def test_an_error_is_that_of_its_client_alone():
    def answer(numbers):
        return [ValueError(number) if number == 2 else number for number in numbers]

    async def scenario(collector):
        return await asyncio.gather(*map(collector.ask, range(4)), return_exceptions=True)

    found = serve(scenario, answer)
    assert [found[place] for place in (0, 1, 3)] == [0, 1, 3] and isinstance(found[2], ValueError)


def test_an_error_of_a_whole_batch_leaves_the_queue_working():
    calls = []

    def answer(numbers):
        calls.append(numbers)
        if len(calls) == 1:
            raise RuntimeError("no memory")
        return numbers

    async def scenario(collector):
        with pytest.raises(RuntimeError, match="no memory"):
            await collector.ask(1)
        return await collector.ask(2)

    assert serve(scenario, answer) == 2


class Held:
    """An answer that waits until it is let go."""

    def __init__(self):
        self.go, self.started, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, requests):
        self.batches.append(list(requests))
        self.started.set()
        assert self.go.wait(10)
        return requests

    async def busy(self, collector):
        first = asyncio.create_task(collector.ask("first"))
        await asyncio.to_thread(self.started.wait, 10)
        return first


def test_a_full_queue_refuses_and_gives_no_part_of_a_list_a_place():
    answer = Held()

    async def scenario(collector):
        first = await answer.busy(collector)
        second = asyncio.create_task(collector.ask("second"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as full:
            await collector.ask_all(["third", "fourth"])
        answer.go.set()
        return full.value.retry_after, await first, await second

    retry, *answers = serve(scenario, answer, capacity=2)
    assert retry >= 1 and answers == ["first", "second"] and answer.batches == [["first"], ["second"]]


def test_clients_that_gave_up_are_not_computed():
    answer = Held()

    async def scenario(collector):
        first = await answer.busy(collector)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(collector.ask("gone"), 0.01)
        last = asyncio.create_task(collector.ask("last"))
        await asyncio.sleep(0)
        answer.go.set()
        return await first, await last

    assert serve(scenario, answer) == ("first", "last")
    assert answer.batches == [["first"], ["last"]]


def test_the_oldest_is_next_and_similar_lengths_join_it():
    answer = Held()

    async def scenario(collector):
        first = await answer.busy(collector)
        rest = [asyncio.create_task(collector.ask(word)) for word in ("a" * 9, "b", "c" * 8, "d" * 2)]
        await asyncio.sleep(0)
        answer.go.set()
        return [await first, *[await one for one in rest]]

    serve(scenario, answer, batch_size=2, length=len)
    assert answer.batches[1:] == [["a" * 9, "c" * 8], ["b", "d" * 2]]


def test_closing_answers_what_waits():
    async def main():
        answer = Held()
        collector = Collector(answer)
        tasks = [await answer.busy(collector), asyncio.create_task(collector.ask("second"))]
        await asyncio.sleep(0)
        answer.go.set()
        await collector.close()
        return [await task for task in tasks]

    assert asyncio.run(main()) == ["first", "second"]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"wait": -1}, {"capacity": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Collector(lambda requests: requests, **wrong)
