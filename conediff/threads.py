"""One pool of threads, kept: SCS and QDLDL leave the interpreter lock while they work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mapper(threads: int | None) -> Mapper:
    """Return a function like the built-in ``map`` that runs in this many threads."""
    count = default_threads() if threads is None else threads
    if count <= 1:
        return map

    def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        jobs = list(items)
        if len(jobs) <= 1:
            return map(function, jobs)
        return _pool(count, os.getpid()).map(function, jobs)

    return run


@lru_cache(maxsize=4)
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Keep one pool for each size; a forked process, which inherits no threads, makes its own."""
    return ThreadPoolExecutor(count, thread_name_prefix="conediff")
