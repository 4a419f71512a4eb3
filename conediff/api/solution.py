"""Solutions as a user sees them: of one cone program, or of a batch."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.api.derivative import BatchDerivative, Derivative
from conediff.api.summary import summarise
from conediff.derivative import StackDerivative
from conediff.errors import SolverError
from conediff.program import ConeData
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


class Solution:
    """The solution of one cone program.

    Attributes
    ----------
    x, y, s : arrays, shape (n,), (m,), (m,)
        Primal, dual and slack. Of an infeasible program y is a certificate, of an unbounded one x and s are.
    status : str
        solved, inaccurate, infeasible, unbounded or failed.
    info : dict
        iterations, refinements, residual, solver, setup_time, solve_time, refine_time (seconds). ``solver``
        says whose point was refined, or whose certificate this is: "scs" or "clarabel"; "start" where it is
        the warm start, and "" where there is no point.
    """

    def __init__(self, batch: SolvedBatch, index: int) -> None:
        self._batch, self._index = batch, index
        result = batch.result
        # Copies, here and for the batch: they belong to the user, and the derivative is taken at the
        # originals.
        self.x, self.y, self.s = result.x[index].copy(), result.y[index].copy(), result.s[index].copy()
        self.status = str(result.status[index])
        self.info = {
            key: value[index].item() if isinstance(value, np.ndarray) else value
            for key, value in solve_info(result).items()
            if key != "status"
        }

    def derivative(self, method: str | None = None) -> Derivative:
        """Return the derivative of the solution map here.

        Parameters
        ----------
        method : {"auto", "direct", "lsqr", "lsmr", "dense"}, optional
            The one given to `solve` by default. "direct" solves the reduced system; "lsqr" and "lsmr" iterate
            on the derivative of the embedding; "dense" is the reference, by singular values; "auto" is
            direct, and where the reduced system is singular the least-squares derivative of least norm.

        Raises
        ------
        SolverError
            If there is no solution to differentiate at.
        ValueError
            If the method is unknown.
        """
        if self.status not in ("solved", "inaccurate"):
            raise SolverError(
                f"there is no derivative, because there is no solution: the program is {self.status}",
                solutions=self,
            )
        one = self._batch.take(self._index)
        return Derivative(one.derivative(method), one.result.x[0], one.result.y[0])

    def __repr__(self) -> str:
        return f"Solution(status={self.status!r}, residual={self.info['residual']:.1e})"


class Solutions:
    """The solutions of a batch of programs of one structure: a sequence of `Solution`, and stacked arrays.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    status : array of str, shape (B,)
    info : dict
        Per element: status, iterations, refinements, residual, solver (see `Solution`); for the batch:
        setup_time, solve_time and refine_time, in seconds.
    """

    def __init__(self, batch: SolvedBatch) -> None:
        self._batch, result = batch, batch.result
        self.x, self.y, self.s = result.x.copy(), result.y.copy(), result.s.copy()
        self.status = result.status.copy()

    @cached_property
    def info(self) -> dict[str, Any]:
        """How the solve went."""
        return solve_info(self._batch.result)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Where there is no solution, shape (B,)."""
        return ~self._batch.result.has_solution

    def derivative(self, method: str | None = None) -> BatchDerivative:
        """Return the derivatives of all solution maps; see `Solution.derivative`."""
        result = self._batch.result
        return BatchDerivative(self._batch.derivative(method), result.x, result.y)

    def __repr__(self) -> str:
        return f"Solutions({len(self)} programs: {summarise(self._batch.result)})"

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Solution:
        index = operator.index(index)
        return Solution(self._batch, range(len(self))[index])

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class SolvedBatch:
    """A solved batch, with all that its derivative needs."""

    solver: BatchSolver
    data: ConeData
    result: SolveResult
    settings: Settings

    def derivative(self, method: str | None = None) -> StackDerivative:
        """Return the derivative of the stack."""
        settings = self.settings if method is None else self.settings.updated({"method": method})
        return StackDerivative(self.solver, self.data, self.result, settings)

    def take(self, index: int) -> SolvedBatch:
        """Return a batch of one element; it is differentiated in this process."""
        settings = replace(self.settings, executor=None)
        if self.result.count == 1:
            return replace(self, settings=settings)
        one = np.array([index])
        return SolvedBatch(self.solver, self.data.take(one), self.result.take(one), settings)


def solve_info(result: SolveResult) -> dict[str, Any]:
    """Return how the solve of a stack went, as users see it; the arrays are copies."""
    return {
        "status": result.status.copy(),
        "iterations": result.iterations.copy(),
        "refinements": result.refinements.copy(),
        "residual": result.residual.copy(),
        "solver": result.solver.copy(),
        "setup_time": result.setup_time,
        "solve_time": result.solve_time,
        "refine_time": result.refine_time,
    }
