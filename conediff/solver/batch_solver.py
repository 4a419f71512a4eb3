"""Stacks of programs of one structure: cut into parts, scaled, and solved by the solve schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from conediff.kkt.constants import ROW_SHARE, ROW_TOLERANCE
from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.parallel import backend
from conediff.program import Array, ConeData, Point, Structure
from conediff.scaling import ConeScaling, ConeScalings, Equilibrator, Magnitude
from conediff.solver import constants
from conediff.solver.result import SolveResult
from conediff.solver.schedule import SolveSchedule
from conediff.solver.scs import Piles
from conediff.solver.settings import Settings
from conediff.solver.stages import STAGES, Stage

NO_MAGNITUDE = Magnitude(np.ones((1, 1)), np.ones((1, 1)))


class BatchSolver:
    """Solves stacks of programs of one structure; keeps what depends on the structure alone.

    Parameters
    ----------
    structure : Structure

    Attributes
    ----------
    structure : Structure
    scalings : ConeScalings
    system : KKTSystem
        Of ``scalings.scaled_structure``.
    piles : Piles
        Of ``scalings.scaled_structure``.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.equilibrator = Equilibrator(structure)
        self.scalings = ConeScalings(structure)
        self.system = KKTSystem(self.scalings.scaled_structure)
        self.piles = Piles(self.scalings.scaled_structure)

    def __getstate__(self) -> dict[str, Any]:
        return {"structure": self.structure}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def solve(self, data: ConeData, settings: Settings, start: Point | None = None) -> SolveResult:
        """Solve every program of a stack: in threads, or by the executor of the settings.

        Parameters
        ----------
        data : ConeData
        settings : Settings
        start : Point, optional
            Where to begin; rows that are not finite are not used.

        Returns
        -------
        SolveResult
            Its times are those of all threads or workers together.

        Raises
        ------
        ExecutorError
            If the executor takes no work, or every worker that took some of it died.

        Warns
        -----
        ConediffWarning
            If workers were lost, and their programs were solved in this process.
        """
        if data.count == 0:
            return SolveResult.empty(0, self.structure)
        settings = settings.begun()
        parts = self.parts(data.count, settings, [data.P, data.A, data.b, data.c, *(start or ())])
        inner = settings
        if settings.executor is not None:
            # on_failure and warm_start are dealt with in this process, and may be objects that cannot be
            # pickled.
            inner = replace(
                settings,
                executor=None,
                threads=settings.threads or 1,
                on_failure="nan",
                warm_start=None,
                progress=False,
            )
        elif len(parts) > 1:
            inner = replace(settings, threads=1)

        def arguments(part: slice) -> tuple[ConeData, Settings, Point | None]:
            return data.take(part), inner, None if start is None else start.take(part)

        run = backend(settings.executor, settings.threads, "solving" if settings.progress else "").map
        result = SolveResult.joined(run(_solve_part, [self], parts, arguments))
        if settings.executor is not None:
            # Workers of other processes cannot return theirs: all are treated alike.
            result.factors, result.equilibrations = [], []
        return result

    def parts(self, count: int, settings: Settings, arrays: Sequence[Array]) -> list[slice]:
        """Cut a stack into parts, by its size and, with an executor, the number of its workers.

        Parameters
        ----------
        count : int
        settings : Settings
            ``executor`` and ``threads`` are read.
        arrays : sequence of arrays
            What a worker is sent of the stack; arrays of one row go with every part.
        """
        entries = count * self.system.pattern.nnz
        at_least = 1
        if entries >= constants.ENTRIES_WITHOUT_PARTS:
            wanted = max(1, entries / constants.ENTRIES_OF_A_PART)
            at_least = min(count, max(2, 1 << math.ceil(math.log2(wanted))))
        row_bytes = 8 * sum(array.shape[1] for array in arrays if len(array) > 1)
        cut = backend(settings.executor, settings.threads).parts
        return cut(count, at_least, self.piles.size(count), row_bytes)

    def solve_part(self, data: ConeData, settings: Settings, start: Point | None) -> SolveResult:
        """Solve the programs of one part, equilibrated."""
        equilibration = self.equilibrator.equilibration(data)
        data = equilibration.scale_data(data)
        if start is not None:
            start = equilibration.scale_point(start)
        result = self._solve_equilibrated(data, settings, start)
        infeasible, unbounded = result.status == "infeasible", result.status == "unbounded"
        result.x, result.y, result.s = equilibration.unscale_point(result.point, infeasible, unbounded)
        result.equilibrations = [equilibration]
        return result

    def _solve_equilibrated(self, data: ConeData, settings: Settings, start: Point | None) -> SolveResult:
        if start is None:
            scaling = self.scalings.exponential_row_equilibration(data)
            result = self._solve_and_rescale(scaling, data, settings)
        else:
            result = self._solve_from(start, data, settings)
        return result

    def _solve_from(self, start: Point, data: ConeData, settings: Settings) -> SolveResult:
        """Solve from a start, in the cone scaling that it asks for.

        If refinement from the start fails in such a scaling, the scaling is wrong as well: those programs are
        solved as if there were no start.
        """
        scaling = self.scalings.primal_dual(data, *start)
        if scaling.is_identity or not settings.refine:
            return self._solve_and_rescale(scaling, data, settings, start)
        result = self._solve_and_rescale(scaling, data, settings, start, stages=())
        left = np.flatnonzero(result.status != "solved")
        if left.size:
            data = data.repeated(result.count).take(left)
            again = self._solve_and_rescale(self.scalings.exponential_row_equilibration(data), data, settings)
            result.replace(left, again)
        return result

    def _solve_and_rescale(
        self,
        scaling: ConeScaling,
        data: ConeData,
        settings: Settings,
        start: Point | None = None,
        stages: Sequence[Stage] = STAGES,
    ) -> SolveResult:
        """Solve in a cone scaling; recompute it at the solution, and solve again where it differs."""
        result = self._solve_in(scaling, data, settings, start, stages)
        if not settings.refine:
            return result
        better = self.scalings.primal_dual(data, *result.point)
        if better.is_identity and scaling.is_identity:
            return result
        index = np.flatnonzero(result.has_solution & better.differs(scaling))
        if index.size:
            data = data.repeated(result.count).take(index)
            x, y = result.x[index], result.y[index]
            s = data.b - self.structure.A.products(data.A)[0](x)
            start, better = Point(x, y, s), better.take(index)
            again = self._solve_in(better, data, settings, start, stages=())
            left = np.flatnonzero((again.status != "solved") & (result.status[index] != "solved"))
            if left.size:
                rest = data.repeated(index.size).take(left)
                again.replace(
                    left, self._solve_in(better.take(left), rest, settings, start.take(left), STAGES)
                )
            result.improve(index, again)
        return result

    def _solve_in(
        self,
        scaling: ConeScaling,
        data: ConeData,
        settings: Settings,
        start: Point | None,
        stages: Sequence[Stage],
    ) -> SolveResult:
        """Solve in a cone scaling, and at an ordinary magnitude."""
        given, data = data, scaling.scale_data(data)
        magnitude = NO_MAGNITUDE if scaling.is_identity else Magnitude.of(data)
        if start is not None:
            x, y, s = start
            start = Point(
                *magnitude.forward(x / scaling.columns, scaling.scale_dual(y), scaling.scale_slack(s))
            )
        scaled = magnitude.scaled(data)
        result = SolveSchedule(self.system, self.piles, scaled, settings, start, not scaling.is_identity).run(
            stages
        )
        if not (scaling.is_identity and magnitude.is_identity):
            result.factors = []  # those of other data
        infeasible, unbounded = result.status == "infeasible", result.status == "unbounded"
        x, y, s = magnitude.back(result.x, result.y, result.s, infeasible, unbounded)
        result.x, result.y, result.s = x * scaling.columns, scaling.unscale_dual(y), scaling.unscale_slack(s)
        if settings.refine and not scaling.is_identity:
            self._check_rows(given, result, settings.tol)
        return result

    def _check_rows(self, data: ConeData, result: SolveResult, tol: float) -> None:
        """Judge the rows of solutions that were found in a cone scaling, where a row may be negligible."""
        index = np.flatnonzero(result.has_solution)
        if index.size == 0:
            return
        R = Residual(self.structure, data.repeated(result.count).take(index))
        residual = ROW_SHARE * R.by_rows(*result.point.take(index))
        violated = residual > max(tol, ROW_SHARE * ROW_TOLERANCE)
        index, residual = index[violated], residual[violated]
        result.residual[index] = np.maximum(result.residual[index], residual)
        result.status[index] = np.where(residual <= constants.INACCURATE, "inaccurate", "failed")


def _solve_part(solver: BatchSolver, data: ConeData, settings: Settings, start: Point | None) -> SolveResult:
    """Solve one part, in a thread or in a worker."""
    return solver.solve_part(data, settings, start)
