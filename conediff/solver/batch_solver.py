"""Stacks of programs of one structure: brought into the right frame and to an ordinary scale, and solved."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.parallel.threads import mapper, one_blas_thread
from conediff.program import ConeData, Structure
from conediff.scaling.cone_scaling import ConeScaling, ConeScalings
from conediff.scaling.magnitude import Magnitude
from conediff.solver.result import SolveResult
from conediff.solver.schedule import Climb, Start
from conediff.solver.scs import Piles
from conediff.solver.settings import Settings

# Entries of K below which a stack is not cut into chunks, and of one chunk at most: so many stay in cache,
# and are work enough for a thread. In smaller ones threads wait for each other.
_CUT, _CHUNK = 1 << 17, 3 << 16
# An inaccurate solution is not used if a row is violated by more than this part of its own terms: others may
# be so large that this row, or the whole infeasibility of a program, does not count beside them.
_OF_ROW = 1e-2


class BatchSolver:
    """Solves stacks of programs of one structure; keeps what depends on the structure alone.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.frames = ConeScalings(structure)
        self.kkt = KKTSystem(self.frames.structure)
        self.piles = Piles(self.frames.structure)

    def __getstate__(self) -> dict[str, Any]:
        return {"structure": self.structure}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def solve(self, data: ConeData, settings: Settings, start: Start | None = None) -> SolveResult:
        """Solve every program of a stack.

        Parameters
        ----------
        data : ConeData
        settings : Settings
        start : tuple of arrays, optional
            x, y and s to begin from, shapes (B, n), (B, m), (B, m); rows that are not finite are not used.
        """
        chunks = self.chunks(data.count)

        def one(part: slice) -> SolveResult:
            begin = None if start is None else (start[0][part], start[1][part], start[2][part])
            return self._solve(data.take(part), inner, begin)

        with one_blas_thread():
            if len(chunks) == 1:
                return self._solve(data, settings, start)
            inner = replace(settings, threads=1)
            return SolveResult.joined(list(mapper(settings.threads)(one, chunks)))

    def chunks(self, count: int) -> list[slice]:
        """Cut a stack into chunks, for threads: by its size alone, so that results do not depend on them."""
        size = count * self.kkt.pattern.nnz
        parts = 1 if size < _CUT else min(count, max(2, 1 << math.ceil(math.log2(max(1, size / _CHUNK)))))
        return [slice(k * count // parts, (k + 1) * count // parts) for k in range(parts)]

    def _solve(self, data: ConeData, settings: Settings, start: Start | None) -> SolveResult:
        result = self._in_good_frames(data, settings, start)
        near = np.flatnonzero(result.status == "inaccurate")
        if near.size:
            R = Residual(self.structure, data.repeated(result.count).take(near))
            broken = ~(R.by_rows(result.x[near], result.y[near], result.s[near]) <= _OF_ROW)
            result.status[near[broken]] = "failed"
        return result

    def _in_good_frames(self, data: ConeData, settings: Settings, start: Start | None) -> SolveResult:
        frame = self.frames.levelling(data) if start is None else self.frames.balancing(data, *start)
        if start is not None and settings.refine and not frame.trivial:
            return self._in_frame_of_start(frame, data, settings, start)
        return self._in_better_frame(frame, data, settings, start)

    def _in_frame_of_start(
        self, frame: ConeScaling, data: ConeData, settings: Settings, start: Start
    ) -> SolveResult:
        """Refine from the start, in its frame; where that fails, the frame is wrong too: begin afresh."""
        result = self._in_better_frame(frame, data, settings, start, only_start=True)
        left = np.flatnonzero(result.status != "solved")
        if left.size:
            data = data.repeated(result.count).take(left)
            result.replace(left, self._in_better_frame(self.frames.levelling(data), data, settings, None))
        return result

    def _in_better_frame(
        self,
        frame: ConeScaling,
        data: ConeData,
        settings: Settings,
        start: Start | None,
        only_start: bool = False,
    ) -> SolveResult:
        result = self._solve_in(frame, data, settings, start, only_start)
        if not settings.refine:
            return result
        # What y and s turn out to be asks for another frame, now and then: begin again from there.
        better = self.frames.balancing(data, result.x, result.y, result.s)
        if better is frame:
            return result
        index = np.flatnonzero(result.usable & better.differs(frame))
        if index.size:
            data = data.repeated(result.count).take(index)
            x, y = result.x[index], result.y[index]
            s = data.b - self.structure.A.products(data.A)[0](x)
            again = self._solve_in(better.take(index), data, settings, (x, y, s))
            result.improve(index, again)
        return result

    def _solve_in(
        self,
        frame: ConeScaling,
        data: ConeData,
        settings: Settings,
        start: Start | None,
        only_start: bool = False,
    ) -> SolveResult:
        """Solve in this frame, and at an ordinary scale."""
        data = frame.data(data)
        scaling = Magnitude.of(data)
        if start is not None:
            x, y, s = start
            start = scaling.forward(x / frame.columns, frame.dual(y), frame.rows(s))
        scaled = scaling.scaled(data)
        result = Climb(self.kkt, self.piles, scaled, settings, start, not frame.trivial).run(only_start)
        if not (frame.trivial and scaling.trivial):
            result.factors = []  # of other data
        infeasible, unbounded = result.status == "infeasible", result.status == "unbounded"
        x, y, s = scaling.back(result.x, result.y, result.s, infeasible, unbounded)
        result.x, result.y, result.s = x * frame.columns, frame.dual_back(y), frame.rows_back(s)
        return result
