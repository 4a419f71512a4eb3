"""One pool of threads, kept between calls: SCS and QDLDL release the interpreter lock while they work.

BLAS is held at one thread meanwhile: on small matrices its threads cost more than they save, and they compete
with this pool for the processors.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from conediff.parallel.constants import KEPT_POOLS
from conediff.parallel.interrupts import restore_interrupt_handler

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class ThreadBackend:
    """Threads of this process; see `backend.Backend`.

    Parameters
    ----------
    threads : int, optional
        All processors by default.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def parts(self, count: int, at_least: int, multiple: int, row_bytes: int) -> list[slice]:
        """Cut a stack into ``at_least`` parts of nearly equal length, whatever the number of threads."""
        return [slice(k * count // at_least, (k + 1) * count // at_least) for k in range(at_least)]

    def map(
        self,
        function: Callable[..., Any],
        shared: Sequence[Any],
        parts: Sequence[slice],
        arguments: Callable[[slice], tuple[Any, ...]],
        done: Callable[[slice], None] | None = None,
    ) -> list[Any]:
        """Return ``[function(*shared, *arguments(part)) for part in parts]``, with BLAS at one thread.

        NumPy does not warn inside: where data overflow, or a step fails, the results are not finite, and are
        checked for it. ``done`` is called with each part that is done, in its thread.
        """

        def answer(part: slice) -> Any:
            with np.errstate(all="ignore"):  # of this thread
                result = function(*shared, *arguments(part))
            if done is not None:
                done(part)
            return result

        with one_blas_thread():
            return list(mapper(self.threads)(answer, parts))


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mapper(threads: int | None) -> Mapper:
    """Return a function like the built-in ``map`` that runs in this many threads.

    If one job fails, or the user interrupts, jobs that have not begun are cancelled and running ones are
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
            restore_interrupt_handler()

    return run


@lru_cache(maxsize=KEPT_POOLS)
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Return the pool of this size; a forked process, which inherits no threads, makes its own."""
    return ThreadPoolExecutor(count, thread_name_prefix="conediff")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread inside; for all threads of the process, until the last of them leaves."""
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()


class _Blas:
    """BLAS's number of threads, one for the whole process: lowered by the first, raised by the last."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._libraries: Any = None
        self._before: list[tuple[Any, int]] = []

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                if self._libraries is None:
                    self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                # `ThreadpoolController.limit` also reads every library's version, which takes milliseconds.
                threads = [(library, library.get_num_threads()) for library in self._libraries]
                self._before = [
                    (library, count) for library, count in threads if count is not None and count > 1
                ]
                for library, _ in self._before:
                    library.set_num_threads(1)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, count in self._before:
                    library.set_num_threads(count)


_blas = _Blas()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _blas.__init__())  # type: ignore[misc]
