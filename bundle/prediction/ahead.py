# SPDX-License-Identifier: Apache-2.0
"""Work in threads that reads before the networks ask and writes behind them, in the order of what comes in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from bundle.prediction.backends import images_at_work
from bundle.prediction.predictor import Predictor

THREADS, AHEAD = 2, 4
"""Readers at work, and cases that wait for the network at most: decoding hides behind it, and memory stays bounded.
As many writers, and cases that wait to be told of: compressing pictures and flushing files hide behind it as well."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_ahead(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    threads: int = THREADS,
    ahead: int = AHEAD,
    prepare: Callable[[], None] | None = None,
) -> Iterator[_Result]:
    """Map a function over items in threads, each of which is prepared first; in order, at most ``ahead`` results before
    they are asked for."""
    pool = ThreadPoolExecutor(threads, initializer=prepare)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def at_once(predictor: Predictor, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Map a function that calls the predictor, or its networks, over items, in order, `images_at_work` at once.

    Two images on a thread each take less time than one after the other on two, which wait for each other at the end of
    every layer, and idle while there is no network to run. Where the predictor is not `concurrent`, one image at a time
    has all threads.
    """
    threads = torch.get_num_threads()
    workers = images_at_work(predictor.backend) if predictor.concurrent else 1
    each = max(1, threads // workers)
    try:
        yield from read_ahead(function, items, workers, 2 * workers, lambda: torch.set_num_threads(each))
    finally:
        torch.set_num_threads(threads)  # which every thread to come starts with
