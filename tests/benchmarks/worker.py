"""A process that holds one library, and does one thing when it is asked over a pipe, and else nothing.

Requests and replies are pickled on standard input and output; see `Worker` for the asking side.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import PEERS, versions
from tests.benchmarks.problems import ALL, Case, Values

STEPS = 20  # of a training loop


class Worker:
    """The asking side.

    Parameters
    ----------
    python : str
        Interpreter of the environment that the library is installed in.
    peer : str
        A key of `PEERS`.
    environment : mapping
        Environment variables beyond this process's own.
    threads : int, optional
        Processors that the worker may use; all by default.
    """

    def __init__(
        self, python: str, peer: str, environment: Mapping[str, str], threads: int | None = None
    ) -> None:
        self.peer = peer
        self._process = subprocess.Popen(
            [python, "-m", "tests.benchmarks.worker", peer, str(threads or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environment},
        )

    def ask(self, request: str, *arguments: Any) -> Any:
        """Wait for an answer; raise RuntimeError if the library failed or the process ended."""
        try:
            pickle.dump((request, arguments), self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]
            good, reply = pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"the process ended with code {self._process.wait()}") from None
        if not good:
            raise RuntimeError(reply)
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()


class _Server:
    """The asked side."""

    def __init__(self, peer: str) -> None:
        self._peer = PEERS[peer]
        self._stated = lru_cache(maxsize=1)(self._state)

    def _state(self, problem: str) -> tuple[Case, Any]:
        case = ALL[problem]()
        return case, self._peer(case)

    def versions(self) -> dict[str, str]:
        return versions()

    def state(self, problem: str) -> float:
        """State a problem; return the seconds it took."""
        start = time.perf_counter()
        self._stated(problem)
        return time.perf_counter() - start

    def answer(self, problem: str, size: int, mode: str, seed: int) -> tuple[Values, Values]:
        """Return values and gradient at a batch; in training mode at the end of a path."""
        case, peer = self._stated(problem)
        path = [case.batch(size, seed)] if mode == "cold" else case.path(size, seed, STEPS)
        for values in path:
            prepared = peer.prepare(values)
            solved = peer.forward(prepared, mode == "training")
        return peer.answer(prepared, solved, peer.backward(solved, case.cotangents(size)))

    def measure(
        self, problem: str, size: int, mode: str, seed: int, calls: int, seconds: float
    ) -> tuple[float, float, float]:
        """Return seconds of a forward pass, a backward pass, and both.

        Cold: medians over calls with new data each, after one that is not counted unless it alone takes
        longer than all are allowed. Training: means over a path.
        """
        case, peer = self._stated(problem)
        cotangents = case.cotangents(size)
        times: list[tuple[float, float]] = []
        if mode == "training":
            path = [peer.prepare(values) for values in case.path(size, seed, STEPS)]
            with _uncollected():
                times = [_timed(peer, values, cotangents, warm=True) for values in path]
            mean = [sum(part) / STEPS for part in zip(*times, strict=True)]
            return mean[0], mean[1], sum(mean)
        spent = 0.0
        while not times or (spent < seconds and len(times) <= calls):
            values = case.batch(size, seed + len(times))
            with _uncollected():
                times.append(_timed(peer, peer.prepare(values), cotangents, warm=False))
            spent += sum(times[-1])
        counted = times[1:] or times
        forward, backward = (_median(part) for part in zip(*counted, strict=True))
        return forward, backward, _median([sum(pair) for pair in counted])


def _timed(peer: Any, prepared: Any, cotangents: Values, warm: bool) -> tuple[float, float]:
    start = time.perf_counter()
    solved = peer.forward(prepared, warm)
    middle = time.perf_counter()
    peer.backward(solved, cotangents)
    return middle - start, time.perf_counter() - middle


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let no garbage be collected while the clock runs."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _median(values: Any) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def main(peer: str, threads: int) -> None:
    """Serve until standard input ends."""
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    # What libraries print must not reach the pipe.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    server = _Server(peer)
    while True:
        try:
            request, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = True, getattr(server, request)(*arguments)
        except Exception:
            reply = False, traceback.format_exc(limit=-3)
        pickle.dump(reply, replies)
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
