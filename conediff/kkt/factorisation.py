r"""The factorised matrix of a stack of programs: K or a matrix near it, scaled and regularised.

K is quasi-definite up to the null spaces of P and I - D, so K + ε diag(I, -I) has an LDL' factorisation for
every ordering (Vanderbei 1995). With a diagonal matrix E that scales rows and columns,

.. math:: L \Lambda L^\top = E K E + \epsilon\,\mathrm{diag}(I, -I).

In large cones that are turned (see `blocks`) K is meant in the coordinates of D's eigenbasis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from conediff.cones import ProductDerivative
from conediff.kkt.ldl import StackLDL
from conediff.program import Array, Indices


@dataclass(frozen=True, eq=False)
class Factorisation:
    """LDL' of what is near K, for every program of a stack; immutable.

    Parameters
    ----------
    ldl : StackLDL
    scale, shift : arrays, shape (B, n + m)
        E, and what regularisation adds to the diagonal of the unscaled K.
    derivative : ProductDerivative
        D and S at the points at which K was formed.
    replaced : tuple of (int array, Factorisation)
        Programs for which a later factorisation serves; the last one counts.
    is_repaired : bool
        Whether its pivots have been checked already.
    turned : tuple of int
        Groups of cones whose rows are in the eigenbasis of D.
    """

    ldl: StackLDL
    scale: Array
    shift: Array
    derivative: ProductDerivative
    replaced: tuple[tuple[Indices, Factorisation], ...] = ()
    is_repaired: bool = False
    turned: tuple[int, ...] = ()

    def solve(self, rhs: Array) -> Array:
        """Solve with the factorised matrix by back substitution, shapes (B, n + m)."""
        z = self.out_of_scaled(self.ldl.solve(self.into_scaled(rhs)))
        for index, other in self.replaced:
            z[index] = other.solve(rhs[index])
        return z

    def into_scaled(self, rhs: Array) -> Array:
        """Return a right-hand side of the scaled matrix, from one of K; shapes (B, n + m)."""
        return self._turned(rhs, back=False) * self.scale

    def out_of_scaled(self, z: Array) -> Array:
        """Return a solution of a system with K, from one with the scaled matrix; shapes (B, n + m)."""
        return self._turned(z * self.scale, back=True)

    def turned_product(self, diagonal: Array | float, z: Array) -> Array:
        """Return a diagonal, given in the coordinates of the factorised matrix, times z."""
        return self._turned(diagonal * self._turned(z, back=False), back=True)

    def scaled_inverse(self, z: Array, inverse: Callable[[Array], Array]) -> Array:
        """Return the scaled form of an ``inverse`` of a matrix near K; shapes (B, n + m)."""
        return self._turned(inverse(self._turned(z / self.scale, back=True)), back=False) / self.scale

    def _turned(self, z: Array, back: bool) -> Array:
        """Return z with the rows of turned cones in the eigenbasis, or from there ``back``."""
        if not self.turned:
            return z
        z, n = z.copy(), z.shape[-1] - self.derivative.cone.dim
        for group in self.turned:
            _, rows, derivative = self.derivative.groups[group]
            basis = derivative.eigenbasis
            assert basis is not None
            z[..., n + rows] = (basis.out_of if back else basis.into)(z[..., n + rows])
        return z

    def with_rows_from(self, index: Indices, other: Factorisation) -> Factorisation:
        """Return a factorisation that uses another one for the programs at these positions."""
        scale, shift = self.scale.copy(), self.shift.copy()
        scale[index], shift[index] = other.scale, other.shift
        return replace(self, scale=scale, shift=shift, replaced=(*self.replaced, (index, other)))

    def with_increased_regularisation(self) -> Factorisation | None:
        """Refactorise with more regularisation if a pivot has the wrong sign; None if none has."""
        if self.is_repaired:
            return None
        ldl = self.ldl.with_increased_regularisation(self.shift * self.scale**2)
        others = [(index, other.with_increased_regularisation()) for index, other in self.replaced]
        if ldl is None and all(other is None for _, other in others):
            return None
        replaced = tuple(
            (index, new or old) for (index, new), (_, old) in zip(others, self.replaced, strict=True)
        )
        return replace(self, ldl=ldl or self.ldl, replaced=replaced, is_repaired=True)

    def projection_change(self, derivative: ProductDerivative, signs: Array) -> Array:
        """Return the largest change of S w since, with w (m,) of random signs; shape (B,)."""
        now = derivative.apply_root(signs)
        change: Array = np.abs(now - self.derivative.apply_root(signs)).max(axis=1, initial=0.0)
        for index, other in self.replaced:
            change[index] = np.abs(now[index] - other.derivative.apply_root(signs)).max(axis=1, initial=0.0)
        return change
