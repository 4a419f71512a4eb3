r"""Woodbury correction for large cones: K = K₀ + U C Uᵀ.

In large cones K₀ has a I and √a I in place of D and S (see `matrix`). If D = a I + V (Λ - a I) Vᵀ with few
columns in V (`LowRankPart`; of a second-order cone two), then S = √a I + V (√Λ - √a I) Vᵀ and

.. math::
    K = K_0 + U C U^\top, \qquad
    U = \begin{pmatrix} A^\top V & 0 \\ 0 & V \end{pmatrix}, \quad
    C = \begin{pmatrix} 0 & \Gamma \\ \Gamma & \Lambda - a I \end{pmatrix}, \quad
    \Gamma = \sqrt\Lambda - \sqrt{a} I.

A solve with K is a solve with K₀ and one with a small matrix (Sherman, Morrison, Woodbury; Hager 1989).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conediff.cones import LowRankPart
from conediff.kkt.constants import LOW_RANK_COLUMNS, LOW_RANK_NUMBERS
from conediff.kkt.matrix import KKTOperator
from conediff.program import Array, Indices


class LowRank:
    """Solve with K by solving with K₀, for a stack of programs.

    Parameters
    ----------
    operator : KKTOperator
        K.
    parts : list of (rows, LowRankPart)
        Rows (count, dim) and D of each group of large cones.
    back : callable
        Solves with K₀; takes and returns arrays of shape (B, n + m).
    """

    def __init__(
        self,
        operator: KKTOperator,
        parts: list[tuple[Indices, LowRankPart]],
        back: Callable[[Array], Array],
    ) -> None:
        U, C = _factors(operator, parts)
        self._U, self._C = U, C
        self._W = np.stack([back(U[..., j]) for j in range(U.shape[-1])], axis=-1)
        self._G = np.eye(C.shape[-1]) + C @ (U.transpose(0, 2, 1) @ self._W)

    @classmethod
    def of(cls, operator: KKTOperator, back: Callable[[Array], Array]) -> LowRank | None:
        """Return the correction; None if a large cone has no low-rank part, or U would be too large."""
        large = [(rows, D.low_rank) for cone, rows, D in operator.derivative.groups if cone.is_large]
        parts = [(rows, part) for rows, part in large if part is not None]
        columns = 2 * sum(len(rows) * part.eigenvalues.shape[-1] for rows, part in parts)
        numbers = operator.derivative.batch[0] * (operator.n + operator.derivative.cone.dim) * columns
        if len(parts) < len(large) or columns > LOW_RANK_COLUMNS or numbers > LOW_RANK_NUMBERS:
            return None
        return cls(operator, parts, back)

    def corrected(self, z: Array) -> Array:
        """Return K⁻¹ rhs for z = K₀⁻¹ rhs, shapes (B, n + m); NaN where K is singular."""
        inner = self._C @ (self._U.transpose(0, 2, 1) @ z[..., None])
        try:
            small = np.linalg.solve(self._G, inner)
        except np.linalg.LinAlgError:
            return np.full(z.shape, np.nan)
        solution: Array = z - (self._W @ small)[..., 0]
        return solution


def _factors(operator: KKTOperator, parts: list[tuple[Indices, LowRankPart]]) -> tuple[Array, Array]:
    """Return U and C of every program, shapes (B, n + m, 2 r) and (B, 2 r, 2 r), for r eigenvectors."""
    count, n, m = operator.derivative.batch[0], operator.n, operator.derivative.cone.dim
    columns, gammas, deltas = [], [], []
    for rows, part in parts:
        vectors = part.vectors()
        for k, i in np.ndindex(vectors.shape[1:3]):
            v = np.zeros((count, m))
            v[:, rows[k]] = vectors[:, k, i]
            a, eigenvalue = part.eigenvalue[:, k], part.eigenvalues[:, k, i]
            columns.append(v)
            gammas.append(np.sqrt(eigenvalue) - np.sqrt(a))
            deltas.append(eigenvalue - a)
    r = len(columns)
    U, C = np.zeros((count, n + m, 2 * r)), np.zeros((count, 2 * r, 2 * r))
    j = np.arange(r)
    for i, v in enumerate(columns):
        U[:, :n, i], U[:, n:, r + i] = operator.At(v), v
    C[:, j, r + j] = C[:, r + j, j] = np.stack(gammas, axis=-1)
    C[:, r + j, r + j] = np.stack(deltas, axis=-1)
    return U, C
