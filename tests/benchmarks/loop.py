"""One problem, solved and differentiated again and again in one thread, for profilers.

``python -m tests.benchmarks.loop qp-10 32`` prints the median milliseconds of both.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from conediff import CvxpyLayer
from tests.benchmarks.problems import ALL


def main(name: str, batch: int, seconds: float = 10.0) -> None:
    """Print the median times of solve and gradient, after so many seconds."""
    case = ALL[name]()
    layer = CvxpyLayer(case.problem, case.parameters, case.variables, solver_args={"threads": 1})
    values, cotangents, times = case.batch(batch, 0), case.cotangents(batch), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        solution = layer.solve(*values)
        middle = time.perf_counter()
        solution.vjp(*cotangents)
        times.append((middle - start, time.perf_counter() - middle))
    forward, backward = 1e3 * np.median(times, axis=0)
    print(f"{name}, B = {batch}: {forward:.2f} ms forward, {backward:.2f} ms backward")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=list(ALL), metavar="problem", help=", ".join(ALL))
    parser.add_argument("batch", type=int)
    options = parser.parse_args()
    main(options.problem, options.batch)
