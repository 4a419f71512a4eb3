"""Cones of positive semidefinite matrices, real symmetric and complex Hermitian.

A symmetric matrix X is stored as svec(X): its lower triangle column by column, entries off the diagonal
times √2, so that <svec X, svec Y> = tr XY. A Hermitian matrix is stored likewise, an entry off the diagonal
as two numbers, √2 Re and √2 Im. These are SCS's layouts of ``s`` and ``cs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from conediff.cones.base import Array, ConeDefaults, DerivativeDefaults
from conediff.cones.svec import Matrix, layout_of, pack, unpack


@dataclass(frozen=True, eq=False)
class PSDEigenbasis:
    """The coordinates of Q* H Q, in which D multiplies every entry by a number.

    Parameters
    ----------
    Q : array, shape (..., count, order, order)
    omega : array, shape (..., count, order, order)
    """

    Q: Matrix
    omega: Array

    @property
    def eigenvalues(self) -> Array:
        """D's diagonal, shape (..., count, dim)."""
        row, column = layout_of(self.Q.shape[-1], np.iscomplexobj(self.Q)).owner
        return self.omega[..., row, column]

    def into(self, h: Array) -> Array:
        """Return Q* H Q, shapes (..., count, dim)."""
        return _congruence(_adjoint(self.Q), h)

    def out_of(self, h: Array) -> Array:
        """Return Q H Q*, shapes (..., count, dim)."""
        return _congruence(self.Q, h)

    def columns(self, k: int, h: Array) -> Array:
        """Return Q* H Q with the Q of cone k, shapes (..., vectors, dim)."""
        return _congruence(_adjoint(self.Q[..., k, None, :, :]), h)


def _congruence(Q: Matrix, h: Array) -> Array:
    """Return Q H Q*."""
    complex_ = np.iscomplexobj(Q)
    return pack(Q @ unpack(h, Q.shape[-1], complex_) @ _adjoint(Q), complex_)


