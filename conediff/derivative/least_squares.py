"""Least squares on M at the solutions of one part of a stack, where K is singular or the user asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from conediff.derivative.linearised_kkt import LinearisedKKT
from conediff.derivative.report import Report
from conediff.kkt.constants import SOLVED
from conediff.kkt.embedding import Embedding
from conediff.kkt.least_squares import LinearSolution
from conediff.program import Array

# The three parts of an answer of M.
Parts = tuple[Array, Array, float]


class LeastSquares:
    """Least-squares answers of least norm; all of a stack at once where the null vectors of K are known.

    Parameters
    ----------
    linearised : LinearisedKKT
    method : {"auto", "direct", "lsqr", "lsmr", "dense"}
        "auto" is by way of K where its null vectors are known; the others are those of `Embedding`.
    """

    def __init__(self, linearised: LinearisedKKT, method: str) -> None:
        self.linearised, self.method = linearised, method
        self._embeddings: dict[int, Embedding] = {}  # by position; each keeps its factorisation

    def solve(
        self, pending: NDArray[np.intp], rhs: Array, report: Report, adjoint: bool
    ) -> Iterator[tuple[np.intp, Parts]]:
        """Solve with M, or its adjoint, for the programs ``pending``; yield the parts of each answer."""
        n = self.linearised.structure.n
        for i, found in self._solutions(pending, rhs, adjoint):
            report.least_squares[int(i)] = found
            yield i, (found.value[:n], found.value[n:-1], float(found.value[-1]))
        short = [(int(i), found) for i, found in report.least_squares.items() if not found.converged]
        if short:
            worst = max((found for _, found in short), key=lambda found: found.residual)
            report.add_inaccurate(np.array([i for i, _ in short]), worst.residual, worst.reason)

    def _solutions(
        self, pending: NDArray[np.intp], rhs: Array, adjoint: bool
    ) -> Iterator[tuple[np.intp, LinearSolution]]:
        deflated = self.linearised.deflated if self.method == "auto" else None
        known = np.zeros(len(rhs), dtype=bool)
        if deflated is not None:
            known[deflated.index] = deflated.K.is_complete
            wanted = np.flatnonzero(np.isin(deflated.index, pending) & deflated.K.is_complete)
            if wanted.size:
                z, residual, reducible = deflated.M.solve(rhs[deflated.index], adjoint)
                for k in wanted:
                    converged = bool(reducible[k] <= SOLVED)
                    reason = f"solved with K, with a reducible residual of {reducible[k]:.1e}"
                    yield deflated.index[k], LinearSolution(z[k], converged, 0, float(residual[k]), reason)
        for i in pending[~known[pending]]:
            yield i, self._embedding(int(i)).least_squares(rhs[i], self.method, adjoint)

    def _embedding(self, i: int) -> Embedding:
        """Return M of one program, made when it is first needed: its factorisation serves all calls."""
        if i not in self._embeddings:
            linearised, index = self.linearised, np.array([i])
            x, y, s = linearised.point.take(index)
            D = linearised.structure.cone.project_dual(y - s).derivative()
            data = linearised.data.take(index)
            self._embeddings[i] = Embedding(linearised.structure, data, x[0], y[0], D)
        return self._embeddings[i]
