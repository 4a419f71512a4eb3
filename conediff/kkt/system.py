r"""The reduced symmetric system K (see `reduced`), scaled, regularised and factorised.

K is quasi-definite up to the null spaces of P and I - D, so K + ε diag(I, -I) has an LDL' factorisation for
every ordering (Vanderbei 1995); iterative refinement against K itself takes ε out again. With large
cones the factorised matrix only stands for K (see `factor`).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from conediff.cones import ProductDerivative
from conediff.kkt.factor import KKTFactor
from conediff.kkt.ldl import Solvers, StackLDL
from conediff.kkt.matrix import KKTOperator, KKTPattern
from conediff.program import Array, ConeData, Indices, Structure

# Relative static regularisation: large enough that no pivot vanishes, small enough that two or three steps
# of refinement remove it.
REGULARISATION = 1e-9
# Below this an entry of S A or I - D is rounding.
_ROUNDING = 1e-14


class KKTSystem:
    """Factorises stacks of K of one structure; keeps the symbolic analyses.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.pattern = KKTPattern(structure)
        self.solvers = Solvers(self.pattern)

    def factor(
        self,
        data: ConeData,
        derivative: ProductDerivative,
        regularisation: Array | float = REGULARISATION,
    ) -> KKTFactor:
        """Factorise the regularised K of every program of a stack.

        Parameters
        ----------
        data : ConeData
        derivative : ProductDerivative
            D and S at the programs' v.
        regularisation : float or array, shape (B,)
            Relative to K when its rows are scaled to largest entries of about one.
        """
        values = self.pattern.values(data, derivative)
        scale = self._scale(values)
        pattern = self.pattern
        values *= scale.take(pattern.indices, axis=1)
        values *= scale.take(pattern.columns, axis=1)
        shift = np.broadcast_to(np.reshape(regularisation, (-1, 1)) * pattern.sign, scale.shape)
        values[:, pattern.diagonal_at] += shift
        operator = KKTOperator(pattern.structure, data, derivative)
        ldl = StackLDL(self.solvers, values)
        return KKTFactor(operator, ldl, scale, shift / scale**2, self.probe, pattern.exact)

    def _scale(self, values: Array) -> Array:
        """Scale rows and columns by the root of their largest entry, once: Ruiz's first step."""
        order, starts = self._entries_by_row
        largest = np.maximum.reduceat(np.abs(values).take(order, axis=1), starts, axis=1)
        # A row of S A and I - D that is all rounding (D has entries of about one) is not to be blown up.
        n = self.pattern.structure.n
        largest[:, n:][largest[:, n:] < _ROUNDING] = 1
        largest[largest == 0] = 1
        return 1 / np.sqrt(largest)

    @cached_property
    def probe(self) -> Array:
        """A random unit vector, always the same, shape (n + m,)."""
        vector = np.random.default_rng(0).standard_normal(self.pattern.size)
        probe: Array = vector / np.linalg.norm(vector)
        return probe

    @cached_property
    def _entries_by_row(self) -> tuple[Indices, Indices]:
        """Entries of the full symmetric K, row by row: places in the upper triangle, and row starts."""
        pattern = self.pattern
        rows = np.concatenate([pattern.indices, pattern.columns])
        order = np.argsort(rows, kind="stable")
        starts = np.searchsorted(rows[order], np.arange(pattern.size))
        return order % pattern.nnz, starts
