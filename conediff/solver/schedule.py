"""The solve schedule: a table of stages that every program passes through until it is solved.

In a stage SCS runs, from the best point so far, and Newton's method refines what SCS found. Early stages
solve many programs in one call of SCS (a pile), because SCS's first digits are cheap; later ones solve each
program alone and to a tighter tolerance, so that a difficult program does not hold its pile back, and
infeasibility is certified alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.parallel import mapper
from conediff.program import ConeData, Point
from conediff.solver.constants import INACCURATE, SCALE_RANGE, SCALE_STEP, SCALED_TOLERANCE
from conediff.solver.newton import NewtonMethod, damped_newton, full_newton
from conediff.solver.result import SolveResult
from conediff.solver.scs import Piles, RawSolution, SCSRefusal
from conediff.solver.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule.

    Attributes
    ----------
    in_piles : bool
        Whether many programs go together; each goes alone otherwise.
    newton : callable, optional
        `full_newton` or `damped_newton`; None if SCS's point is accepted as it is.
    scs : mapping
        SCS's settings.
    user_first : bool
        Whether settings of the user take precedence over these.
    is_cold : bool
        Whether SCS begins anew, not from the best point so far.
    """

    in_piles: bool
    newton: NewtonMethod | None
    scs: Mapping[str, Any] = field(default_factory=dict)
    user_first: bool = True
    is_cold: bool = False

    def settings(self, of_user: Mapping[str, Any]) -> dict[str, Any]:
        """Return SCS's settings for this stage."""
        return {**self.scs, **of_user} if self.user_first else {**of_user, **self.scs}


def _tolerance(eps: float) -> dict[str, float]:
    return {"eps_abs": eps, "eps_rel": eps}


