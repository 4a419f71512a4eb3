"""What an executor's workers do for us: they solve parts of a stack, and differentiate them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from conediff.derivative.chunked import ChunkedDerivative
from conediff.derivative.diagnostics import Observability
from conediff.derivative.kkt_derivative import Degenerate
from conediff.errors import ConediffWarning, ExecutorError, warn
from conediff.parallel.executor import cut, rows, run
from conediff.program import Array, ConeData, outer, products
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings

Point = tuple[Array, Array, Array]  # x, y and s


def solve(engine: BatchSolver, data: ConeData, settings: Settings, start: Point | None = None) -> SolveResult:
    """Solve every program of a stack: here, or by the executor of the settings.

    Parameters
    ----------
    engine : BatchSolver
    data : ConeData
    settings : Settings
    start : tuple of arrays, optional
        See `Engine.solve`.

    Returns
    -------
    SolveResult
        Its times are those of all workers together.

    Raises
    ------
    ExecutorError
        If the executor takes no work, or every worker that took some of it died.

    Warns
    -----
    ConediffWarning
        If workers were lost, and what they had was solved here.
    """
    executor = settings.executor
    if executor is None or data.count == 0:
        return engine.solve(data, settings, start)
    # The rest is not for workers, and may be nothing that can be sent.
    sent = replace(settings, executor=None, on_failure="nan", warm_start=None)

    def arguments(part: slice) -> tuple[Any, ...]:
        begin = None if start is None else tuple(array[part] for array in start)
        return data.take(part), sent, begin

    arrays = [data.P, data.A, data.b, data.c, *(start or ())]
    parts = cut(executor, engine.piles.size(data.count), data.count, arrays)
    found = run(executor, [engine], _solve_part, parts, arguments, settings.threads)
    assert found is not None
    stack = SolveResult.joined(found)
    stack.factors = []  # of parts, not of chunks
    return stack


def _solve_part(
    engine: BatchSolver, threads: int | None, data: ConeData, settings: Settings, start: Point | None
) -> SolveResult:
    return engine.solve(data, replace(settings, threads=threads), start)


class SpreadDerivative:
    """A `ChunkedDerivative` whose first answer comes from the workers of an executor.

    Further ones come from here, where the factorisation is kept once it is made: rows of a Jacobian are cheap
    that way. So does the answer where the reduced system alone does not give it, with the warnings that
    belong to it.

    Parameters
    ----------
    here : ChunkedDerivative
    engine, data, x, y, s, settings, visibility
        Of which ``here`` was made.
    """

    def __init__(
        self,
        here: ChunkedDerivative,
        engine: BatchSolver,
        data: ConeData,
        x: Array,
        y: Array,
        s: Array,
        settings: Settings,
        visibility: Observability | None,
    ) -> None:
        self._here, self._engine, self._settings, self._visibility = here, engine, settings, visibility
        self._data, self._point = data, (x, y, s)
        self._fresh = settings.method == "auto" and len(x) > 0

    def push(self, tangent: ConeData) -> tuple[Array, Array, Array]:
        """Apply the derivative; see `FramedDerivative.push`."""
        x, y, _ = self._point
        found = self._ask("jvp", lambda: products(self._engine.structure, tangent, x, y))
        if found is None:
            return self._here.push(tangent)
        dx, dy, ds = found
        return dx, dy, ds

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoint; see `FramedDerivative.pull`."""
        x, y, _ = self._point
        found = self._ask("vjp", lambda: (gx, gy, gs))
        return self._here.pull(gx, gy, gs) if found is None else outer(self._engine.structure, x, y, *found)

    def _ask(self, question: str, given: Callable[[], tuple[Array, ...]]) -> list[Array] | None:
        """Let workers answer, if nobody has yet; None where the answer has to come from here."""
        if not self._fresh:
            return None
        self._fresh = False
        executor, data, point, arrays = self._settings.executor, self._data, self._point, given()
        assert executor is not None

        def arguments(part: slice) -> tuple[Any, ...]:
            here = [array[part] for array in point]
            return data.take(part), here, question, [rows(array, part) for array in arrays]

        sent = [data.P, data.A, data.b, data.c, *point, *arrays]
        parts = cut(executor, self._engine.piles.size(len(point[0])), len(point[0]), sent)
        shared, threads = [self._engine, self._visibility], self._settings.threads
        try:
            found = run(executor, shared, _differentiate_part, parts, arguments, threads)
        except ExecutorError as error:
            warn(f"{error}; the derivative is computed in this process", ConediffWarning)
            return None
        return None if found is None else [np.concatenate(column) for column in zip(*found, strict=True)]


def _differentiate_part(
    engine: BatchSolver,
    visibility: Observability | None,
    threads: int | None,
    data: ConeData,
    point: Sequence[Array],
    question: str,
    arrays: Sequence[Array],
) -> tuple[Array, ...] | None:
    """Answer by the reduced system alone; None where that is not enough."""
    x, y, s = point
    settings = Settings(threads=threads)
    derivative = ChunkedDerivative(engine, data, x, y, s, settings, visibility, strict=True)
    try:
        answer: tuple[Array, ...] = getattr(derivative, question)(*arrays)
    except Degenerate:
        return None
    return answer
