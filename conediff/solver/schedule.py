"""The solve schedule: every program passes through the stages of a table until it is solved.

In a stage SCS runs, from the best point so far, and Newton's method refines what SCS found. Early stages
solve many programs in one call of SCS (a pile), because SCS's first digits are cheap; later ones solve each
program alone, so that a difficult program does not hold its pile back, and infeasibility is certified alone.
The first of these calls Clarabel, whose iterations do not depend on the conditioning; SCS's last stages, to a
tight tolerance, are for what Clarabel does not solve, or is too large for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.parallel import mapper
from conediff.program import ConeData, Point
from conediff.solver.certificates import Certificates
from conediff.solver.clarabel import ClarabelFailure, solve_by_clarabel
from conediff.solver.constants import INACCURATE, SCALED_TOLERANCE
from conediff.solver.newton import NewtonMethod, confirming_newton, full_newton
from conediff.solver.raw import RawSolution
from conediff.solver.result import SolveResult
from conediff.solver.scs import Piles, SCSRefusal, scale_for
from conediff.solver.settings import Settings
from conediff.solver.stages import STAGES, Stage, stages_for, stages_of


class SolveSchedule:
    """One solve of a stack of programs.

    Parameters
    ----------
    system : KKTSystem
    piles : Piles
        Of the same structure.
    data : ConeData
    settings : Settings
    start : Point, optional
        Where to begin; rows that are not finite are not used.
    is_scaled : bool
        Whether the programs are in a cone scaling, in which digits beyond the tolerance matter.
    """

    def __init__(
        self,
        system: KKTSystem,
        piles: Piles,
        data: ConeData,
        settings: Settings,
        start: Point | None = None,
        is_scaled: bool = False,
    ) -> None:
        self.system, self.piles, self.data, self.start = system, piles, data, start
        self.settings, self.is_scaled = settings.begun(), is_scaled
        self.tol = min(settings.tol, SCALED_TOLERANCE) if is_scaled else settings.tol
        self.result = SolveResult.empty(data.count, system.pattern.structure)
        self.active = np.arange(data.count)
        self.unsolvable_in_pile = np.zeros(data.count, dtype=bool)

    def run(self, stages: Sequence[Stage] = STAGES) -> SolveResult:
        """Pass the programs through the stages; with none of these, only refine from the start."""
        if self.settings.refine and self.start is not None:
            self._refine_from_start(self.start)
        clarabel_last = False
        if stages is STAGES:
            stages, clarabel_last = stages_of(self.system.pattern, self.data)
        for stage in stages_for(self.settings, stages, clarabel_last):
            skipped = stage.is_cold and self.data.count == 1  # it was alone in its first stage
            if self.active.size and self._seconds_left > 0 and not skipped:
                self._run_stage(stage)
        r, left = self.result, self.active
        r.status[left] = np.where(r.residual[left] <= INACCURATE, "inaccurate", "failed")
        if self._seconds_left <= 0:
            r.out_of_time = (r.status == "inaccurate") | (r.status == "failed")
        return r

    @property
    def _seconds_left(self) -> float:
        """Seconds to the deadline; inf without a time limit."""
        return self.settings.deadline - time.time()

    def _run_stage(self, stage: Stage) -> None:
        """Run the solver on all piles of the active programs, then Newton's method on all points found."""
        piles, solve = self._piles_of(stage), self._clarabel if stage.solver == "clarabel" else self._scs
        raws = mapper(self.settings.threads)(lambda pile: solve(pile, stage), piles)
        found: list[tuple[NDArray[np.intp], RawSolution]] = []
        for pile, raw in zip(piles, raws, strict=True):
            if raw is not None:
                self._count(pile, raw)
            if raw is not None and raw.status in ("infeasible", "unbounded") and not stage.in_piles:
                self._certify(pile, raw, stage)
            elif raw is not None and raw.finite:
                found.append((pile, raw))
            elif stage.in_piles:
                self.unsolvable_in_pile[pile] = True
        status = self.result.status[self.active]
        certified = (status == "infeasible") | (status == "unbounded")
        self.active = self.active[~certified]
        if not found:
            return
        index = np.concatenate([pile for pile, _ in found])
        point = Point(*(np.concatenate([getattr(raw, name) for _, raw in found]) for name in ("x", "y", "s")))
        if stage.newton is None:
            self._accept(index, point, [raw.status for _, raw in found], stage.solver)
        else:
            self._refine(index, point, stage.newton, stage.solver)

    def _piles_of(self, stage: Stage) -> list[NDArray[np.intp]]:
        """Return the programs of each call of SCS; a pile without a solution is not tried as a pile again."""
        index = self.active[~self.unsolvable_in_pile[self.active]] if stage.in_piles else self.active
        size = self.piles.size(index.size) if stage.in_piles else 1
        return [index[i : i + size] for i in range(0, index.size, size)]

    def _scs(self, index: NDArray[np.intp], stage: Stage) -> RawSolution | None:
        """Run SCS on these programs as one pile, from the best point so far; None if it cannot."""
        data, best, seconds = self.data.take(index), self.result.point.take(index), self._seconds_left
        if not data.is_finite or seconds <= 0:  # the maps of a layer may overflow; SCS does not check
            return None
        settings = stage.settings(self.settings)
        if seconds < math.inf:
            settings["time_limit_secs"] = seconds
        if stage.share is not None:
            settings["max_iters"] = max(1, int(stage.share * self.result.iterations[index].max()))
        if (stage.in_piles or stage.is_cold) and "scale" not in settings:
            settings["scale"] = scale_for(data, None if stage.is_cold else best)
        try:
            start = best if np.isfinite(best.x).all() and not stage.is_cold else None
            return self.piles.of(index.size).solve(data, settings, start)
        except SCSRefusal:
            return None

    def _clarabel(self, index: NDArray[np.intp], stage: Stage) -> RawSolution | None:
        """Run Clarabel on one program; None if it cannot."""
        data, seconds = self.data.take(index), self._seconds_left
        if not data.is_finite or seconds <= 0:
            return None
        settings = {**stage.settings(self.settings), "time_limit": seconds}
        try:
            return solve_by_clarabel(self.system.pattern.structure, data, settings)
        except ClarabelFailure:
            return None

    def _count(self, index: NDArray[np.intp], raw: RawSolution) -> None:
        self.result.iterations[index] += raw.iterations
        self.result.setup_time += raw.setup_time
        self.result.solve_time += raw.solve_time

    def _refine_from_start(self, start: Point) -> None:
        """Refine from the warm start; where that converges SCS is not called."""
        finite = np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in start])
        newton = confirming_newton if self.is_scaled else full_newton
        self._refine(np.flatnonzero(finite), start.take(finite), newton, "start")

    def _refine(self, index: NDArray[np.intp], start: Point, newton: NewtonMethod, solver: str) -> None:
        """Refine these programs, keep points that are better than before, and deactivate what is solved."""
        began, deadline = time.perf_counter(), self.settings.deadline
        r, found = self.result, newton(self.system, self.data.take(index), start, self.tol, deadline)
        r.refinements[index] += found.steps
        better = found.residual < r.residual[index]
        moved = index[better]
        r.x[moved], r.y[moved], r.s[moved] = found.x[better], found.y[better], found.s[better]
        r.residual[moved], r.solver[moved] = found.residual[better], solver
        if index.size == self.data.count:
            r.factors = [found.factor]
        solved = r.residual <= self.settings.tol
        r.status[solved] = "solved"
        self.active = self.active[~solved[self.active]]
        r.refine_time += time.perf_counter() - began

    def _accept(self, index: NDArray[np.intp], point: Point, statuses: list[str], solver: str) -> None:
        """Keep the solver's points and statuses, where there is no refinement."""
        evaluation = Residual(self.system.pattern.structure, self.data.take(index))(
            point.x, point.y - point.s
        )
        r = self.result
        r.x[index], r.y[index], r.s[index] = point.x, evaluation.y, evaluation.s
        r.residual[index], r.solver[index] = evaluation.judged, solver
        failed = (np.array(statuses) == "inaccurate") & (evaluation.judged > INACCURATE)
        r.status[index] = np.where(failed, "failed", statuses)
        self.active = self.active[:0]

    def _certify(self, one: NDArray[np.intp], raw: RawSolution, stage: Stage) -> None:
        """Keep a certificate of infeasibility or unboundedness, if it holds."""
        certificates = Certificates(self.system.pattern.structure, self.data.take(one))
        if raw.status == "infeasible":
            holds = certificates.prove_infeasibility(raw.y)
        else:
            holds = certificates.prove_unboundedness(raw.x)
        if holds.all():
            r = self.result
            r.x[one], r.y[one], r.s[one] = raw.x, raw.y, raw.s
            r.status[one], r.residual[one], r.solver[one] = raw.status, np.inf, stage.solver
