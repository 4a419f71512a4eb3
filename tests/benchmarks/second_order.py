"""The cost of second derivatives: ``python -m tests.benchmarks.second_order``.

Every round solves each batch anew and measures, in turn, a gradient (the first one, with its factorisation),
the gradient and a Hessian-vector product together, and a further product at the same point. Medians of CPU
times on one thread are printed, and the products in gradients; the aim is four at most.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

import conediff as cd
from tests.benchmarks.problems import ALL, Case

AIM = 4.0


def semidefinite(order: int) -> Case:
    """The nearest positive semidefinite matrix."""
    X, C = cp.Variable((order, order), symmetric=True), cp.Parameter((order, order), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        M = rng.standard_normal((order, order))
        return (M + M.T,)

    return Case(problem, [C], [X], sample)


def power(n: int) -> Case:
    """Utilities with decreasing returns, by power cones."""
    x, c = cp.Variable(n), cp.Parameter(n)
    utility = sum(cp.power(x[i], 0.21 + 0.6 * i / n) for i in range(n))
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x) - utility))
    return Case(problem, [c], [x], lambda rng: (rng.standard_normal(n),))


OWN = {"psd-8": lambda: semidefinite(8), "power-10": lambda: power(10)}
DEFAULT = ["qp-10", "qp-50", "sparsemax-100", "softmax-10", "second-order", *OWN]


def main(arguments: Sequence[str] | None = None) -> None:
    """Time every problem with every batch size."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.second_order", description=__doc__)
    parser.add_argument("problems", nargs="*", default=DEFAULT)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    print(f"{'problem':16}{'batch':>6}{'gradient':>12}{'with product':>20}{'further product':>20}")
    for name in options.problems:
        for size in options.batch:
            gradient, both, further = timed((OWN | ALL)[name](), size, options.rounds)
            shown = [f"{1e3 * t:.2f} ms ({t / gradient:.2f}x)" for t in (both, further)]
            late = "  more than four gradients" if both - gradient > AIM * gradient else ""
            print(f"{name:16}{size:6}{1e3 * gradient:9.2f} ms" + "".join(f"{s:>20}" for s in shown) + late)


def timed(case: Case, size: int, rounds: int) -> NDArray[np.float64]:
    """Return the median times, in seconds, of a gradient, of it with a product, and of a further product."""
    layer = cd.CvxpyLayer(case.problem, case.parameters, case.variables)
    values, rng = case.batch(size, seed=0), np.random.default_rng(2)
    cotangents = case.cotangents(size)
    tangents = [[rng.standard_normal(value.shape) for value in values] for _ in range(2)]
    times = np.zeros((rounds + 1, 3))
    for k in range(rounds + 1):
        solution = layer.solve(*values, solver_args={"threads": 1})
        start = time.process_time()
        solution.vjp(*cotangents)
        times[k, 0] = time.process_time() - start
        solution = layer.solve(*values, solver_args={"threads": 1})
        start = time.process_time()
        solution.vjp(*cotangents)
        solution.hvp(cotangents, tangents[0], lambda *dx: dx)
        times[k, 1] = time.process_time() - start
        start = time.process_time()
        solution.hvp(cotangents, tangents[1], lambda *dx: dx)
        times[k, 2] = time.process_time() - start
    medians: NDArray[np.float64] = np.median(times[1:], axis=0)  # the first round makes what is kept
    return medians


if __name__ == "__main__":
    main()
