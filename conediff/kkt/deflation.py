r"""The small singular values of K split off, so that what is left can be solved with.

Inverse iteration with the regularised K finds the directions V that K nearly annihilates; in scaled
coordinates, in which K and V are meant here, H = V'K V is small and symmetric, and its eigenvalues θ (Ritz
values) are those of K. With the projector Q = I - V V',

.. math:: K^+ = V \Theta^+ V^\top + Q (K + \epsilon J)^{-1} Q (\dots)

where the dots are iterative refinement: without V it contracts by ε / (σ + ε), σ the smallest singular
value that is left. Θ⁺ inverts eigenvalues, and leaves out those that count as zero. What is split off depends
on the program alone, so that the answers to all right-hand sides are those of one symmetric matrix, and both
modes of the derivative are adjoint to each other however small θ is. Source: Rayleigh-Ritz and deflation as
in Parlett (1998), chapters 5 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.constants import (
    DEFLATED,
    DEFLATION_REGULARISATION,
    DEFLATION_STEPS,
    PURIFICATIONS,
)
from conediff.kkt.factor import KKTFactor, norms
from conediff.program import Array


@dataclass(frozen=True, eq=False)
class Deflation:
    """K⁺ of every program of a stack; immutable.

    Parameters
    ----------
    factor : KKTFactor
        Of K, regularised by DEFLATION_REGULARISATION.
    V : array, shape (B, n + m, k)
        Ritz vectors, orthonormal, in scaled coordinates. Columns that a program does not need are zero.
    theta : array, shape (B, k)
        Their eigenvalues; one in columns that are zero.
    is_complete : bool array, shape (B,)
        Whether all singular values below DEFLATED are split off; if not, the program has too many of them.
    null_below : array, shape (B,)
        Singular values below this count as zero.
    """

    factor: KKTFactor
    V: Array
    theta: Array
    is_complete: NDArray[np.bool_]
    null_below: Array

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Which columns of V are null vectors, shape (B, k)."""
        return np.asarray(np.abs(self.theta) < self.null_below[:, None])

    @property
    def smallest_singular_value(self) -> Array:
        """Of K with rows scaled to about one, shape (B,)."""
        return np.asarray(np.abs(self.theta).min(axis=1, initial=1.0))

    @property
    def smallest_regular_value(self) -> Array:
        """The smallest singular value that does not count as zero, at most DEFLATED; shape (B,)."""
        regular = np.where(self.is_null, DEFLATED, np.abs(self.theta))
        return np.asarray(regular.min(axis=1, initial=DEFLATED))

    @property
    def null_vectors(self) -> Array:
        """The null vectors (r, t) of K, in unscaled coordinates, before columns of zeros; (B, n + m, k)."""
        order = np.argsort(~self.is_null, axis=1, kind="stable")
        vectors = np.take_along_axis(self.V * self.is_null[:, None, :], order[:, None, :], axis=2)
        vectors = vectors[:, :, : int(self.is_null.sum(axis=1).max(initial=0))]
        return np.asarray(
            self.factor.factorisation.out_of_scaled(vectors.transpose(2, 0, 1)).transpose(1, 2, 0)
        )

    def solve(self, rhs: Array) -> tuple[Array, Array, Array]:
        """Return K⁺ rhs, the part of rhs along null vectors of K, and the residual of the rest.

        What is along V comes from V alone, and is not refined: rounding in the residual, times 1 / θ, would
        make the two modes' answers differ.

        Returns
        -------
        z : array, shape (B, n + m)
        inconsistent : array, shape (B,)
            2-norm of the part that no answer removes, relative to that of rhs, in scaled coordinates.
        residual : array, shape (B,)
            2-norm of the residual of the rest, relative to the sum of those of rhs and z, both scaled:
            rounding in K z is relative to z, which may be larger than rhs by 1 / θ.
        """
        b = self.factor.factorisation.into_scaled(rhs)
        size = norms(b)
        size[size == 0] = 1
        along = _transposed(self.V, b)
        inverse = np.where(self.is_null, 0.0, 1 / np.where(self.is_null, 1.0, self.theta))
        z = _combined(self.V, inverse * along)
        left = self._outside(b - self.factor.scaled_product(z))
        error = norms(left)
        for _ in range(DEFLATION_STEPS):
            trial = z + self._outside(self.factor.scaled_inverse(left))
            trial_left = self._outside(b - self.factor.scaled_product(trial))
            trial_error = norms(trial_left)
            better = trial_error < error
            done = ~(trial_error < error / 2)
            z[better], left[better] = trial[better], trial_left[better]
            error = np.where(better, trial_error, error)
            if np.all(done):
                break
        inconsistent = norms(along * self.is_null) / size
        residual = norms(left) / (size + norms(z))
        return self.factor.factorisation.out_of_scaled(z), inconsistent, residual

    def _outside(self, z: Array) -> Array:
        """Return Q z."""
        return z - _combined(self.V, _transposed(self.V, z))


