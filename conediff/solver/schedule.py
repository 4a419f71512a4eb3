"""The solve schedule: a table of stages that every program passes through until it is solved.

In a stage SCS runs, from the best point so far, and Newton's method refines what SCS found. Early stages
solve many programs in one call of SCS (a pile), because SCS's first digits are cheap; later ones solve each
program alone, so that a difficult program does not hold its pile back, and infeasibility is certified alone.
The first of these calls Clarabel, whose iterations do not depend on the conditioning; SCS's last stages, to a
tight tolerance, are for what Clarabel does not solve, or is too large for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.parallel import mapper
from conediff.program import ConeData, Point
from conediff.solver.certificates import Certificates
from conediff.solver.clarabel import ClarabelFailure, solve_by_clarabel
from conediff.solver.clarabel_cones import clarabel_work
from conediff.solver.constants import CLARABEL_WORK, INACCURATE, SCALED_TOLERANCE
from conediff.solver.newton import NewtonMethod, damped_newton, full_newton
from conediff.solver.raw import RawSolution
from conediff.solver.result import SolveResult
from conediff.solver.scs import Piles, SCSRefusal, scale_for
from conediff.solver.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule.

    Attributes
    ----------
    in_piles : bool
        Whether many programs go together; each goes alone otherwise.
    newton : callable, optional
        `full_newton` or `damped_newton`; None if the solver's point is accepted as it is.
    own : mapping
        The solver's settings.
    user_first : bool
        Whether settings of the user take precedence over these.
    is_cold : bool
        Whether SCS begins anew, not from the best point so far.
    solver : {"scs", "clarabel"}
        Clarabel takes each program alone, and begins anew.
    """

    in_piles: bool
    newton: NewtonMethod | None
    own: Mapping[str, Any] = field(default_factory=dict)
    user_first: bool = True
    is_cold: bool = False
    solver: str = "scs"

    def settings(self, of_user: Settings) -> dict[str, Any]:
        """Return the solver's settings for this stage."""
        if self.solver == "clarabel":
            # The user's `verbose` is for both solvers.
            given = {name: value for name, value in of_user.scs.items() if name == "verbose"}
            given.update(of_user.clarabel)
        else:
            given = dict(of_user.scs)
        return {**self.own, **given} if self.user_first else {**given, **self.own}


def _tolerance(eps: float) -> dict[str, float]:
    return {"eps_abs": eps, "eps_rel": eps}


def _clarabel_tolerance(eps: float) -> dict[str, float]:
    return {"tol_gap_abs": eps, "tol_gap_rel": eps, "tol_feas": eps}


# Clarabel's tolerance of certificates, tighter than CERTIFICATE, which all certificates have to meet.
_CLARABEL_CERTIFY = {"tol_infeas_rel": 1e-10}


_CERTIFY = {"eps_infeas": 1e-9}
# 25 iterations find the active constraints of most programs.
_FIRST = {**_tolerance(1e-2), "max_iters": 25, "acceleration_lookback": 0}
# Clarabel stops where it makes no more progress, and returns its best point. On 36 problems of Maros and
# Meszaros, netlib and SDPLIB, Newton's method solves 26, 30, 32 and 33 from its points at 1e-8, 1e-10, 1e-12
# and 1e-14, with half as many steps at 1e-14 as at 1e-8, for a third more iterations of Clarabel.
_CLARABEL = Stage(
    False,
    damped_newton,
    {**_clarabel_tolerance(1e-14), **_CLARABEL_CERTIFY},
    user_first=False,
    solver="clarabel",
)
STAGES = (
    Stage(True, full_newton, _FIRST),
    Stage(True, full_newton, {**_tolerance(1e-3), "max_iters": 200}),
    Stage(True, full_newton, {**_tolerance(1e-5), "max_iters": 1000, "scale": 1.0}),
    # As the first stage, alone: a pile's iterations may have led this program astray.
    Stage(False, full_newton, _FIRST, is_cold=True),
    _CLARABEL,
    Stage(False, damped_newton, {**_tolerance(1e-6), **_CERTIFY}),
    Stage(False, damped_newton, {**_tolerance(1e-9), **_CERTIFY, "max_iters": 10_000}, user_first=False),
    # Anderson acceleration now and then prevents convergence.
    Stage(
        False, damped_newton, {**_tolerance(1e-9), **_CERTIFY, "acceleration_lookback": 0}, user_first=False
    ),
    Stage(
        False,
        damped_newton,
        {**_tolerance(1e-9), **_CERTIFY, "max_iters": 10_000, "scale": 1.0},
        user_first=False,
    ),
)


def stages_for(settings: Settings, stages: Sequence[Stage], clarabel_last: bool = False) -> Sequence[Stage]:
    """Return these stages as the user's settings change them.

    Without refinement there is one. If Clarabel is to come first, it takes the place of the piles, with the
    settings of the user; the stage with its own follows only where they differ. Otherwise it comes last if
    so told.
    """
    if not settings.refine:
        tolerance = _clarabel_tolerance if settings.solver == "clarabel" else _tolerance
        return [Stage(False, None, tolerance(settings.tol), solver=settings.solver)]
    if settings.solver == "scs" or not stages:
        return sorted(stages, key=lambda stage: stage is _CLARABEL) if clarabel_last else stages
    first = replace(_CLARABEL, user_first=True)
    alone = [stage for stage in stages if not (stage.in_piles or stage.is_cold)]
    rest = [stage for stage in alone if stage is not _CLARABEL or settings.clarabel]
    return [first, *rest]


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
        self.settings = settings.begun()
        self.tol = min(settings.tol, SCALED_TOLERANCE) if is_scaled else settings.tol
        self.result = SolveResult.empty(data.count, system.pattern.structure)
        self.active = np.arange(data.count)
        self.unsolvable_in_pile = np.zeros(data.count, dtype=bool)

    def run(self, stages: Sequence[Stage] = STAGES) -> SolveResult:
        """Pass the programs through the stages; with none of these, only refine from the start."""
        if self.settings.refine and self.start is not None:
            self._refine_from_start(self.start)
        clarabel_last = clarabel_work(self.system.pattern.structure, self.data) > CLARABEL_WORK
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
        certified = np.isin(self.result.status[self.active], ("infeasible", "unbounded"))
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
        self.result.started_warm = True
        self._refine(np.flatnonzero(finite), start.take(finite), full_newton, "start")

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
        r.residual[index], r.solver[index] = evaluation.relative, solver
        failed = (np.array(statuses) == "inaccurate") & (evaluation.relative > INACCURATE)
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
