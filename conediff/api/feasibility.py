"""Whether programs that are unbounded have points that satisfy their constraints at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from conediff.program import ConeData
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


def find_infeasible(
    solver: BatchSolver, data: ConeData, result: SolveResult, settings: Settings
) -> NDArray[np.bool_]:
    """Return which elements are unbounded and infeasible at once, shape (B,).

    A certificate of unboundedness is a direction in which the objective falls from every feasible point; it
    says nothing about whether there is one. So the unbounded programs are solved again without an objective.
    Under a time limit nothing is solved, and none is said to be infeasible.
    """
    index = np.flatnonzero(result.status == "unbounded")
    both = np.zeros(result.count, dtype=bool)
    if index.size and not settings.time_limit_secs:
        rows = data.repeated(result.count).take(index)
        rows = ConeData(0 * rows.P, rows.A, rows.b, 0 * rows.c)
        quiet = {name: value for name, value in settings.scs.items() if name != "verbose"}
        plain = replace(settings, executor=None, warm_start=None, on_failure="nan", scs=quiet, progress=False)
        both[index] = solver.solve(rows, plain, None).status == "infeasible"
    return both
