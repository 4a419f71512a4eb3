r"""Solve with the factorised K: iterative refinement, and whether K is singular.

What is factorised need not be K itself, as long as it is close: K + ε diag(I, -I), K with one eigenvalue of D
in the place of a large cone's block, K of a point nearby. Refinement, a correction of low rank, or GMRES
works against K.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from conediff.cones import ProductDerivative
from conediff.kkt.ldl import StackLDL
from conediff.kkt.low_rank import LowRank
from conediff.kkt.matrix import KKTOperator
from conediff.program import Array, Indices

# A relative residual above this, of the first solve, makes the pivots worth a look.
_STRANGE = 1e-3
# Above this a smallest singular value, estimated by one step, is not looked at again. Pivots as small as the
# regularisation leave the factorisation correct to 1e-7 only, so that a zero may look as large as 1e-5.
SUSPICIOUS = 1e-4
# A relative residual above this asks for more than a matrix of low rank.
_SOLVED = 1e-10
# Relative residuals that GMRES is to reach, and that do for a first look at the smallest singular value:
# below the share that one direction has of a random vector.
_FINE, _COARSE = 1e-12, 1e-5
# Krylov vectors at most, where GMRES stands in for refinement.
_KRYLOV = 200


class KKTFactor:
    """LDL' of the regularised K for every program of a stack.

    Parameters
    ----------
    operator : KKTOperator
        K itself.
    ldl : StackLDL
        Of what stands for it, rows and columns scaled.
    scale, shift : arrays, shape (B, n + m)
        That scaling, and what was added to K's diagonal, unscaled.
    probe : array, shape (n + m,)
        A random unit vector.
    exact : bool
        Whether refinement is enough; otherwise GMRES.
    """

    def __init__(
        self, operator: KKTOperator, ldl: StackLDL, scale: Array, shift: Array, probe: Array, exact: bool
    ) -> None:
        self.operator, self._ldl, self._probe, self._exact = operator, ldl, probe, exact
        self._scale, self._shift = scale, shift
        self._patches: list[tuple[Indices, KKTFactor]] = []
        self._checked = False
        self.approximate = False

    def drift(self, derivative: ProductDerivative) -> Array:
        """How far S has moved since, by what it does to a vector of random signs; shape (B,)."""
        signs = np.where(self._probe[self.operator.n :] > 0, 1.0, -1.0)
        moved = derivative.apply_root(signs)
        drift: Array = np.abs(moved - self.operator.derivative.apply_root(signs)).max(axis=1, initial=0.0)
        for index, other in self._patches:
            its = other.operator.derivative.apply_root(signs)
            drift[index] = np.abs(moved[index] - its).max(axis=1, initial=0.0)
        return drift

    def patch(self, index: Indices, other: KKTFactor) -> None:
        """Let another factor stand for the programs at these positions."""
        if not self._patches:
            self._scale, self._shift = self._scale.copy(), self._shift.copy()
        self._scale[index], self._shift[index] = other._scale, other._shift
        self._patches.append((index, other))

    def moved(self, derivative: ProductDerivative) -> KKTFactor:
        """Return the factor for another D, near to this one's."""
        operator = self.operator.moved(derivative)
        factor = KKTFactor(operator, self._ldl, self._scale, self._shift, self._probe, self._exact)
        factor._patches = list(self._patches)
        factor.approximate = True
        return factor

    def _mended(self) -> bool:
        """Factorise again, with more regularisation, where rounding has eaten that of a pivot; say if so.

        Asked once, and only when an answer looks strange: it costs more than a factorisation of a small K.
        """
        if self._checked:
            return False
        self._checked = True
        mended = self._ldl.mend(self._shift * self._scale**2)
        others = [other._mended() for _, other in self._patches]
        return mended or any(others)

    @cached_property
    def _low_rank(self) -> LowRank | None:
        return LowRank.of(self.operator, self._back_substituted)

    def solve_regularised(self, rhs: Array, tol: float = 1e-8) -> Array:
        """Solve with the regularised K, once; shapes (B, n + m). ``tol`` is GMRES's, if it is needed."""
        if self._exact:
            return self._back_substituted(rhs)
        if self._low_rank is not None:
            z = self._low_rank.corrected(self._back_substituted(rhs))
            if np.isfinite(z).all():
                return z
            self._low_rank = None
        return self._by_gmres(rhs, tol, self._shift)

    def _by_gmres(self, rhs: Array, tol: float, shift: Array | float = 0.0) -> Array:
        """Solve with K, plus ``shift`` on its diagonal, to a relative residual of ``tol``."""
        shape = rhs.shape

        def product(z: Array) -> Array:
            stack = z.reshape(shape)
            return (self.operator.apply(stack) + shift * stack).ravel()

        def precondition(z: Array) -> Array:
            return self._back_substituted(z.reshape(shape)).ravel()

        K, M = (LinearOperator((rhs.size,) * 2, matvec=f, dtype=np.float64) for f in (product, precondition))
        z, _ = gmres(K, rhs.ravel(), rtol=tol, restart=min(_KRYLOV, rhs.size), maxiter=1, M=M)
        return z.reshape(shape)

    def _back_substituted(self, rhs: Array) -> Array:
        """Solve with what was factorised."""
        z = self._ldl.solve(rhs * self._scale) * self._scale
        for index, other in self._patches:
            z[index] = other._back_substituted(rhs[index])
        return z

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
        size = _norm(rhs)
        size[size == 0] = 1
        # GMRES needs no regularisation where K is regular, nor then refinement.
        plain = not self._exact and self._low_rank is None
        tol = max(tol, _FINE) if plain else tol
        z = self._by_gmres(rhs, tol / 2) if plain else self.solve_regularised(rhs)
        left = rhs - self.operator.apply(z)
        error = _norm(left) / size
        if not np.all(error < _STRANGE) and (self._mended() or plain):
            z = self.solve_regularised(rhs)
            left = rhs - self.operator.apply(z)
            error = _norm(left) / size
        for _ in range(steps):
            if not np.any(error > tol):
                break
            trial = z + self.solve_regularised(left)
            trial_left = rhs - self.operator.apply(trial)
            trial_error = _norm(trial_left) / size
            better = trial_error < error
            z[better], left[better] = trial[better], trial_left[better]
            enough = np.all((trial_error > error / 2) | (trial_error <= tol))
            error = np.where(better, trial_error, error)
            if enough:
                break
        if not np.all(error <= max(tol, _SOLVED)) and not self._exact and self._low_rank is not None:
            # What stands for K may be singular where K is not; GMRES does not mind.
            self._low_rank = None
            return self.solve(rhs, tol, steps)
        return z, error

    def smallest_singular_value(self) -> tuple[Array, Array]:
        """Estimate the smallest singular value of every K, scaled to rows of about one.

        Inverse iteration: where K is singular the regularised solve blows its null space up. One step, from
        a fixed random vector, rules that out for most; the others get two more, in the form
        z - (K + εJ)^-1 K z, which keeps rounding out of what is left of K z.

        Returns
        -------
        value : array, shape (B,)
        vector : array, shape (B, n + m)
            The unit vector that shows it, in unscaled coordinates (r, t); meaningful where value is small.
        """
        scale = self._scale
        z = self.solve_regularised(self._probe / scale, _COARSE) / scale
        value = 1 / _norm(z)
        if not np.all(value >= SUSPICIOUS) and self._mended():
            return self.smallest_singular_value()
        z = z * value[:, None]
        if np.any(value < SUSPICIOUS):
            for _ in range(2):
                z = z - self.solve_regularised(self.operator.apply(z * scale)) / scale
                z = z / _norm(z)[:, None]
            value = np.where(value < SUSPICIOUS, _norm(self.operator.apply(z * scale) * scale), value)
        vector = z * scale
        value = np.nan_to_num(value)  # NaN where there is no factorisation
        return value, vector / _norm(vector)[:, None]


def _norm(stack: Array) -> Array:
    """2-norms of a stack of vectors."""
    norms: Array = np.linalg.norm(stack, axis=1)
    return norms
