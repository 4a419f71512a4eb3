"""Jobs on the parts of a stack, done by any ``concurrent.futures.Executor``.

Workers keep what all parts share (an `Engine`, which travels as its structure), so that it goes to each of
them once, and then only numbers travel: a job goes out without it, and a worker that has not met it answers
so. What is lost with a worker is handed out again, and done here where the executor takes no more.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field, replace
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from conediff.errors import ConediffWarning, ExecutorError, warn

T = TypeVar("T")

# Parts for each worker: several, for some are harder than others.
_PER_WORKER = 4
# Workers, where the executor does not tell.
_UNKNOWN = 8
# Bytes of numbers in one part, about, at most: larger messages travel no faster.
_BYTES = 8 << 20
# How often a part that was lost is handed out again.
_AGAIN = 1
# Things that a worker keeps.
_KEPT = 16


def cut(executor: Executor, pile: int, count: int, arrays: Sequence[NDArray[np.float64]]) -> list[slice]:
    """Cut a stack into parts: a few for each worker, of whole piles, so that SCS sees the same piles as here.

    Parameters
    ----------
    executor : Executor
    pile : int
        Programs that SCS solves together.
    count : int
        Size of the stack.
    arrays : sequence of arrays
        What is sent; those of one row go with every part.
    """
    each = 8 * sum(array.shape[1] for array in arrays if len(array) > 1)
    workers = worker_count(executor) or _UNKNOWN
    wanted = min(-(-count // (_PER_WORKER * workers)), max(1, _BYTES // max(1, each)))
    size = -(-wanted // pile) * pile
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def rows(array: NDArray[np.float64], part: slice) -> NDArray[np.float64]:
    """Return a part of an array, of which one row serves the whole stack."""
    return array if len(array) == 1 else array[part]


def run(
    executor: Executor,
    shared: Sequence[Any],
    job: Callable[..., T | None],
    parts: Sequence[slice],
    arguments: Callable[[slice], tuple[Any, ...]],
    threads: int | None,
) -> list[T] | None:
    """Do a job on every part of a stack.

    Parameters
    ----------
    executor : Executor
    shared : sequence of objects, or None
        What workers keep, recognised by what it pickles to.
    job : callable
        A function of a module, called with what is shared, a number of threads, and arguments; None is its
        way to say that this stack is not for workers.
    parts : sequence of slice
    arguments : callable
        Returns the arguments for a part.
    threads : int, optional
        For each worker, 1 by default: workers share the processors.

    Returns
    -------
    list or None
        What the jobs returned, in order; None as soon as one of them does.

    Raises
    ------
    ExecutorError
        If the executor takes no work, or every worker that took one of the parts died.

    Warns
    -----
    ConediffWarning
        If parts were lost with their workers, and had to be done here.
    """
    return _Run(executor, shared, job, parts, arguments, threads).run()


@dataclass(frozen=True)
class _Parcel:
    """Something that workers keep, by its digest; and, where they may not have it, what it pickles to."""

    digest: bytes
    content: bytes | None = field(default=None, compare=False, repr=False)


class _NotKept(Exception):
    """The worker has not met this, and it did not come along."""


@lru_cache(_KEPT)
def _unpacked(parcel: _Parcel) -> Any:
    if parcel.content is None:
        raise _NotKept
    return pickle.loads(parcel.content)


def _work(
    parcels: Sequence[_Parcel | None], job: Callable[..., Any], threads: int, arguments: tuple[Any, ...]
) -> tuple[Any] | None:
    """Do a job, in a worker; None if it does not have what is shared."""
    try:
        shared = [None if parcel is None else _unpacked(parcel) for parcel in parcels]
    except _NotKept:
        return None
    return (job(*shared, threads, *arguments),)


# Executors whose workers, or most of them, have a thing, by their identity and its digest.
_met: WeakValueDictionary[tuple[int, bytes], Executor] = WeakValueDictionary()
_parcels: WeakKeyDictionary[Any, _Parcel] = WeakKeyDictionary()


def _parcel(thing: Any) -> _Parcel:
    if thing not in _parcels:
        content = pickle.dumps(thing, protocol=5)
        _parcels[thing] = _Parcel(hashlib.sha256(content).digest(), content)
    return _parcels[thing]


class _Run:
    """One call of `run`."""

    def __init__(
        self,
        executor: Executor,
        shared: Sequence[Any],
        job: Callable[..., Any],
        parts: Sequence[slice],
        arguments: Callable[[slice], tuple[Any, ...]],
        threads: int | None,
    ) -> None:
        self.executor, self.shared, self.job = executor, shared, job
        self.parts, self.arguments, self.threads = parts, arguments, threads
        self.full = [None if thing is None else _parcel(thing) for thing in shared]
        self.bare = [parcel and replace(parcel, content=None) for parcel in self.full]
        # dask takes jobs of the same arguments for the same job, and hashes them, unless it is told not to.
        self.options: dict[str, Any] = {"pure": False} if _client(executor) is not None else {}
        self.found: dict[int, Any] = {}
        self.pending: dict[Future[Any], int] = {}
        self.done: SimpleQueue[Future[Any]] = SimpleQueue()
        self.losses = [0] * len(parts)
        self.reason: BaseException | None = None  # why a part was lost, or refused

    def run(self) -> list[Any] | None:
        """Hand all parts out, and collect what comes back."""
        complete = False
        try:
            self._hand_out()
            while self.pending:
                if not self._collect(self.done.get()):
                    return None
            complete = True
        finally:
            if not complete:
                for future in self.pending:
                    future.cancel()
        return self._completed()

    def _hand_out(self) -> None:
        """Hand out every part; what is shared with as many as there are workers, if it is new to them."""
        keys = [(id(self.executor), parcel.digest) for parcel in self.full if parcel]
        known = all(key in _met for key in keys)
        first = 0 if known else worker_count(self.executor) or len(self.parts)
        for k in range(len(self.parts)):
            if not self._submit(k, whole=k < first) and k == 0:
                raise ExecutorError(
                    f"the executor takes no work ({self.reason}): if it was shut down, or is broken because "
                    "a worker died, make a new one"
                ) from self.reason
        for key in keys:
            _met[key] = self.executor

    def _submit(self, k: int, whole: bool) -> bool:
        """Hand out a part; return False where the executor takes no more work."""
        parcels, arguments = self.full if whole else self.bare, self.arguments(self.parts[k])
        try:
            future = self.executor.submit(
                _work, parcels, self.job, self.threads or 1, arguments, **self.options
            )
        except Exception as error:
            # RuntimeError is what the standard library's executors raise when they are shut down or broken.
            if not isinstance(error, RuntimeError) and not _of_dask(error):
                raise
            self.reason = self.reason or error
            return False
        self.pending[future] = k
        future.add_done_callback(self.done.put)
        return True

    def _collect(self, future: Future[Any]) -> bool:
        """Take what a worker answered; hand the part out again where that is nothing.

        Returns False where the job says that this stack is not for workers.
        """
        k = self.pending.pop(future)
        try:
            answer = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.reason = self.reason or error
            self.losses[k] += 1
            if self.losses[k] <= _AGAIN:
                self._submit(k, whole=True)
            return True
        except Exception as error:
            which = f"elements {self.parts[k].start} to {self.parts[k].stop - 1} of the batch"
            if _of_dask(error, "KilledWorker"):
                raise ExecutorError(f"{which} are given up: every worker that took them died") from error
            error.add_note(f"raised by a worker that had {which}")
            raise
        if answer is None:
            self._submit(k, whole=True)
            return True
        (result,) = answer
        if result is not None:
            self.found[k] = result
        return result is not None

    def _completed(self) -> list[Any] | None:
        """Do here what the executor did not, and return all in order."""
        rest = [k for k in range(len(self.parts)) if k not in self.found]
        if rest:
            warn(
                f"{len(rest)} of {len(self.parts)} parts of the batch were lost with workers of the executor "
                f"({type(self.reason).__name__}: {self.reason}), and are done in this process",
                ConediffWarning,
            )
        for k in rest:
            result = self.job(*self.shared, self.threads, *self.arguments(self.parts[k]))
            if result is None:
                return None
            self.found[k] = result
        return [self.found[k] for k in range(len(self.parts))]


def worker_count(executor: Executor) -> int | None:
    """Return how many jobs an executor does at a time; None where it does not tell."""
    client, count = _client(executor), None
    if client is not None and client.status == "running":
        count = sum(client.nthreads().values())
    for name in ("_max_workers", "num_workers"):  # the standard library's and loky's, mpi4py's
        count = count or getattr(executor, name, None)
    return count if isinstance(count, int) and count > 0 else None


def _client(executor: Executor) -> Any:
    """The client of an executor that is dask's."""
    ours = type(executor).__module__.partition(".")[0] == "distributed"
    return getattr(executor, "_client", None) if ours else None


def _of_dask(error: BaseException, name: str | None = None) -> bool:
    """Whether an error is dask's own."""
    kind = type(error)
    return kind.__module__.partition(".")[0] == "distributed" and name in (None, kind.__name__)
