"""The first derivative of a stack: of each part by a thread or a worker, and of the whole for the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conediff.derivative.diagnostics import Diagnostics, Observability
from conediff.derivative.kkt_derivative import KKTDerivative, Multipliers, Tangent
from conediff.derivative.report import Report
from conediff.errors import ConediffWarning, ExecutorError, warn
from conediff.kkt.least_squares import LinearSolution
from conediff.parallel import ThreadBackend, backend
from conediff.program import Array, ConeData, Point, Products, outer, products
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


class FirstOrder:
    """First derivative of the solution maps of a stack of programs, where these have solutions.

    With an executor, workers answer the first question by ``method="auto"``; further ones are answered in
    this process, where the factorisations are kept, and the answers are the same.

    Parameters
    ----------
    solver : BatchSolver
    data : ConeData
    result : SolveResult
        Tangents of elements without a solution are NaN, cotangents ``result.failed_cotangent``.
    settings : Settings
        ``method``, ``threads`` and ``executor`` are read.
    observability : Observability, optional
        Which data and which parts of the solution matter; all by default.
    told : set of str, optional
        Reasons of a `DegeneracyWarning` that the user has been told; new ones are added. A layer gives the
        same set to all its solutions; by default it is empty.

    Attributes
    ----------
    degenerate : bool array
        Of the elements that have a solution: whether an answer so far was not unique, or at a kink.

    Notes
    -----
    Four things are remembered from one call to the next, and none changes an answer: ``told``,
    ``degenerate``, the reports of programs whose answer came from M, and the multipliers of the last two
    pull-backs, which second derivatives ask for again.
    """

    def __init__(
        self,
        solver: BatchSolver,
        data: ConeData,
        result: SolveResult,
        settings: Settings,
        observability: Observability | None = None,
        told: set[str] | None = None,
    ) -> None:
        self.structure, self.count, self._fill = solver.structure, result.count, result.failed_cotangent
        self._solver, self._settings = solver, settings
        self.index = np.flatnonzero(result.has_solution)
        self._is_whole = self.index.size == self.count
        take: Any = slice(None) if self._is_whole else self.index
        self._data = data if self._is_whole else data.take(self.index)
        self._point = result.point.take(take)
        self._observability = observability
        if observability is not None and not self._is_whole:
            self._observability = observability.take(self.index)
        self._parts = self._cut()
        starts = [part.start for part in self._parts]
        # What the solve leaves is of its own parts, which are those of the derivative if all have a solution.
        self._factors, self._equilibrations = (
            dict(zip(starts, left, strict=True)) if self._is_whole and len(left) == len(starts) else {}
            for left in (result.factors, result.equilibrations)
        )
        self._derivatives: dict[int, KKTDerivative] = {}  # by the first position of their part
        self._may_send = settings.executor is not None and settings.method == "auto" and self.index.size > 0
        self._told = set() if told is None else told
        self.degenerate = np.zeros(self.index.size, dtype=bool)
        self._least_squares: dict[int, LinearSolution] = {}
        # Cotangents and multipliers of the last two pull-backs: a Hessian-vector product makes two, and the
        # next one at the same point repeats the first.
        self._pulls: list[tuple[list[Array], list[Array]]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the factorisations, which are made again when they are needed."""
        forgotten = {
            "_factors": {},
            "_equilibrations": {},
            "_derivatives": {},
            "_may_send": False,
            "_pulls": [],
        }
        return {**self.__dict__, **forgotten}

    @property
    def _progress(self) -> str:
        return "differentiating" if self._settings.progress else ""

    def _cut(self) -> list[slice]:
        data = self._data
        sent = [data.P, data.A, data.b, data.c, *self._point, *self._point]
        return self._solver.parts(len(self._point.x), self._settings, sent) if self.index.size else []

    def jvp(self, change: Products) -> Tangent:
        """Apply the derivatives to perturbations of the data, given by their products; shapes (B, ...)."""
        change = Products(*(self._taken(array) for array in change))
        dx, dy, ds = self._answer("jvp", lambda part: tuple(_rows(array, part) for array in change))
        return Tangent(*(self._filled(rows, np.nan) for rows in (dx, dy, ds)))

    def push(self, tangent: ConeData) -> Tangent:
        """Apply the derivatives to perturbations of the data on their own sparsity."""
        tangent = tangent if self._is_whole else tangent.take(self.index)

        def arguments(part: slice) -> Products:
            x, y, _ = self._point.take(part)
            return products(self.structure, tangent.take(part), x, y)

        return Tangent(*(self._filled(rows, np.nan) for rows in self._answer("jvp", arguments)))

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoints; cotangents of P and A on their own sparsity, that of P symmetric."""
        multipliers = self._multipliers([self._taken(array) for array in (gx, gy, gs)])

        def cotangents(part: slice) -> ConeData:
            x, y, _ = self._point.take(part)
            return outer(self.structure, x, y, *(array[part] for array in multipliers))

        if not self._parts:
            found = [ConeData(*(np.zeros((0, k)) for k in self._widths()))]
        elif len(self._parts) == 1:
            found = [cotangents(self._parts[0])]
        else:
            run = ThreadBackend(self._settings.threads).map
            found = run(cotangents, (), self._parts, lambda part: (part,))
        parts = [[getattr(g, name) for g in found] for name in ("P", "A", "b", "c")]
        return ConeData(*(self._filled(concatenated(rows), self._fill) for rows in parts))

    def _multipliers(self, cotangent: list[Array]) -> list[Array]:
        found = self._answer("vjp", lambda part: tuple(_rows(array, part) for array in cotangent))
        self._pulls = [([array.copy() for array in cotangent], found), *self._pulls[:1]]
        return found

    def multipliers(self, gx: Array, gy: Array, gs: Array) -> Multipliers:
        """Return -gc and gb of `pull`, shapes (B, n) and (B, m), from memory if they are remembered."""
        cotangent = [self._taken(array) for array in (gx, gy, gs)]
        known = [pull for pull in self._pulls if all(map(np.array_equal, pull[0], cotangent))]
        if known:
            self._pulls = [known[0], *(pull for pull in self._pulls if pull is not known[0])]
        found = known[0][1] if known else self._multipliers(cotangent)
        return Multipliers(*(self._filled(rows, self._fill) for rows in found))

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivatives are defined; of the elements that have a solution, in order."""
        found = self._map_here(lambda derivative, part: derivative.diagnostics())
        if not found:
            nothing, none = np.zeros(0), np.zeros(0, dtype=bool)
            return Diagnostics(nothing, nothing, none, none, none, none, {})
        return Diagnostics.joined(found, self.degenerate.copy(), dict(self._least_squares))

    def _answer(self, mode: str, arguments: Callable[[slice], tuple[Array, ...]]) -> list[Array]:
        """Let all parts answer, ``mode`` being "jvp" or "vjp"; join the answers, and warn as they report."""
        if not self._parts:
            n, m = self.structure.n, self.structure.m
            return [np.zeros((0, k)) for k in ((n, m, m) if mode == "jvp" else (n, m))]
        found = self._by_workers(mode, arguments) if self._may_send else None
        self._may_send = False
        if found is None:
            found = self._map_here(lambda derivative, part: _ask(derivative, mode, arguments(part)))
        answers, reports = zip(*found, strict=True)
        self._say(Report.joined(reports, [part.start for part in self._parts]))
        return [concatenated(rows) for rows in zip(*answers, strict=True)]

    def _by_workers(self, mode: str, arguments: Callable[[slice], tuple[Array, ...]]) -> list[Any] | None:
        """Let workers answer; None if the executor does not."""

        def sent(part: slice) -> tuple[Any, ...]:
            return part, self._data.take(part), self._point.take(part), mode, arguments(part)

        run = backend(self._settings.executor, None, self._progress).map
        try:
            return run(_answer_part, [self._solver, self._observability], self._parts, sent)
        except ExecutorError as error:
            warn(f"{error}; the derivative is computed in this process", ConediffWarning)
            return None

    def _map_here(self, question: Callable[[KKTDerivative, slice], Any]) -> list[Any]:
        """Ask the derivative of every part, in threads of this process."""
        run = backend(None, self._settings.threads, self._progress).map
        return run(question, (), self._parts, lambda part: (self._derivative_of(part), part))

    def _derivative_of(self, part: slice) -> KKTDerivative:
        """Return the derivative of a part, made when it is first needed."""
        if part.start not in self._derivatives:
            self._derivatives[part.start] = self._differentiate(part)
        return self._derivatives[part.start]

    def _differentiate(self, part: slice) -> KKTDerivative:
        whole = len(self._parts) == 1
        left = self._factors.get(part.start), self._equilibrations.get(part.start)
        data = self._data if whole else self._data.take(part)
        point = self._point if whole else self._point.take(part)
        observability = self._observability
        if observability is not None and not whole:
            observability = observability.take(part)
        return KKTDerivative.at(self._solver, data, point, self._settings.method, observability, *left)

    def _say(self, report: Report) -> None:
        """Warn of inaccurate answers, and of programs at which the map is not differentiable."""
        self._least_squares |= report.least_squares
        for indices in report.degenerate.values():
            self.degenerate[np.concatenate(indices)] = True
        report.warn_inaccurate(self.index)
        report.warn_degenerate(self._told)

    def _taken(self, array: Array) -> Array:
        return array if self._is_whole or len(array) == 1 else array[self.index]

    def _filled(self, rows: Array, fill: float) -> Array:
        """Return rows for all elements, from those that have a solution."""
        if self._is_whole:
            return rows
        result = np.full((self.count, rows.shape[1]), fill)
        result[self.index] = rows
        return result

    def _widths(self) -> tuple[int, int, int, int]:
        return self.structure.P.nnz, self.structure.A.nnz, self.structure.m, self.structure.n


def _rows(array: Array, part: slice) -> Array:
    """Return a part of an array, of which one row serves the whole stack."""
    return array if len(array) == 1 else array[part]


def concatenated(rows: Any) -> Array:
    """Join the rows of parts."""
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _ask(
    derivative: KKTDerivative, mode: str, arguments: tuple[Array, ...]
) -> tuple[Tangent | Multipliers, Report]:
    if mode == "jvp":
        return derivative.jvp(Products(*arguments))
    return derivative.vjp(*arguments)


def _answer_part(
    solver: BatchSolver,
    observability: Observability | None,
    part: slice,
    data: ConeData,
    point: Point,
    mode: str,
    arguments: tuple[Array, ...],
) -> tuple[Tangent | Multipliers, Report]:
    """Answer for one part, in a worker."""
    if observability is not None:
        observability = observability.take(part)
    return _ask(KKTDerivative.at(solver, data, point, "auto", observability), mode, arguments)
