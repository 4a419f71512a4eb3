"""Jobs on the parts of a stack, done by the workers of any ``concurrent.futures.Executor``.

Workers keep the objects that all parts share (a `BatchSolver`, which travels as its structure), so that these
are sent to each worker once and afterwards only numbers travel: a job is sent without them, and a worker that
lacks them says so. A part that is lost with its worker is submitted again, and done in this process if the
executor takes no more jobs.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field, replace
from functools import lru_cache
from queue import SimpleQueue
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from conediff.errors import ConediffWarning, ExecutorError, warn
from conediff.parallel import constants
from conediff.parallel.threads import ThreadBackend, one_blas_thread


class ExecutorBackend:
    """The workers of an executor; see `backend.Backend`.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def parts(self, count: int, at_least: int, multiple: int, row_bytes: int) -> list[slice]:
        """Cut a stack into a few parts for each worker, of whole piles and at most 8 MB."""
        workers = worker_count(self.executor) or constants.ASSUMED_WORKERS
        wanted = min(
            -(-count // (constants.PARTS_PER_WORKER * workers)),
            -(-count // at_least),
            max(1, constants.MESSAGE_BYTES // max(1, row_bytes)),
        )
        size = max(1, -(-wanted // multiple) * multiple)
        return [slice(i, min(i + size, count)) for i in range(0, count, size)]

    def map(
        self,
        function: Callable[..., Any],
        shared: Sequence[Any],
        parts: Sequence[slice],
        arguments: Callable[[slice], tuple[Any, ...]],
        done: Callable[[slice], None] | None = None,
    ) -> list[Any]:
        """Return ``[function(*shared, *arguments(part)) for part in parts]``.

        Parameters
        ----------
        function : callable
            At the top level of a module, as pickle wants it.
        shared : sequence of objects, or None
            What workers keep, recognised by the digest of its pickle.
        parts : sequence of slice
        arguments : callable
            Returns the arguments for a part.
        done : callable, optional
            Called in this process with each part whose result has arrived.

        Raises
        ------
        ExecutorError
            If the executor takes no jobs, or every worker that took one of the parts died.

        Warns
        -----
        ConediffWarning
            If parts were lost with their workers, and were done in this process.
        """
        run = _Run(self.executor, shared, function, parts, arguments)
        run.part_done = done
        return run.run()


@dataclass(frozen=True)
class _Parcel:
    """A shared object: the digest of its pickle and, where the worker may not have it, the pickle."""

    digest: bytes
    content: bytes | None = field(default=None, compare=False, repr=False)


class _NotKept(Exception):
    """The worker does not have this object, and it was not sent along."""


@lru_cache(constants.KEPT_OBJECTS)
def _unpacked(parcel: _Parcel) -> Any:
    if parcel.content is None:
        raise _NotKept
    return pickle.loads(parcel.content)


def _work(
    parcels: Sequence[_Parcel | None], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any] | None:
    """Do a job, in a worker; None if it does not have the shared objects."""
    try:
        shared = [None if parcel is None else _unpacked(parcel) for parcel in parcels]
    except _NotKept:
        return None
    with one_blas_thread():
        return (function(*shared, *arguments),)


# Executors to which an object has been sent, by their identity and its digest.
_sent_to: WeakValueDictionary[tuple[int, bytes], Executor] = WeakValueDictionary()
_parcels: WeakKeyDictionary[Any, _Parcel] = WeakKeyDictionary()


def _parcel(thing: Any) -> _Parcel:
    if thing not in _parcels:
        content = pickle.dumps(thing, protocol=5)
        _parcels[thing] = _Parcel(hashlib.sha256(content).digest(), content)
    return _parcels[thing]


class _Run:
    """One call of `ExecutorBackend.map`."""

    def __init__(
        self,
        executor: Executor,
        shared: Sequence[Any],
        function: Callable[..., Any],
        parts: Sequence[slice],
        arguments: Callable[[slice], tuple[Any, ...]],
    ) -> None:
        self.executor, self.shared, self.function = executor, shared, function
        self.parts, self.arguments = parts, arguments
        self.full = [None if thing is None else _parcel(thing) for thing in shared]
        self.bare = [parcel and replace(parcel, content=None) for parcel in self.full]
        # dask takes jobs with equal arguments for the same job, and hashes them, unless pure=False.
        self.options: dict[str, Any] = {"pure": False} if _client(executor) is not None else {}
        self.found: dict[int, Any] = {}
        self.pending: dict[Future[Any], int] = {}
        self.done: SimpleQueue[Future[Any]] = SimpleQueue()
        self.losses = [0] * len(parts)
        self.reason: BaseException | None = None  # why a part was lost or refused
        self.part_done: Callable[[slice], None] | None = None

    def run(self) -> list[Any]:
        """Submit all parts, and collect the results in order."""
        complete = False
        try:
            self._submit_all()
            while self.pending:
                self._collect(self.done.get())
            complete = True
        finally:
            if not complete:
                for future in self.pending:
                    future.cancel()
        return self._completed()

    def _submit_all(self) -> None:
        """Submit every part; the first one for each worker with the shared objects, if these are new."""
        keys = [(id(self.executor), parcel.digest) for parcel in self.full if parcel]
        known = all(key in _sent_to for key in keys)
        first = 0 if known else worker_count(self.executor) or len(self.parts)
        for k in range(len(self.parts)):
            if not self._submit(k, whole=k < first) and k == 0:
                raise ExecutorError(
                    f"the executor takes no work ({self.reason}): if it was shut down, or is broken because "
                    "a worker died, make a new one"
                ) from self.reason
        for key in keys:
            _sent_to[key] = self.executor

    def _submit(self, k: int, whole: bool) -> bool:
        """Submit a part; return False where the executor takes no more jobs."""
        parcels, arguments = self.full if whole else self.bare, self.arguments(self.parts[k])
        try:
            future = self.executor.submit(_work, parcels, self.function, arguments, **self.options)
        except Exception as error:
            # The standard library's executors raise RuntimeError when they are shut down or broken.
            if not isinstance(error, RuntimeError) and not _is_dasks(error):
                raise
            self.reason = self.reason or error
            return False
        self.pending[future] = k
        future.add_done_callback(self.done.put)
        return True

    def _collect(self, future: Future[Any]) -> None:
        """Take a worker's result; submit the part again if the worker was lost or lacked a shared object."""
        k = self.pending.pop(future)
        try:
            answer = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.reason = self.reason or error
            self.losses[k] += 1
            if self.losses[k] <= constants.RESUBMISSIONS:
                self._submit(k, whole=True)
            return
        except Exception as error:
            which = f"elements {self.parts[k].start} to {self.parts[k].stop - 1} of the batch"
            if _is_dasks(error, "KilledWorker"):
                raise ExecutorError(f"{which} are given up: every worker that took them died") from error
            error.add_note(f"raised by a worker that had {which}")
            raise
        if answer is None:
            self._submit(k, whole=True)
        else:
            (self.found[k],) = answer
            if self.part_done is not None:
                self.part_done(self.parts[k])

    def _completed(self) -> list[Any]:
        """Do in this process what the executor did not, and return all results in order."""
        rest = [k for k in range(len(self.parts)) if k not in self.found]
        if rest:
            warn(
                f"{len(rest)} of {len(self.parts)} parts of the batch were lost with workers of the executor "
                f"({type(self.reason).__name__}: {self.reason}), and are done in this process",
                ConediffWarning,
            )
            lost = [self.parts[k] for k in rest]
            here = ThreadBackend().map(self.function, self.shared, lost, self.arguments, self.part_done)
            self.found.update(zip(rest, here, strict=True))
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
    """Return the client of an executor of dask's; None for others."""
    is_dasks = type(executor).__module__.partition(".")[0] == "distributed"
    return getattr(executor, "_client", None) if is_dasks else None


def _is_dasks(error: BaseException, name: str | None = None) -> bool:
    """Return whether an error is one of dask's own."""
    kind = type(error)
    return kind.__module__.partition(".")[0] == "distributed" and name in (None, kind.__name__)
