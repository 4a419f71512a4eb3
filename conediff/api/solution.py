"""Solutions as a user sees them: of one cone program, or of a batch."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.api.derivative import BatchDerivative, Derivative, PartialDerivative
from conediff.derivative.framed import FramedDerivative
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
        iterations, refinements, residual, setup_time, solve_time, refine_time (seconds).
    """

    def __init__(self, parent: Solutions, index: int) -> None:
        self._parent, self._index = parent, index
        stack = parent._stack
        # Copies, here and for the batch: they are the user's, and the derivative is taken at the originals.
        self.x, self.y, self.s = stack.x[index].copy(), stack.y[index].copy(), stack.s[index].copy()
        self.status = str(stack.status[index])
        self.info = {
            key: value[index].item() if isinstance(value, np.ndarray) else value
            for key, value in parent.info.items()
            if key != "status"
        }

    def derivative(self, method: str | None = None) -> Derivative:
        """Return the derivative of the solution map here.

        Parameters
        ----------
        method : {"auto", "direct", "lsqr", "lsmr", "dense"}, optional
            The one given to `solve` by default. "direct" solves the reduced system; "lsqr" and "lsmr" iterate
            on the derivative of the embedding; "dense" is the reference, by singular values; "auto" is
            direct, and LSQR where the reduced system is singular.

        Raises
        ------
        SolverError
            If there is no solution to differentiate at.
        """
        if self.status not in ("solved", "inaccurate"):
            raise SolverError(
                f"there is no derivative, for there is no solution: the program is {self.status}",
                solutions=self,
            )
        parent, index = self._parent, np.array([self._index])
        solved = parent._stack
        settings = parent._settings.updated({} if method is None else {"method": method})
        stack = FramedDerivative(
            parent._engine.frames,
            parent._engine.kkt,
            parent._data.take(index),
            solved.x[index],
            solved.y[index],
            solved.s[index],
            settings.method,
            factor=(solved.take_factors() or [None])[0] if len(parent) == 1 else None,
        )
        return Derivative(stack)

    def __repr__(self) -> str:
        return f"Solution(status={self.status!r}, residual={self.info['residual']:.1e})"


class Solutions:
    """The solutions of a batch of programs of one structure: a sequence of `Solution`, and stacked arrays.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    status : array of str, shape (B,)
    info : dict
        Per element: status, iterations, refinements, residual; for the batch: setup_time, solve_time and
        refine_time, in seconds.
    """

    def __init__(self, engine: BatchSolver, data: ConeData, stack: SolveResult, settings: Settings) -> None:
        self._engine, self._data, self._stack, self._settings = engine, data, stack, settings
        self.x, self.y, self.s, self.status = (
            stack.x.copy(),
            stack.y.copy(),
            stack.s.copy(),
            stack.status.copy(),
        )
        self._fill = 0.0 if settings.on_failure == "zero_grad" else np.nan

    @cached_property
    def info(self) -> dict[str, Any]:
        """How the solve went."""
        return stack_info(self._stack)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Where there is no solution, shape (B,)."""
        return ~self._stack.usable

    def derivative(self, method: str | None = None) -> BatchDerivative:
        """Return the derivatives of all solution maps; see `Solution.derivative`."""
        settings = self._settings.updated({} if method is None else {"method": method})
        return BatchDerivative(PartialDerivative(self._engine, self._data, self._stack, settings, self._fill))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Solution:
        index = operator.index(index)
        return Solution(self, range(len(self))[index])

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))


def stack_info(stack: SolveResult) -> dict[str, Any]:
    """Describe how the solve of a stack went."""
    return {
        "status": stack.status,
        "iterations": stack.iterations,
        "refinements": stack.refinements,
        "residual": stack.residual,
        "setup_time": stack.setup_time,
        "solve_time": stack.solve_time,
        "refine_time": stack.refine_time,
    }
