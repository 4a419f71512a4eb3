r"""Solve with K by a factorisation: iterative refinement, and whether K is singular.

The factorised matrix need not be K itself, as long as it is near K: K + ε diag(I, -I), K with one eigenvalue
of D in place of a large cone's block, K at a nearby point. Refinement, a correction of low rank, or GMRES
work against K.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from conediff.cones import ProductDerivative
from conediff.kkt.constants import (
    ESTIMATED_SINGULAR_VALUE,
    GMRES_COARSE,
    GMRES_FINE,
    KRYLOV,
    SOLVED,
    SUSPICIOUS_RESIDUAL,
    SUSPICIOUS_SINGULAR_VALUE,
)
from conediff.kkt.factorisation import Factorisation
from conediff.kkt.low_rank import LowRank
from conediff.kkt.matrix import KKTOperator
from conediff.program import Array, Indices


@dataclass(frozen=True, eq=False)
class KKTFactor:
    """Solves with K of every program of a stack; immutable, and may be shared by threads.

    Parameters
    ----------
    operator : KKTOperator
        K itself.
    factorisation : Factorisation
        Of a matrix near K.
    probe : array, shape (n + m,)
        A random unit vector.
    is_exact : bool
        Whether refinement suffices, because no cone is large; otherwise a low-rank correction or GMRES is
        needed.
    is_nearby : bool
        Whether the factorisation is that of K at another point.
    may_use_low_rank : bool
        Whether the low-rank correction has not failed.
    """

    operator: KKTOperator
    factorisation: Factorisation
    probe: Array
    is_exact: bool
    is_nearby: bool = False
    may_use_low_rank: bool = True

    def with_derivative(self, derivative: ProductDerivative) -> KKTFactor:
        """Return a factor for K at a nearby D, by the same factorisation."""
        return replace(self, operator=self.operator.with_derivative(derivative), is_nearby=True)

    def with_rows_from(self, index: Indices, other: KKTFactor) -> KKTFactor:
        """Return a factor that uses the factorisation of another one for the programs at these positions."""
        return replace(self, factorisation=self.factorisation.with_rows_from(index, other.factorisation))

    def projection_change(self, derivative: ProductDerivative) -> Array:
        """Return how far S has changed since the factorisation; shape (B,)."""
        signs = np.where(self.probe[self.operator.n :] > 0, 1.0, -1.0)
        return self.factorisation.projection_change(derivative, signs)

    @cached_property
    def repaired(self) -> KKTFactor | None:
        """The factor with more regularisation, if a pivot has the wrong sign; None if none has."""
        factorisation = self.factorisation.with_increased_regularisation()
        return None if factorisation is None else replace(self, factorisation=factorisation)

    @cached_property
    def _low_rank(self) -> LowRank | None:
        if self.is_exact or not self.may_use_low_rank:
            return None
        return LowRank.of(self.operator, self.factorisation.solve)

    @property
    def is_direct(self) -> bool:
        """Whether `solve_regularised` needs no iteration."""
        return self.is_exact or self._low_rank is not None

    def solve_regularised(self, rhs: Array, tol: float = 1e-8) -> Array:
        """Solve with the regularised K, once; shapes (B, n + m). ``tol`` is that of GMRES, if it is used."""
        if self.is_exact:
            return self.factorisation.solve(rhs)
        if self._low_rank is not None:
            z = self._low_rank.corrected(self.factorisation.solve(rhs))
            if np.isfinite(z).all():
                return z
        return self._by_gmres(rhs, tol, self.factorisation.shift)

    def _by_gmres(self, rhs: Array, tol: float, shift: Array | float = 0.0) -> Array:
        """Solve with K, plus ``shift`` on its diagonal, to a relative residual of ``tol``."""
        shape = rhs.shape

        def product(z: Array) -> Array:
            stack = z.reshape(shape)
            shifted = self.factorisation.turned_product(shift, stack)
            return (self.operator.apply(stack) + shifted).ravel()

        def precondition(z: Array) -> Array:
            return self.factorisation.solve(z.reshape(shape)).ravel()

        K, M = (LinearOperator((rhs.size,) * 2, matvec=f, dtype=np.float64) for f in (product, precondition))
        z, _ = gmres(K, rhs.ravel(), rtol=tol, restart=min(KRYLOV, rhs.size), maxiter=1, M=M)
        return z.reshape(shape)

    def solve(self, rhs: Array, tol: float = 1e-14, steps: int = 10) -> tuple[Array, Array]:
        """Solve K z = rhs by iterative refinement.

        Parameters
        ----------
        rhs : array, shape (B, n + m)
        tol : float
            Relative residual at which to stop.
        steps : int
            Refinement steps at most; a program whose residual no longer halves stops by itself.

        Returns
        -------
        z : array, shape (B, n + m)
        residual : array, shape (B,)
            2-norm of rhs - K z relative to that of rhs; large where K is singular and rhs outside its range.
        """
        size = norms(rhs)
        size[size == 0] = 1
        # Where K is regular GMRES needs neither regularisation nor refinement.
        plain = not self.is_exact and self._low_rank is None
        tol = max(tol, GMRES_FINE) if plain else tol
        z = self._by_gmres(rhs, tol / 2) if plain else self.solve_regularised(rhs)
        left = rhs - self.operator.apply(z)
        error = norms(left) / size
        if not np.all(error < SUSPICIOUS_RESIDUAL):
            if self.repaired is not None:
                return self.repaired.solve(rhs, tol, steps)
            if plain:
                z = self.solve_regularised(rhs)
                left = rhs - self.operator.apply(z)
                error = norms(left) / size
        for _ in range(steps):
            if not np.any(error > tol):
                break
            trial = z + self.solve_regularised(left)
            trial_left = rhs - self.operator.apply(trial)
            trial_error = norms(trial_left) / size
            better = trial_error < error
            z[better], left[better] = trial[better], trial_left[better]
            enough = np.all((trial_error > error / 2) | (trial_error <= tol))
            error = np.where(better, trial_error, error)
            if enough:
                break
        if not np.all(error <= max(tol, SOLVED)) and not plain and not self.is_exact:
            # The factorised matrix may be singular where K is not: then only GMRES helps.
            return self._without_low_rank.solve(rhs, tol, steps)
        return z, error

    @cached_property
    def _without_low_rank(self) -> KKTFactor:
        return replace(self, may_use_low_rank=False)

    def checked(self) -> tuple[KKTFactor, Array, Array]:
        """Return a factor whose pivots have the right sign, and its `smallest_singular_value`.

        It is this factor, or where a singular value is suspicious and a pivot has the wrong sign, one with
        more regularisation.
        """
        if np.all(self.first_estimate >= SUSPICIOUS_SINGULAR_VALUE) or self.repaired is None:
            return self, *self.smallest_singular_value()
        return self.repaired, *self.repaired.smallest_singular_value()

    def scaled_product(self, z: Array) -> Array:
        """Apply the scaled K, shapes (..., B, n + m)."""
        return self.factorisation.into_scaled(self.operator.apply(self.factorisation.out_of_scaled(z)))

    def scaled_inverse(self, z: Array, tol: float = 1e-8) -> Array:
        """Solve with the scaled and regularised K, shapes (B, n + m)."""
        if self.is_exact and not self.factorisation.replaced:
            return self.factorisation.ldl.solve(z)
        return self.factorisation.scaled_inverse(z, lambda rhs: self.solve_regularised(rhs, tol))

    @cached_property
    def _inverse_iteration(self) -> tuple[Array, Array]:
        """One step from the probe: estimates, shape (B,), and the unit vectors, scaled, that show them."""
        z = self.scaled_inverse(np.broadcast_to(self.probe, self.factorisation.scale.shape), GMRES_COARSE)
        value = 1 / norms(z)
        return value, z * value[:, None]

    @property
    def first_estimate(self) -> Array:
        """Estimate of `smallest_singular_value` by one step of inverse iteration, shape (B,).

        Small where K is singular, and where the factorisation is worthless because a pivot vanished: further
        steps with it would show some other value.
        """
        return self._inverse_iteration[0]

    def smallest_singular_value(self) -> tuple[Array, Array]:
        """Estimate the smallest singular value of every K, scaled to rows of about one.

        Inverse iteration: where K is singular the regularised solve amplifies its null space. One step, from
        a fixed random vector, rules that out for most programs; the others get two more, in the form z - (K +
        εJ)^-1 K z, in which rounding errors do not hide a small K z.

        Returns
        -------
        value : array, shape (B,)
        vector : array, shape (B, n + m)
            The unit vector that shows it, in unscaled coordinates (r, t); meaningful where value is small.
        """
        value, z = self._inverse_iteration
        if np.any(value < ESTIMATED_SINGULAR_VALUE):
            best, least = z, norms(self.scaled_product(z))
            for _ in range(2):
                z = z - self.scaled_inverse(self.scaled_product(z))
                z = z / norms(z)[:, None]
                bound = norms(self.scaled_product(z))
                # Far above the regularisation rounding in the difference may spoil what was reached.
                best, least = np.where((bound < least)[:, None], z, best), np.fmin(bound, least)
            z, value = best, np.where(value < ESTIMATED_SINGULAR_VALUE, least, value)
        vector = self.factorisation.out_of_scaled(z)
        value = np.nan_to_num(value)  # NaN where there is no factorisation
        return value, vector / norms(vector)[:, None]


# Squares of entries that count in norms above this, and below its inverse, neither underflow nor overflow.
_LEAST_NORM = 1e-140


def norms(stack: Array) -> Array:
    """2-norms of a stack of vectors, without overflow of the squares."""
    found: Array = np.sqrt(np.einsum("ij,ij->i", stack, stack))
    odd = ~((found > _LEAST_NORM) & (found < 1 / _LEAST_NORM))
    if odd.any():
        largest = np.abs(stack[odd]).max(axis=1, initial=0.0)
        # By a power of two, which changes no digit.
        ordinary = np.where(np.isfinite(largest) & (largest > 0), largest, 1.0)
        size = np.exp2(np.floor(np.log2(ordinary)))
        found[odd] = np.linalg.norm(stack[odd] / size[:, None], axis=1) * size
    return found
