"""The reduced symmetric system K (see `matrix`), scaled, regularised and factorised (`factorisation`)."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from conediff.cones import ProductDerivative
from conediff.kkt.constants import REGULARISATION, ROUNDING
from conediff.kkt.factor import KKTFactor
from conediff.kkt.factorisation import Factorisation
from conediff.kkt.ldl import Solvers, StackLDL
from conediff.kkt.matrix import KKTOperator, KKTPattern
from conediff.program import Array, ConeData, Indices, Structure


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
        ldl = StackLDL.factor(self.solvers, values)
        factorisation = Factorisation(ldl, scale, shift / scale**2, derivative, turned=pattern.turned)
        return KKTFactor(operator, factorisation, self.probe, pattern.exact)

    def _scale(self, values: Array) -> Array:
        """Return the root of the largest entry of every row, inverted: one step of Ruiz's equilibration."""
        order, starts = self._entries_by_row
        largest = np.maximum.reduceat(np.abs(values).take(order, axis=1), starts, axis=1)
        # A row of S A and I - D that is all rounding errors must not be amplified.
        n = self.pattern.structure.n
        largest[:, n:][largest[:, n:] < ROUNDING] = 1
        largest[largest == 0] = 1
        return 1 / np.sqrt(largest)

    @cached_property
    def probe(self) -> Array:
        """A fixed random unit vector, shape (n + m,)."""
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
