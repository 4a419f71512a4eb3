"""Solutions of a stack of programs, and how they were found."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.factor import KKTFactor
from conediff.program import Array, Point, Structure
from conediff.scaling import Equilibration

# Arrays with one entry or row for each program.
_PER_PROGRAM = ("x", "y", "s", "status", "residual", "iterations", "refinements", "solver", "out_of_time")

_NOT_JOINED = ("factors", "equilibrations", "failed_cotangent")


@dataclass
class SolveResult:
    """Solutions of a stack of programs; the solve schedule fills it in.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
        Certificates where a program is infeasible (y) or unbounded (x, s); NaN where nothing was found.
    status : array of str, shape (B,)
        solved, inaccurate, infeasible, unbounded or failed.
    residual : array, shape (B,)
        Relative KKT residual, see `kkt.residual.Evaluation.judged`.
    iterations, refinements : int arrays, shape (B,)
        Iterations of SCS (of the whole pile) and Clarabel, and Newton steps.
    solver : array of str, shape (B,)
        Whose point was refined, or whose certificate this is: "scs" or "clarabel"; "start" where it is the
        start, and empty where there is no point.
    out_of_time : bool array, shape (B,)
        Whether the time limit ended the solve.
    setup_time, solve_time, refine_time : float
        Seconds of set-up and iterations of SCS and Clarabel, and of Newton's method, for the whole stack.
    factors : list of KKTFactor or None
        For each part of the stack the factor of K near the solutions, where there is one.
    equilibrations : list of Equilibration
        For each part of the stack; empty if it was not solved in this process.
    failed_cotangent : float
        Cotangents of elements without a solution, NaN or 0; decided by `api.failures`.
    """

    x: Array
    y: Array
    s: Array
    status: NDArray[np.str_]
    residual: Array
    iterations: NDArray[np.intp]
    refinements: NDArray[np.intp]
    solver: NDArray[np.str_]
    out_of_time: NDArray[np.bool_]
    setup_time: float = 0.0
    solve_time: float = 0.0
    refine_time: float = 0.0
    factors: list[KKTFactor | None] = field(default_factory=list, repr=False)
    equilibrations: list[Equilibration] = field(default_factory=list, repr=False)
    failed_cotangent: float = np.nan

    @classmethod
    def empty(cls, count: int, structure: Structure) -> SolveResult:
        """Return a result without solutions."""
        n, m = structure.n, structure.m
        return cls(
            x=np.full((count, n), np.nan),
            y=np.full((count, m), np.nan),
            s=np.full((count, m), np.nan),
            status=np.full(count, "failed", dtype="<U10"),
            residual=np.full(count, np.inf),
            iterations=np.zeros(count, dtype=np.intp),
            refinements=np.zeros(count, dtype=np.intp),
            solver=np.full(count, "", dtype="<U8"),
            out_of_time=np.zeros(count, dtype=bool),
        )

    @classmethod
    def joined(cls, parts: list[SolveResult]) -> SolveResult:
        """Join the results of the parts of a stack; times add up."""
        if len(parts) == 1:
            return parts[0]

        def join(values: list[Any]) -> Any:
            return np.concatenate(values) if isinstance(values[0], np.ndarray) else sum(values)

        names = [f.name for f in fields(cls) if f.name not in _NOT_JOINED]
        joined = cls(**{name: join([getattr(part, name) for part in parts]) for name in names})
        joined.factors = [factor for part in parts for factor in part.factors or [None]]
        joined.equilibrations = [one for part in parts for one in part.equilibrations]
        return joined

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but what only the derivative in this process needs."""
        return {**self.__dict__, "factors": [], "equilibrations": []}

    @property
    def count(self) -> int:
        """Number of programs."""
        return len(self.x)

    @property
    def point(self) -> Point:
        """x, y and s."""
        return Point(self.x, self.y, self.s)

    @property
    def has_solution(self) -> NDArray[np.bool_]:
        """Whether there is a solution, accurate or nearly so, shape (B,)."""
        return np.asarray((self.status == "solved") | (self.status == "inaccurate"))

    def take(self, index: NDArray[np.intp]) -> SolveResult:
        """Return the solutions of the programs at these positions; times are those of the whole stack."""
        taken = replace(self, factors=[], equilibrations=[])
        for name in _PER_PROGRAM:
            setattr(taken, name, getattr(self, name)[index])
        return taken

    def improve(self, index: NDArray[np.intp], again: SolveResult) -> None:
        """Replace solutions by those of a second solve, unless only the first one reached the tolerance."""
        good = (again.status == "solved") | (again.has_solution & (self.status[index] != "solved"))
        self.replace(index, again, good)

    def replace(
        self, index: NDArray[np.intp], again: SolveResult, good: NDArray[np.bool_] | slice = slice(None)
    ) -> None:
        """Replace solutions by those of another solve, or its ``good`` ones; add iterations and times."""
        self.factors = []
        for name in ("x", "y", "s", "status", "residual"):
            getattr(self, name)[index[good]] = getattr(again, name)[good]
        began_here = again.solver == "start"
        self.solver[index[good]] = np.where(began_here, self.solver[index], again.solver)[good]
        self.out_of_time[index] = again.out_of_time
        self.iterations[index] += again.iterations
        self.refinements[index] += again.refinements
        for name in ("setup_time", "solve_time", "refine_time"):
            setattr(self, name, getattr(self, name) + getattr(again, name))
