r"""Least squares on M by way of K: the answer of least norm where K is singular.

A consistent system with M, the derivative of the embedding (see `kkt.embedding`), is one with K: with w = 0
in M (u, v, w) = (h_1, h_2, \cdot), or r_3 = 0 in M'r = (g_1, g_2, \cdot),

.. math::
    K (u, \tau) &= (h_1, -S h_2), & v &= h_2 + A u + S \tau, \\
    K (r_1, \tau) &= (g_1 + A^\top g_2, S g_2), & r_2 &= g_2 - S \tau.

Because K is quasi-definite its null vectors are (n, 0) and (0, q) with P n = 0, S A n = 0, D q = q and
A'q = 0. They and the solution span both null spaces of M,

.. math:: \ker M = \{(n, A n + q, 0)\} + \langle (x, v, 1) \rangle, \qquad
          \ker M^\top = \{(n, -q, 0)\} + \langle (x, y, 1) \rangle.

So the least-squares answer of least norm takes one solve with K between two orthogonal projections: the first
makes the right-hand side consistent, the second makes the norm least. The two modes exchange the projections,
and are adjoint to each other.
"""

from __future__ import annotations

import numpy as np

from conediff.cones import ProductDerivative
from conediff.kkt.deflation import Deflation
from conediff.kkt.factor import norms
from conediff.program import Array, ConeData, Point, Structure


class MinimumNorm:
    """M⁺ for every program of a stack; immutable.

    Parameters
    ----------
    structure : Structure
    data : ConeData
    point : Point
        The solutions.
    derivative : ProductDerivative
        D there.
    deflation : Deflation
        Of K there.
    """

    def __init__(
        self,
        structure: Structure,
        data: ConeData,
        point: Point,
        derivative: ProductDerivative,
        deflation: Deflation,
    ) -> None:
        self.n, self._D, self._K = structure.n, derivative, deflation
        self._A, self._At = structure.A.products(data.A)
        x, y, s = point
        self._weight = _weight(structure, data, x)
        null = deflation.null_vectors
        first, second = null[:, : self.n], null[:, self.n :]
        unit = np.ones((len(x), 1)) / self._weight
        images = self._A(first.transpose(2, 0, 1)).transpose(1, 2, 0) + second
        self._right = _orthonormal(first, images, np.hstack([x, y - s, unit]))
        self._left = _orthonormal(first, -second, np.hstack([x, y, unit]))

    def solve(self, rhs: Array, adjoint: bool) -> tuple[Array, Array, Array]:
        """Return the z of least norm that minimises |M z - rhs|, or |M'z - rhs|, in weighted coordinates.

        Returns
        -------
        z : array, shape (B, n + m + 1)
        residual : array, shape (B,)
            2-norm of the residual relative to that of rhs.
        reducible : array, shape (B,)
            Of the system with K, which another z could remove; see `Deflation.solve`.
        """
        h = rhs.copy()
        h[:, -1:] *= self._weight
        size = norms(h)
        size[size == 0] = 1
        before, after = (self._right, self._left) if adjoint else (self._left, self._right)
        consistent = _without(before, h)
        h1, h2 = consistent[:, : self.n], consistent[:, self.n : -1]
        root = self._D.apply_root
        right = np.hstack([h1 + self._At(h2), root(h2)] if adjoint else [h1, -root(h2)])
        answer, _, reducible = self._K.solve(right)
        u, tau = answer[:, : self.n], answer[:, self.n :]
        v = h2 - root(tau) if adjoint else h2 + self._A(u) + root(tau)
        z = _without(after, np.hstack([u, v, np.zeros((len(u), 1))]))
        z[:, -1:] *= self._weight
        return z, np.hypot(norms(h - consistent) / size, reducible), reducible


def _weight(structure: Structure, data: ConeData, x: Array) -> Array:
    """Return the factor of M's last row and column, shape (B, 1): see `Embedding.weight`."""
    Px = structure.P.products(data.P)[0](x)
    largest = np.sqrt(np.abs((x * Px).sum(axis=1)))
    for part in (data.b, data.c, Px):
        largest = np.maximum(largest, np.abs(part).max(axis=1, initial=0.0))
    return np.asarray(1 / np.maximum(largest, 1.0))[:, None]


def _orthonormal(first: Array, second: Array, solution: Array) -> Array:
    """Return an orthonormal basis of the solution and the vectors (first, second, 0), in the last dimension.

    Columns of zeros come last and stay zero.
    """
    null = np.concatenate([first, second, np.zeros_like(first[:, :1])], axis=1)
    Q, R = np.linalg.qr(np.concatenate([solution[:, :, None], null], axis=2))
    return np.asarray(Q * (np.diagonal(R, axis1=1, axis2=2) != 0)[:, None, :])


def _without(basis: Array, z: Array) -> Array:
    """Subtract the projection onto an orthonormal basis; twice, so that rounding leaves nothing."""
    for _ in range(2):
        z = z - (basis @ (basis.transpose(0, 2, 1) @ z[:, :, None]))[:, :, 0]
    return z
