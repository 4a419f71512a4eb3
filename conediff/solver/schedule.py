"""One solve of a stack: the ladder from loose SCS, in piles, to refined solutions.

SCS solves piles loosely, Newton's method refines every program; those that it does not bring to tolerance
are piled anew, solved tighter and refined again, and at last each of them alone. So one bad program never
spoils its neighbours, and infeasibility is certified alone.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.parallel.threads import mapper
from conediff.program import Array, ConeData
from conediff.solver.newton import Method, Refined, leap, refine
from conediff.solver.result import SolveResult
from conediff.solver.scs import Piles, RawSolution
from conediff.solver.settings import Settings

# Where to begin: x, y and s, shapes (B, n), (B, m), (B, m).
Start = tuple[Array, Array, Array]

# SCS's runs on piles, loose ones: its first digits are cheap, and most programs need only the first run.
_PILES: tuple[dict[str, Any], ...] = (
    {"eps_abs": 1e-2, "eps_rel": 1e-2, "max_iters": 25, "acceleration_lookback": 0},
    {"eps_abs": 1e-3, "eps_rel": 1e-3, "max_iters": 200},
    {"eps_abs": 1e-5, "eps_rel": 1e-5, "max_iters": 1000, "scale": 1.0},
)
# Iterations after which SCS's first run is looked at: its `scale`, guessed from the data before, is best near
# to |y| / |s|, and SCS goes on with what that has turned out to be, or some way towards it.
_LOOK = 50
_STRIDE = 8.0
_SCALES = (1 / 16, 16.0)
# Then alone, tighter and tighter; then without acceleration, which sometimes stands in the way; and at last
# from another scale.
_LADDER: tuple[dict[str, Any], ...] = (
    {"eps_abs": 1e-6, "eps_rel": 1e-6, "eps_infeas": 1e-9},
    {"eps_abs": 1e-9, "eps_rel": 1e-9, "eps_infeas": 1e-9, "max_iters": 10_000},
    {"eps_abs": 1e-9, "eps_rel": 1e-9, "eps_infeas": 1e-9, "acceleration_lookback": 0},
    {"eps_abs": 1e-9, "eps_rel": 1e-9, "eps_infeas": 1e-9, "max_iters": 10_000, "scale": 1.0},
)
# Residuals are relative to the largest row. Where rows are so uneven that a frame is needed, digits of the
# small ones are at stake, and Newton's method is to go on to here if it can.
_UNEVEN = 1e-13
# A relative residual up to this is called inaccurate, and used with a warning; above it the solve failed.
_USABLE = 1e-5


class Climb:
    """One solve of a stack: from a warm start or loose piles, rung by rung.

    Parameters
    ----------
    kkt : KKTSystem
    piles : Piles
        Of the same structure.
    data : ConeData
    settings : Settings
    start : tuple of arrays, optional
        x, y and s to begin from; rows that are not finite are not used.
    uneven : bool
        Whether rows differ so much in size that digits beyond the tolerance matter.
    """

    def __init__(
        self,
        kkt: KKTSystem,
        piles: Piles,
        data: ConeData,
        settings: Settings,
        start: Start | None,
        uneven: bool = False,
    ) -> None:
        self.kkt, self.piles, self.data, self.settings, self.start = kkt, piles, data, settings, start
        self.target = min(settings.tol, _UNEVEN) if uneven else settings.tol
        self._map = mapper(settings.threads)
        self.result = SolveResult.empty(data.count, kkt.pattern.structure)
        self.pending = np.arange(data.count)
        self.hopeless = np.zeros(data.count, dtype=bool)

    def run(self, only_start: bool = False) -> SolveResult:
        """Climb, or do with ``only_start`` only the first step, from the start; return what was found."""
        if self.data.count == 0:
            return self.result
        if not self.settings.refine:
            tight = {"eps_abs": self.settings.tol, "eps_rel": self.settings.tol}
            self._alone({**tight, **self.settings.scs})
            return self.result
        if self.start is not None:
            self._from_start(self.start)
        if not only_start:
            self._through_rungs()
        self._settle()
        return self.result

    def _through_rungs(self) -> None:
        for rung in _PILES:
            if self.pending.size:
                self._in_piles(rung)
        for rung in _LADDER:
            if self.pending.size:
                first = rung is _LADDER[0]
                self._alone({**rung, **self.settings.scs} if first else {**self.settings.scs, **rung})

    def _from_start(self, start: Start) -> None:
        """Refine from the warm start; where that converges SCS is not called at all."""
        x, y, s = start
        finite = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1) & np.isfinite(s).all(axis=1)
        self.result.started_warm = True
        self._refine(np.flatnonzero(finite), x[finite], y[finite], s[finite], leap)

    def _in_piles(self, rung: dict[str, Any]) -> None:
        """Solve what is pending loosely, many programs to one call of SCS, and refine.

        A pile that has no solution, for the sake of one of its programs, is not tried again.
        """
        index = self.pending[~self.hopeless[self.pending]]
        size = self.piles.size(index.size)
        chunks = [index[i : i + size] for i in range(0, index.size, size)]
        settings = {**rung, **self.settings.scs}
        good = []
        raws = self._map(lambda chunk: self._scs(chunk, self._at_scale(chunk, settings)), chunks)
        for chunk, raw in zip(chunks, raws, strict=True):
            if raw is not None:
                self._count(chunk, raw)
            if raw is not None and raw.finite:
                good.append((chunk, raw))
            else:
                self.hopeless[chunk] = True
        self._refine_raw(good, leap)

    def _alone(self, settings: dict[str, Any]) -> None:
        """Solve what is pending one by one, from the best point so far, and refine."""
        jobs = [self.pending[i : i + 1] for i in range(self.pending.size)]
        raws = self._map(lambda one: self._scs(one, settings), jobs)
        refinable = []
        for one, raw in zip(jobs, raws, strict=True):
            if raw is None:
                continue
            self._count(one, raw)
            if raw.status in ("infeasible", "unbounded"):
                self._certify(one, raw)
            elif raw.finite:
                refinable.append((one, raw))
        self.pending = self.pending[~np.isin(self.result.status[self.pending], ("infeasible", "unbounded"))]
        self._refine_raw(refinable)

    def _refine_raw(
        self, solved: list[tuple[NDArray[np.intp], RawSolution]], method: Method = refine
    ) -> None:
        """Refine what SCS found, or accept it where there is to be no refinement."""
        if not solved:
            return
        index = np.concatenate([chunk for chunk, _ in solved])
        x, y, s = (np.concatenate([getattr(raw, name) for _, raw in solved]) for name in ("x", "y", "s"))
        if self.settings.refine:
            self._refine(index, x, y, s, method)
        else:
            self._accept(index, x, y - s, [raw.status for _, raw in solved])

    def _at_scale(self, index: NDArray[np.intp], settings: dict[str, Any]) -> dict[str, Any]:
        """Give SCS a `scale` that fits these programs, where there is none yet: about |y| / |s|."""
        if "scale" in settings:
            return settings
        y, s = np.linalg.norm(self.result.y[index]), np.linalg.norm(self.result.s[index])
        scale = _first_scale(self.data.take(index))
        if np.isfinite(y) and s > 0:
            scale = _power_of_two(min(max(float(y / s), scale / _STRIDE), scale * _STRIDE))
        return {**settings, "scale": scale}

    def _scs(self, index: NDArray[np.intp], settings: dict[str, Any]) -> RawSolution | None:
        """Run SCS on these programs as one pile, from the best point so far; None if it refuses."""
        pile, r, start = self.piles.of(index.size), self.result, None
        if np.isfinite(r.x[index]).all():
            start = (r.x[index], r.y[index], r.s[index])
        try:
            return pile.solve(self.data.take(index), settings, start)
        except ValueError:
            return None

    def _count(self, index: NDArray[np.intp], raw: RawSolution) -> None:
        self.result.iterations[index] += raw.iterations
        self.result.setup_time += raw.setup_time
        self.result.solve_time += raw.solve_time

    def _refine(
        self,
        index: NDArray[np.intp],
        x: Array,
        y: Array,
        s: Array,
        method: Method = refine,
    ) -> None:
        """Refine these programs, keep what is better than before, and drop the solved from the pending."""
        began = time.perf_counter()
        data = self.data.take(index)
        refined = method(self.kkt, data, x, y, s, self.target)
        self._keep(index, refined)
        if index.size == self.data.count:
            self.result.factors = [refined.factor]
        solved = self.result.residual <= self.settings.tol
        self.result.status[solved] = "solved"
        self.pending = self.pending[~solved[self.pending]]
        self.result.refine_time += time.perf_counter() - began

    def _keep(self, index: NDArray[np.intp], refined: Refined) -> None:
        r = self.result
        r.refinements[index] += refined.steps
        better = refined.residual < r.residual[index]
        index = index[better]
        r.x[index], r.y[index], r.s[index] = refined.x[better], refined.y[better], refined.s[better]
        r.residual[index] = refined.residual[better]

    def _accept(self, index: NDArray[np.intp], x: Array, v: Array, statuses: list[str]) -> None:
        """Keep what SCS said, where there is to be no refinement."""
        evaluation = Residual(self.kkt.pattern.structure, self.data.take(index))(x, v)
        r = self.result
        r.x[index], r.y[index], r.s[index] = x, evaluation.y, evaluation.s
        r.residual[index] = evaluation.relative
        hopeless = (np.array(statuses) == "inaccurate") & (evaluation.relative > _USABLE)
        r.status[index] = np.where(hopeless, "failed", statuses)
        self.pending = self.pending[:0]

    def _certify(self, one: NDArray[np.intp], raw: RawSolution) -> None:
        r = self.result
        r.x[one], r.y[one], r.s[one] = raw.x, raw.y, raw.s
        r.status[one], r.residual[one] = raw.status, np.inf

    def _settle(self) -> None:
        """Name what is left: nearly solved, or failed."""
        r = self.result
        r.status[self.pending] = np.where(r.residual[self.pending] <= _USABLE, "inaccurate", "failed")


def _first_scale(data: ConeData) -> float:
    """Guess |y| / |s| from the data: s is of the size of b, y of that of c and of P x where A x is b."""
    P, A, b, c = (float(np.abs(part).max(initial=0.0)) for part in (data.P, data.A, data.b, data.c))
    return _power_of_two((c / b if b else 0.0) + (P / A if A else 0.0))


def _power_of_two(scale: float) -> float:
    """The nearest power of two, within what makes sense as SCS's scale."""
    low, high = _SCALES
    return float(np.exp2(np.round(np.log2(min(max(scale, low), high)))))
