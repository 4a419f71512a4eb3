"""One pool of threads, kept: SCS and QDLDL leave the interpreter lock while they work.

BLAS is held at one thread meanwhile: on small matrices its threads cost more than they save, and they stand
in the way of ours.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController

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


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread within; for all threads of the process, until the last of them leaves."""
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()


class _Blas:
    """BLAS's number of threads belongs to the whole process, so that those who lower it are counted."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._libraries: Any = None
        self._limit: Any = None

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                if self._libraries is None:
                    self._libraries = ThreadpoolController().select(user_api="blas")
                self._limit = self._libraries.limit(limits=1)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_blas = _Blas()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _blas.__init__())  # type: ignore[misc]
