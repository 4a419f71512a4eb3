"""The derivative of a stack, chunk by chunk in threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from conediff.derivative.diagnostics import Diagnostics, Observability
from conediff.derivative.framed import FramedDerivative
from conediff.derivative.kkt_derivative import Degenerate
from conediff.kkt.factor import KKTFactor
from conediff.parallel.threads import mapper
from conediff.program import Array, ConeData
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.settings import Settings


class ChunkedDerivative:
    """A `FramedDerivative` that threads answer, each a chunk.

    Where the reduced system of some chunk alone does not give the answer, the whole stack answers at once,
    with the warnings that belong to it.

    Parameters
    ----------
    engine : BatchSolver
    data : ConeData
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    settings : Settings
        ``method`` and ``threads`` are read.
    visibility : Observability, optional
        See `FramedDerivative`.
    factors : list of KKTFactor or None
        One for each of the engine's chunks; empty if there are none.
    strict : bool
        Whether to raise `Degenerate` in place of a warning that the map is not differentiable.
    """

    def __init__(
        self,
        engine: BatchSolver,
        data: ConeData,
        x: Array,
        y: Array,
        s: Array,
        settings: Settings,
        visibility: Observability | None = None,
        factors: list[KKTFactor | None] | None = None,
        strict: bool = False,
    ) -> None:
        self.structure, self.x, self.y, self.s = engine.structure, x, y, s
        self._engine, self._data, self._settings, self._visibility = engine, data, settings, visibility
        self._strict = strict
        self._chunks = engine.chunks(len(x))
        self._factors = factors or [None] * len(self._chunks)
        self._parts: list[FramedDerivative] | None = None
        self._together = len(self._chunks) == 1 or settings.method != "auto"

    @cached_property
    def whole(self) -> FramedDerivative:
        """The derivative of the stack in one piece."""
        factor = self._factors[0] if len(self._factors) == 1 else None
        return self._of(slice(None), factor, self._strict)

    def _of(self, part: slice, factor: KKTFactor | None, strict: bool) -> FramedDerivative:
        engine, point = self._engine, (self.x[part], self.y[part], self.s[part])
        data = self._data if part == slice(None) else self._data.take(part)
        return FramedDerivative(
            engine.frames, engine.kkt, data, *point, self._settings.method, self._visibility, factor, strict
        )

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivative is defined, and how it was computed."""
        return self.whole.diagnostics

    def push(self, tangent: ConeData) -> tuple[Array, Array, Array]:
        """Apply the derivative to a perturbation of the data on its own sparsity."""
        found = self._ask(lambda chunk, part: chunk.push(tangent.take(part)))
        if found is None:
            return self.whole.push(tangent)
        dx, dy, ds = (np.concatenate(column) for column in zip(*found, strict=True))
        return dx, dy, ds

    def jvp(self, *products: Array) -> tuple[Array, Array, Array]:
        """Apply the derivative to a perturbation given by its products; see `StackDerivative.jvp`."""
        found = self._ask(lambda chunk, part: chunk.jvp(*(array[part] for array in products)))
        if found is None:
            return self.whole.jvp(*products)
        dx, dy, ds = (np.concatenate(column) for column in zip(*found, strict=True))
        return dx, dy, ds

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoint; cotangents of P and A on their own sparsity, that of P symmetric."""
        found = self._ask(lambda chunk, part: chunk.pull(gx[part], gy[part], gs[part]))
        if found is None:
            return self.whole.pull(gx, gy, gs)
        return ConeData(*(np.concatenate([getattr(g, name) for g in found]) for name in ("P", "A", "b", "c")))

    def vjp(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array]:
        """Apply the adjoint; return what `data_tangents.outer` makes the cotangents of."""
        found = self._ask(lambda chunk, part: chunk.vjp(gx[part], gy[part], gs[part]))
        if found is None:
            return self.whole.vjp(gx, gy, gs)
        r1, r2 = (np.concatenate(column) for column in zip(*found, strict=True))
        return r1, r2

    def _ask(self, question: Callable[[FramedDerivative, slice], Any]) -> list[Any] | None:
        """Ask every chunk; None where the whole has to answer."""
        if self._together:
            return None
        run = mapper(self._settings.threads)
        try:
            if self._parts is None:
                jobs = zip(self._chunks, self._factors, strict=True)
                self._parts = list(run(lambda job: self._of(job[0], job[1], True), jobs))
            return list(run(lambda job: question(*job), zip(self._parts, self._chunks, strict=True)))
        except Degenerate:
            if self._strict:
                raise
            self._together, self._parts = True, None
            return None
