"""One pool of threads, kept: SCS and QDLDL leave the interpreter lock while they work.

BLAS is held at one thread meanwhile: on small matrices its threads cost more than they save, and they stand
in the way of ours.
"""

from __future__ import annotations

import ctypes
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
            give_interrupts_back()

    return run


def give_interrupts_back() -> None:
    """Give ctrl-C back to Python: SCS borrows it, and runs that overlap return each other's.

    To be called after every run of SCS. What arrives while SCS is being set up is lost all the same: SCS
    takes it, and forgets it when it starts.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is threading.main_thread():
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    elif _listener and callable(handler):
        # Other threads may not call `signal.signal`; what it calls, they may.
        _set_listener(signal.SIGINT, _listener)


def _interrupt_listener() -> tuple[int | None, Any]:
    """What of CPython listens to ctrl-C, by its address, and how to set it; nothing elsewhere."""
    try:
        get, put = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    except AttributeError:
        return None, None
    get.restype = put.restype = ctypes.c_void_p
    get.argtypes, put.argtypes = [ctypes.c_int], [ctypes.c_int, ctypes.c_void_p]
    return (get(signal.SIGINT) if callable(signal.getsignal(signal.SIGINT)) else None), put


_listener, _set_listener = _interrupt_listener()


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
        self._before: list[tuple[Any, int]] = []

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                if self._libraries is None:
                    self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                # Not `limit`, which asks every library for all that there is to know, and is slow.
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
