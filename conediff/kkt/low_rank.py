r"""What large second-order cones have beyond a multiple of the identity: K by a matrix of low rank.

S of such a cone is √a I + V Γ V', and D = a I + V Δ V', with the two eigenvectors V that are not orthogonal
to the axis; a is the eigenvalue of all others. Where K₀ is formed with √a and a alone,

.. math::
    K = K_0 + U C U^\top, \qquad
    U = \begin{pmatrix} A^\top V & 0 \\ 0 & V \end{pmatrix}, \quad
    C = \begin{pmatrix} 0 & \Gamma \\ \Gamma & \Delta \end{pmatrix},

and K is solved with by K₀'s factor and a small matrix (Sherman, Morrison, Woodbury; Hager 1989).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conediff.cones.second_order import SecondOrderDerivative
from conediff.kkt.matrix import KKTOperator, is_large
from conediff.program import Array

# Numbers in U at most; and its columns, four for every cone.
_MOST, _COLUMNS = 1 << 22, 64


class LowRank:
    """Solve with K by solving with K₀, for a stack.

    Parameters
    ----------
    operator : KKTOperator
        K, whose large cones are second-order ones.
    back : callable
        Solves with K₀, shapes (B, n + m).
    """

    def __init__(self, operator: KKTOperator, back: Callable[[Array], Array]) -> None:
        U, C = _factors(operator)
        self._U, self._C = U, C
        self._W = np.stack([back(U[..., j]) for j in range(U.shape[-1])], axis=-1)
        self._G = np.eye(C.shape[-1]) + C @ (U.transpose(0, 2, 1) @ self._W)

    @classmethod
    def of(cls, operator: KKTOperator, back: Callable[[Array], Array]) -> LowRank | None:
        """Set up, where all large cones are second-order ones and few; None otherwise."""
        large = [(cone, group) for cone, _, group in operator.derivative.groups if is_large(cone)]
        columns = 4 * sum(cone.count for cone, _ in large)
        size = operator.derivative.batch[0] * (operator.n + operator.derivative.cone.dim) * columns
        few = columns <= _COLUMNS and size <= _MOST
        if not few or not all(isinstance(group, SecondOrderDerivative) for _, group in large):
            return None
        return cls(operator, back)

    def corrected(self, z: Array) -> Array:
        """Return K⁻¹ rhs for z = K₀⁻¹ rhs, shapes (B, n + m); NaN where K is singular."""
        inner = self._C @ (self._U.transpose(0, 2, 1) @ z[..., None])
        try:
            small = np.linalg.solve(self._G, inner)
        except np.linalg.LinAlgError:
            return np.full(z.shape, np.nan)
        solution: Array = z - (self._W @ small)[..., 0]
        return solution


def _factors(operator: KKTOperator) -> tuple[Array, Array]:
    """U and C of every program, shapes (B, n + m, 4 k) and (B, 4 k, 4 k), k cones."""
    derivative, n = operator.derivative, operator.n
    count, m = derivative.batch[0], derivative.cone.dim
    columns, gammas, deltas = [], [], []
    for cone, rows, group in derivative.groups:
        if not is_large(cone) or not isinstance(group, SecondOrderDerivative):
            continue
        for k, place in enumerate(rows):
            a = group.around[:, k]
            for sign, eigenvalue in ((1.0, group.along[:, k]), (-1.0, group.across[:, k])):
                v = np.zeros((count, m))
                v[:, place[0]] = np.sqrt(0.5)
                v[:, place[1:]] = sign * np.sqrt(0.5) * group.u[:, k]
                columns.append(v)
                gammas.append(eigenvalue - np.sqrt(a))  # eigenvalues of 0 and 1 are their own roots
                deltas.append(eigenvalue - a)
    r = len(columns)
    U, C = np.zeros((count, n + m, 2 * r)), np.zeros((count, 2 * r, 2 * r))
    j = np.arange(r)
    for i, v in enumerate(columns):
        U[:, :n, i], U[:, n:, r + i] = operator.At(v), v
    C[:, j, r + j] = C[:, r + j, j] = np.stack(gammas, axis=-1)
    C[:, r + j, r + j] = np.stack(deltas, axis=-1)
    return U, C
