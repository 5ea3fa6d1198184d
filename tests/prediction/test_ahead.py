# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.ahead."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bundle.prediction.ahead import at_once, read_ahead


def test_reading_ahead_keeps_the_order_and_its_bound() -> None:
    started: list[int] = []
    taken: list[int] = []
    ahead: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    for result in read_ahead(work, range(40), threads=3, ahead=5):
        taken.append(result)
        ahead.append(len(started) - len(taken))
    assert taken == [item * item for item in range(40)]
    assert max(ahead) <= 5
    assert max(ahead) > 0


def test_reading_runs_beside_the_consumer_and_stops_with_it() -> None:
    main, seen = threading.get_ident(), set()
    items = read_ahead(lambda _: seen.add(threading.get_ident()), range(1000), ahead=3)
    next(items)
    items.close()
    assert seen
    assert main not in seen
    with pytest.raises(StopIteration):
        next(items)


def test_an_error_of_a_reader_is_raised_where_its_result_is_taken() -> None:
    results = read_ahead(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("backend", "concurrent", "threads", "most"),
    [("torch", True, 2, 2), ("openvino", True, 2, 4), ("openvino", True, 1, 2), ("openvino", False, 2, 1)],
)
def test_so_many_images_are_in_work_at_once(backend: str, concurrent: bool, threads: int, most: int) -> None:
    before = torch.get_num_threads()
    working, seen, each = set(), [], set()

    def work(item: int) -> int:
        working.add(item)
        time.sleep(0.02)
        seen.append(len(working))
        each.add(torch.get_num_threads())
        working.remove(item)
        return item

    torch.set_num_threads(threads)
    try:
        predictor: Any = SimpleNamespace(backend=backend, concurrent=concurrent)
        assert list(at_once(predictor, work, range(16))) == list(range(16))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert max(seen) == most
    assert each == {max(1, threads // most)}
