"""Solutions of a stack of programs, and how they were found."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.factor import KKTFactor
from conediff.program import Array, Structure

_taking = threading.Lock()


@dataclass
class SolveResult:
    """Solutions of a stack of programs, filled in as the ladder is climbed.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
        Certificates where a program is infeasible (y) or unbounded (x, s), NaN where there is nothing.
    status : array of str, shape (B,)
        solved, inaccurate, infeasible, unbounded or failed.
    residual : array, shape (B,)
        Relative KKT residual.
    iterations, refinements : int arrays, shape (B,)
        SCS's iterations (of the pile, for those solved in one) and Newton steps.
    setup_time, solve_time, refine_time : float
        Seconds, for the whole stack.
    factors : list of KKTFactor or None
        Of the last Newton step, for every chunk of the stack, where there is one; see `take_factors`.
    """

    x: Array
    y: Array
    s: Array
    status: NDArray[np.str_]
    residual: Array
    iterations: NDArray[np.intp]
    refinements: NDArray[np.intp]
    setup_time: float = 0.0
    solve_time: float = 0.0
    refine_time: float = 0.0
    started_warm: bool = field(default=False)
    factors: list[KKTFactor | None] = field(default_factory=list, repr=False)

    @classmethod
    def empty(cls, count: int, structure: Structure) -> SolveResult:
        n, m = structure.n, structure.m
        return cls(
            x=np.full((count, n), np.nan),
            y=np.full((count, m), np.nan),
            s=np.full((count, m), np.nan),
            status=np.full(count, "failed", dtype="<U10"),
            residual=np.full(count, np.inf),
            iterations=np.zeros(count, dtype=np.intp),
            refinements=np.zeros(count, dtype=np.intp),
        )

    @classmethod
    def joined(cls, parts: list[SolveResult]) -> SolveResult:
        """Put the parts of a stack together again; times add up."""

        def join(values: list[Any]) -> Any:
            if isinstance(values[0], np.ndarray):
                return np.concatenate(values)
            return any(values) if isinstance(values[0], bool) else sum(values)

        names = [f.name for f in fields(cls) if f.name != "factors"]
        joined = cls(**{name: join([getattr(part, name) for part in parts]) for name in names})
        joined.factors = [factor for part in parts for factor in part.factors or [None]]
        return joined

    def take_factors(self) -> list[KKTFactor | None]:
        """Hand the factors over to the first who asks: only one at a time can solve with them."""
        with _taking:
            factors, self.factors = self.factors, []
        return factors

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "factors": []}

    @property
    def count(self) -> int:
        """Number of programs."""
        return len(self.x)

    def improve(self, index: NDArray[np.intp], again: SolveResult) -> None:
        """Take what a second solve of these programs found; without it the first is inaccurate."""
        good = again.usable
        self.status[index[~good]] = "inaccurate"
        self.replace(index, again, good)

    def replace(
        self, index: NDArray[np.intp], again: SolveResult, good: NDArray[np.bool_] | slice = slice(None)
    ) -> None:
        """Take how another solve of these programs ended, or of the ``good`` ones; its work counts."""
        self.factors = []
        for name in ("x", "y", "s", "status", "residual"):
            getattr(self, name)[index[good]] = getattr(again, name)[good]
        self.iterations[index] += again.iterations
        self.refinements[index] += again.refinements
        for name in ("setup_time", "solve_time", "refine_time"):
            setattr(self, name, getattr(self, name) + getattr(again, name))

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether there is a solution, accurate or nearly so, shape (B,)."""
        return np.asarray((self.status == "solved") | (self.status == "inaccurate"))
