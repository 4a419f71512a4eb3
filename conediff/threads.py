"""One pool of threads, kept: SCS and QDLDL leave the interpreter lock while they work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mapper(threads: int | None) -> Mapper:
    """Return a function like the built-in ``map`` that runs in this many threads.

    If one job fails, or the user interrupts, those that have not begun are dropped and those that have are
    waited for, so that nothing is left running.
    """
    count = default_threads() if threads is None else threads
    if count <= 1:
        return map

    def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        jobs = list(items)
        if len(jobs) <= 1:
            return map(function, jobs)
        futures = [_pool(count, os.getpid()).submit(function, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)
            raise
        finally:
            _restore_interrupt_handler()

    return run


def _restore_interrupt_handler() -> None:
    """Give ctrl-C back to Python: SCS borrows it, and runs that overlap return each other's."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


@lru_cache(maxsize=4)
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Keep one pool for each size; a forked process, which inherits no threads, makes its own."""
    return ThreadPoolExecutor(count, thread_name_prefix="conediff")