_CERTIFY = {"eps_infeas": 1e-9}
# 25 iterations find the active constraints of most programs.
_FIRST = {**_tolerance(1e-2), "max_iters": 25, "acceleration_lookback": 0}
STAGES = (
    Stage(True, full_newton, _FIRST),
    Stage(True, full_newton, {**_tolerance(1e-3), "max_iters": 200}),
    Stage(True, full_newton, {**_tolerance(1e-5), "max_iters": 1000, "scale": 1.0}),
    # As the first stage, alone: a pile's iterations may have led this program astray.
    Stage(False, full_newton, _FIRST, is_cold=True),
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
        self.system, self.piles, self.data, self.settings, self.start = system, piles, data, settings, start
        self.tol = min(settings.tol, SCALED_TOLERANCE) if is_scaled else settings.tol
        self.result = SolveResult.empty(data.count, system.pattern.structure)
        self.active = np.arange(data.count)
        self.unsolvable_in_pile = np.zeros(data.count, dtype=bool)

    def run(self, stages: Sequence[Stage] = STAGES) -> SolveResult:
        """Pass the programs through the stages; with none of these, only refine from the start."""
        if not self.settings.refine:
            stages = [Stage(False, None, _tolerance(self.settings.tol))]
        elif self.start is not None:
            self._refine_from_start(self.start)
        for stage in stages:
            if self.active.size and not (stage.is_cold and self.data.count == 1):
                self._run_stage(stage)
        left = self.active
        self.result.status[left] = np.where(self.result.residual[left] <= INACCURATE, "inaccurate", "failed")
        return self.result

    def _run_stage(self, stage: Stage) -> None:
        """Run SCS on all piles of the active programs, then Newton's method on all points that it found."""
        piles = self._piles_of(stage)
        raws = mapper(self.settings.threads)(lambda pile: self._scs(pile, stage), piles)
        found: list[tuple[NDArray[np.intp], RawSolution]] = []
        for pile, raw in zip(piles, raws, strict=True):
            if raw is not None:
                self._count(pile, raw)
            if raw is not None and raw.status in ("infeasible", "unbounded") and not stage.in_piles:
                self._certify(pile, raw)
            elif raw is not None and raw.finite:
                found.append((pile, raw))
            else:
                self.unsolvable_in_pile[pile] = True
        certified = np.isin(self.result.status[self.active], ("infeasible", "unbounded"))
        self.active = self.active[~certified]
        if not found:
            return
        index = np.concatenate([pile for pile, _ in found])
        point = Point(*(np.concatenate([getattr(raw, name) for _, raw in found]) for name in ("x", "y", "s")))
        if stage.newton is None:
            self._accept(index, point, [raw.status for _, raw in found])
        else:
            self._refine(index, point, stage.newton)

    def _piles_of(self, stage: Stage) -> list[NDArray[np.intp]]:
        """Return the programs of each call of SCS; a pile without a solution is not tried as a pile again."""
        index = self.active[~self.unsolvable_in_pile[self.active]] if stage.in_piles else self.active
        size = self.piles.size(index.size) if stage.in_piles else 1
        return [index[i : i + size] for i in range(0, index.size, size)]

    def _scs(self, index: NDArray[np.intp], stage: Stage) -> RawSolution | None:
        """Run SCS on these programs as one pile, from the best point so far; None if it cannot."""
        data, best = self.data.take(index), self.result.point.take(index)
        if not data.is_finite:  # the maps of a layer may overflow; SCS does not check
            return None
        settings = stage.settings(self.settings.scs)
        if (stage.in_piles or stage.is_cold) and "scale" not in settings:
            settings["scale"] = _scale(data, None if stage.is_cold else best)
        try:
            start = best if np.isfinite(best.x).all() and not stage.is_cold else None
            return self.piles.of(index.size).solve(data, settings, start)
        except SCSRefusal:
            return None

    def _count(self, index: NDArray[np.intp], raw: RawSolution) -> None:
        self.result.iterations[index] += raw.iterations
        self.result.setup_time += raw.setup_time
        self.result.solve_time += raw.solve_time

    def _refine_from_start(self, start: Point) -> None:
        """Refine from the warm start; where that converges SCS is not called."""
        finite = np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in start])
        self.result.started_warm = True
        self._refine(np.flatnonzero(finite), start.take(finite), full_newton)

    def _refine(self, index: NDArray[np.intp], start: Point, newton: NewtonMethod) -> None:
        """Refine these programs, keep points that are better than before, and deactivate what is solved."""
        began = time.perf_counter()
        r, found = self.result, newton(self.system, self.data.take(index), start, self.tol)
        r.refinements[index] += found.steps
        better = found.residual < r.residual[index]
        moved = index[better]
        r.x[moved], r.y[moved], r.s[moved] = found.x[better], found.y[better], found.s[better]
        r.residual[moved] = found.residual[better]
        if index.size == self.data.count:
            r.factors = [found.factor]
        solved = r.residual <= self.settings.tol
        r.status[solved] = "solved"
        self.active = self.active[~solved[self.active]]
        r.refine_time += time.perf_counter() - began

    def _accept(self, index: NDArray[np.intp], point: Point, statuses: list[str]) -> None:
        """Keep SCS's points and statuses, where there is no refinement."""
        evaluation = Residual(self.system.pattern.structure, self.data.take(index))(
            point.x, point.y - point.s
        )
        r = self.result
        r.x[index], r.y[index], r.s[index] = point.x, evaluation.y, evaluation.s
        r.residual[index] = evaluation.relative
        failed = (np.array(statuses) == "inaccurate") & (evaluation.relative > INACCURATE)
        r.status[index] = np.where(failed, "failed", statuses)
        self.active = self.active[:0]

    def _certify(self, one: NDArray[np.intp], raw: RawSolution) -> None:
        """Keep a certificate of infeasibility or unboundedness."""
        r = self.result
        r.x[one], r.y[one], r.s[one] = raw.x, raw.y, raw.s
        r.status[one], r.residual[one] = raw.status, np.inf


def _scale(data: ConeData, best: Point | None) -> float:
    """Return SCS's `scale` for these programs: about |y| / |s|, as far as they are known.

    Without a point it is guessed from the data: s is of the size of b, y of that of c, or of P x where A x is
    b.
    """
    P, A, b, c = (float(np.abs(part).max(initial=0.0)) for part in (data.P, data.A, data.b, data.c))
    guess = _power_of_two((c / b if b else 0.0) + (P / A if A else 0.0))
    if best is None:
        return guess
    y, s = np.linalg.norm(best.y), np.linalg.norm(best.s)
    if np.isfinite(y) and s > 0:
        return _power_of_two(min(max(float(y / s), guess / SCALE_STEP), guess * SCALE_STEP))
    return guess


def _power_of_two(scale: float) -> float:
    """Return the nearest power of two within SCALE_RANGE."""
    low, high = SCALE_RANGE
    return float(np.exp2(np.round(np.log2(min(max(scale, low), high)))))