def deflation(factor: KKTFactor, most: int, null_below: Array) -> Deflation:
    """Split off the singular values below DEFLATED, by subspace iteration.

    Parameters
    ----------
    factor : KKTFactor
        Regularised by DEFLATION_REGULARISATION, with pivots of the right signs (`KKTFactor.checked`).
    most : int
        Vectors that are split off, at most.
    null_below : array, shape (B,)
        Singular values below this count as zero.
    """
    count, size = factor.factorisation.scale.shape
    expected = _expected(factor)
    has_room = expected <= 2 * most + 10
    most = min(most + 1, size)
    width = min(most, int(1.2 * expected[has_room].max(initial=0)) + 2)
    while True:
        probes = np.random.default_rng(1).standard_normal((size, width))
        start = np.broadcast_to(probes, (count, size, width))
        V, _ = _ritz(factor, _corrected(factor, _orthonormal(_inverses(factor, start))))
        is_small = _norms_of_columns(_products(factor, V)) < DEFLATED
        is_complete = has_room & ((is_small.sum(axis=1) < width) | (width == size))
        if np.all(is_complete | ~has_room) or width == most:
            break
        width = min(most, 2 * width)
    V = _small_columns(V, is_small & is_complete[:, None])
    return Deflation(factor, *_ritz(factor, _purified(factor, V)), is_complete, null_below)


def _purified(factor: KKTFactor, V: Array) -> Array:
    """Return V as nearly invariant under K as rounding allows.

    A Newton step for an invariant subspace solves C W = Q (K V - V H) with C = Q K Q, up to terms of the size
    of H, and subtracts W (Stewart, Sun 1990, section V.2). Inverse iteration alone ends, where θ is not zero,
    at an eigenvector of K with respect to J.
    """
    level = np.inf
    for _ in range(PURIFICATIONS + 1):
        image = _products(factor, V)
        outside = image - V @ (V.transpose(0, 2, 1) @ image)
        previous, level = level, float(_norms_of_columns(outside).max(initial=0.0))
        if not level < previous / 2:
            break
        step = _inverses(factor, outside)
        V = _orthonormal(V - step + V @ (V.transpose(0, 2, 1) @ step))
    return V


def _expected(factor: KKTFactor) -> Array:
    """Estimate the number of null vectors of K, shape (B,).

    A random unit vector has a share of k / (n + m) of its square in k dimensions, and the regularised K
    divides that by its regularisation.
    """
    share = DEFLATION_REGULARISATION / np.maximum(factor.first_estimate, DEFLATION_REGULARISATION)
    return np.asarray(factor.factorisation.scale.shape[1] * share**2)


def _corrected(factor: KKTFactor, V: Array) -> Array:
    """Return V with less in the directions that K does not annihilate, orthonormal.

    V - (K + εJ)⁻¹ K V hides a small K V less in rounding than (K + εJ)⁻¹ V does.
    """
    return _orthonormal(V - _inverses(factor, _products(factor, V)))


def _orthonormal(V: Array) -> Array:
    """Return orthonormal bases of the columns; columns of zeros come last and stay zero."""
    Q, R = np.linalg.qr(V)
    return np.asarray(Q * (np.diagonal(R, axis1=1, axis2=2) != 0)[:, None, :])


def _small_columns(V: Array, is_small: NDArray[np.bool_]) -> Array:
    """Return the chosen columns of V, before columns of zeros."""
    order = np.argsort(~is_small, axis=1, kind="stable")[:, : int(is_small.sum(axis=1).max(initial=0))]
    chosen = V * is_small[:, None, :]
    return np.asarray(np.take_along_axis(chosen, order[:, None, :], axis=2))


def _ritz(factor: KKTFactor, V: Array) -> tuple[Array, Array]:
    """Return the eigenvectors of K on the range of V, and their eigenvalues; one for columns of zeros."""
    H = V.transpose(0, 2, 1) @ _products(factor, V)
    H = (H + H.transpose(0, 2, 1)) / 2
    program, j = np.nonzero(~V.any(axis=1))
    H[program, j, j] = 1.0
    theta, vectors = np.linalg.eigh(H)
    return V @ vectors, theta


def _products(factor: KKTFactor, V: Array) -> Array:
    """Return K V in scaled coordinates, shape (B, n + m, k)."""
    return np.asarray(factor.scaled_product(V.transpose(2, 0, 1)).transpose(1, 2, 0))


def _inverses(factor: KKTFactor, V: Array) -> Array:
    """Solve with the regularised K in scaled coordinates, shape (B, n + m, k)."""
    result = np.empty(V.shape)
    for j in range(V.shape[2]):
        result[:, :, j] = factor.scaled_inverse(np.ascontiguousarray(V[:, :, j]))
    return result


def _transposed(V: Array, z: Array) -> Array:
    return np.asarray((V.transpose(0, 2, 1) @ z[:, :, None])[:, :, 0])


def _combined(V: Array, coefficients: Array) -> Array:
    return np.asarray((V @ coefficients[:, :, None])[:, :, 0])


def _norms_of_columns(V: Array) -> Array:
    """Return the 2-norms of the columns, shape (B, k)."""
    return np.asarray(np.linalg.norm(V, axis=1))
