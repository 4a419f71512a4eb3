"""Stacks of programs of one structure: brought into the right frame and to an ordinary scale, and solved."""

from __future__ import annotations

from typing import Any

import numpy as np

from conediff.climb import Climb
from conediff.frames import Frame, Frames
from conediff.kkt import KKT
from conediff.scaling import Scaling
from conediff.settings import Settings
from conediff.solver import Piles
from conediff.stack_solution import StackSolution
from conediff.structure import Array, ConeData, Structure
from conediff.threads import one_blas_thread


class Engine:
    """Solves stacks of programs of one structure; keeps what depends on the structure alone.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.frames = Frames(structure)
        self.kkt = KKT(self.frames.structure)
        self.piles = Piles(self.frames.structure)

    def __getstate__(self) -> dict[str, Any]:
        return {"structure": self.structure}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def solve(
        self, data: ConeData, settings: Settings, start: tuple[Array, Array, Array] | None = None
    ) -> StackSolution:
        """Solve every program of a stack.

        Parameters
        ----------
        data : ConeData
        settings : Settings
        start : tuple of arrays, optional
            x, y and s to begin from, shapes (B, n), (B, m), (B, m); rows that are not finite are not used.
        """
        with one_blas_thread():
            return self._solve(data, settings, start)

    def _solve(
        self, data: ConeData, settings: Settings, start: tuple[Array, Array, Array] | None
    ) -> StackSolution:
        frame = self.frames.levelling(data) if start is None else self.frames.balancing(data, *start)
        result = self._solve_in(frame, data, settings, start)
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
            result.replace(index, again)
        return result

    def _solve_in(
        self, frame: Frame, data: ConeData, settings: Settings, start: tuple[Array, Array, Array] | None
    ) -> StackSolution:
        """Solve in this frame, and at an ordinary scale."""
        data = frame.data(data)
        scaling = Scaling.of(data)
        if start is not None:
            x, y, s = start
            start = scaling.forward(x / frame.columns, frame.dual(y), frame.rows(s))
        scaled = scaling.scaled(data)
        result = Climb(self.kkt, self.piles, scaled, settings, start, uneven=not frame.trivial).run()
        if not (frame.trivial and scaling.trivial):
            result.factor = None  # of other data
        infeasible, unbounded = result.status == "infeasible", result.status == "unbounded"
        x, y, s = scaling.back(result.x, result.y, result.s, infeasible, unbounded)
        result.x, result.y, result.s = x * frame.columns, frame.dual_back(y), frame.rows_back(s)
        return result