@dataclass(frozen=True, eq=False)
class PSDDerivative(DerivativeDefaults):
    r"""D(H) = Q (Ω ∘ (Q* H Q)) Q*, with X = Q diag(λ) Q*; S has √Ω in place of Ω.

    Source: Malick and Sendov 2006 (Clarke generalized Jacobian of the projection onto the cone of
    positive semidefinite matrices).

    Parameters
    ----------
    Q : array, shape (..., count, order, order)
        Eigenvectors.
    omega : array, shape (..., count, order, order)
        1 where both eigenvalues are positive, 0 where neither is, λi / (λi - λj) where λi > 0 >= λj.
    margin : array, shape (..., count)
        min |λ|.
    eigenvalues : array, shape (..., count, order)
        λ.
    """

    Q: Matrix
    omega: Array
    margin: Array
    eigenvalues: Array

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., count, dim)."""
        return self._multiplied(self.omega, h)

    def apply_root(self, h: Array) -> Array:
        """Return S h, for h of shape (..., count, dim)."""
        return self._multiplied(np.sqrt(self.omega), h)

    def dense(self) -> tuple[Array, Array]:
        """Return D and S as blocks of shape (..., count, dim, dim).

        The eigenvectors of D are Q B Q*, for all B in the orthonormal basis that svec defines.
        """
        order, complex_ = self.Q.shape[-1], np.iscomplexobj(self.Q)
        row, column = layout_of(order, complex_).owner
        basis = unpack(np.eye(row.size), order, complex_)
        Q = self.Q[..., None, :, :]
        vectors = pack(Q @ basis @ _adjoint(Q), complex_)
        omega = self.omega[..., row, column][..., None]
        transposed = np.swapaxes(vectors, -1, -2)
        return transposed @ (omega * vectors), transposed @ (np.sqrt(omega) * vectors)

    def bend(self, h: Array, k: Array) -> Array:
        r"""Return T[H, K], the derivative of D along H applied to K.

        Its entries are second divided differences of max(λ, 0), which are zero for three eigenvalues of one
        sign. With L = diag |λ|, Γij = 1/(|λi| + |λj|) where the signs differ and zero elsewhere,
        Hm = Γ ∘ Q*HQ, and Hs = Q*HQ on the blocks of one sign and zero elsewhere,

        .. math:: T[H, K] = Q (G + G^* + Γ ∘ (B + B^*)) Q^*, \quad
                  G = H_m L K_m, \quad B = (H_s K_m + K_s H_m) L.

        No difference of eigenvalues of one sign occurs, so that close ones lose no digits.
        Source of the divided differences: Daleckii and Krein 1965; Higham 2008 (Functions of Matrices, 3.2).
        """
        gamma, same, size = self._signs
        (Hm, Hs), (Km, Ks) = (self._by_signs(part, gamma, same) for part in (h, k))
        G = (Hm * size) @ Km
        B = (Hs @ Km + Ks @ Hm) * size
        inner = G + _adjoint(G) + gamma * (B + _adjoint(B))
        return pack(self.Q @ inner @ _adjoint(self.Q), np.iscomplexobj(self.Q))

    @cached_property
    def _signs(self) -> tuple[Array, NDArray[np.bool_], Array]:
        """Γ, whether two eigenvalues have one sign, and |λ| as a row of shape (..., count, 1, order)."""
        above, size = self.eigenvalues > 0, np.abs(self.eigenvalues)
        same = above[..., :, None] == above[..., None, :]
        total = size[..., :, None] + size[..., None, :]
        with np.errstate(over="ignore"):  # eigenvalues of both signs that are subnormal
            gamma = np.where(same, 0.0, 1 / np.where(same, 1.0, total))
        return gamma, same, size[..., None, :]

    def _by_signs(self, h: Array, gamma: Array, same: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        H = _adjoint(self.Q) @ unpack(h, self.Q.shape[-1], np.iscomplexobj(self.Q)) @ self.Q
        return gamma * H, np.where(same, H, 0.0)

    @property
    def eigenbasis(self) -> PSDEigenbasis:
        """The coordinates in which D is diagonal."""
        return PSDEigenbasis(self.Q, self.omega)

    def _multiplied(self, omega: Array, h: Array) -> Array:
        complex_ = np.iscomplexobj(self.Q)
        H = unpack(h, self.Q.shape[-1], complex_)
        inner = omega * (_adjoint(self.Q) @ H @ self.Q)
        return pack(self.Q @ inner @ _adjoint(self.Q), complex_)


def _adjoint(X: Matrix) -> Matrix:
    return np.swapaxes(X, -1, -2).conj()


@dataclass(frozen=True, eq=False)
class PSDProjection:
    """Π(X) = Q diag(max(λ, 0)) Q*.

    Parameters
    ----------
    point : array, shape (..., count, dim)
    eigenvalues : array, shape (..., count, order)
    Q : array, shape (..., count, order, order)
    """

    point: Array
    eigenvalues: Array
    Q: Matrix

    def derivative(self) -> PSDDerivative:
        """Return D; Π has a kink where an eigenvalue is zero."""
        positive = np.maximum(self.eigenvalues, 0.0)
        negative = np.maximum(-self.eigenvalues, 0.0)
        size = positive[..., :, None] + negative[..., None, :]
        mixed = positive[..., :, None] / np.where(size > 0, size, 1.0)
        above = self.eigenvalues > 0
        both = above[..., :, None] & above[..., None, :]
        one = above[..., :, None] & ~above[..., None, :]
        omega = np.where(one, mixed, 0.0)
        omega = np.where(both, 1.0, omega + np.swapaxes(omega, -1, -2))
        margin = np.abs(self.eigenvalues).min(axis=-1, initial=np.inf)
        return PSDDerivative(self.Q, omega, margin, self.eigenvalues)


def _project(v: Array, order: int, complex_: bool) -> PSDProjection:
    finite = np.isfinite(v).all(axis=-1, keepdims=True)  # eigh raises for the whole batch otherwise
    eigenvalues, Q = np.linalg.eigh(unpack(np.where(finite, v, 0.0), order, complex_))
    eigenvalues = np.where(finite, eigenvalues, np.nan)
    point = pack((Q * np.maximum(eigenvalues, 0.0)[..., None, :]) @ _adjoint(Q), complex_)
    return PSDProjection(point, eigenvalues, Q)


@dataclass(frozen=True)
class PSD(ConeDefaults):
    """``count`` cones of symmetric positive semidefinite matrices, each its own dual.

    Parameters
    ----------
    count : int
    order : int
        Rows of the matrix; the cone has order (order + 1) / 2 rows.
    """

    count: int
    order: int

    has_eigenbasis: ClassVar[bool] = True

    @property
    def dim(self) -> int:
        """Rows of one cone."""
        return self.order * (self.order + 1) // 2

    @property
    def diagonal(self) -> bool:
        """Whether the matrices have one row."""
        return self.order == 1

    def project_dual(self, v: Array, near: Array | None = None) -> PSDProjection:
        """Project v, of shape (..., count, dim)."""
        return _project(v, self.order, False)


@dataclass(frozen=True)
class ComplexPSD(ConeDefaults):
    """``count`` cones of Hermitian positive semidefinite matrices, each its own dual.

    Parameters
    ----------
    count : int
    order : int
        Rows of the matrix; the cone has order^2 rows.
    """

    count: int
    order: int

    has_eigenbasis: ClassVar[bool] = True

    @property
    def dim(self) -> int:
        """Rows of one cone."""
        return self.order**2

    @property
    def diagonal(self) -> bool:
        """Whether the matrices have one row."""
        return self.order == 1

    def project_dual(self, v: Array, near: Array | None = None) -> PSDProjection:
        """Project v, of shape (..., count, dim)."""
        return _project(v, self.order, True)
