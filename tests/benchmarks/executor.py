"""Batches in threads, in processes and on a local cluster: ``python -m tests.benchmarks.executor``.

Every round solves and differentiates each batch in every way, one after the other; medians are printed, and
how far results are from those of one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

import conediff as cd
from tests.benchmarks.problems import ALL
from tests.benchmarks.reference import relative

Seconds = tuple[float, float]
WAYS = ("1 thread", "threads", "processes", "cluster")


def main(arguments: Sequence[str] | None = None) -> None:
    """Time every batch in every way."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.executor", description=__doc__)
    parser.add_argument(
        "batches", nargs="*", default=["logistic:64", "correlation-60:8"], help="problem:size"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cluster", action="store_true", help="also by dask.distributed")
    options = parser.parse_args(arguments)
    ways = WAYS if options.cluster else WAYS[:3]
    print(f"{'batch':18}" + "".join(f"{way:>26}" for way in ways) + f"{'difference':>12}")
    with _executors(options.workers, options.cluster) as executors:
        given = [{"threads": 1}, {"threads": options.workers}, *({"executor": e} for e in executors)]
        for batch in options.batches:
            name, _, size = batch.partition(":")
            seconds, difference = _timed(name, int(size), given, options.rounds)
            cells = [f"{forward:.3f} + {backward:.3f} s" for forward, backward in seconds]
            faster = [sum(seconds[0]) / sum(those) for those in seconds]
            shown = [f"{cell} ({ratio:.2f}x)" for cell, ratio in zip(cells, faster, strict=True)]
            print(f"{batch:18}" + "".join(f"{cell:>26}" for cell in shown) + f"{difference:12.1e}")


@contextmanager
def _executors(workers: int, cluster: bool) -> Iterator[list[Executor]]:
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        if not cluster:
            yield [pool]
            return
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as local,
            Client(local) as client,
        ):
            yield [pool, client.get_executor()]


def _timed(name: str, size: int, ways: list[dict[str, Any]], rounds: int) -> tuple[list[Seconds], float]:
    """Return the median times of each way, forward and backward, and the largest difference to the first."""
    case = ALL[name]()
    layer = cd.CvxpyLayer(case.problem, case.parameters, case.variables)
    values, cotangents = case.batch(size, seed=0), case.cotangents(size)
    times, answers = np.zeros((rounds + 1, len(ways), 2)), []
    for k in range(rounds + 1):
        answers.clear()
        for j, way in enumerate(ways):
            start = time.perf_counter()
            solution = layer.solve(*values, solver_args=way)
            middle = time.perf_counter()
            gradients = solution.vjp(*cotangents)
            times[k, j] = middle - start, time.perf_counter() - middle
            answers.append((*solution.values, *gradients))
    medians = np.median(times[1:], axis=0)  # the first round makes what is kept
    differences = [
        relative(found.reshape(1, -1), right.reshape(1, -1), floor=0.0).max()
        for other in answers[1:]
        for found, right in zip(other, answers[0], strict=True)
    ]
    return [(float(forward), float(backward)) for forward, backward in medians], max(differences)


if __name__ == "__main__":
    main()
