r"""The reduced symmetric KKT matrix K: its sparsity, once for a structure, and its values for every program.

With D = DΠ(v) = S S, Newton's method and both modes of the derivative solve linear systems with one symmetric
matrix,

.. math:: K = \begin{pmatrix} P & A^\top S \\ S A & D - I \end{pmatrix},

whose sparsity depends on the structure alone (Healey, Nobel, Boyd 2025). For every cone whose D is dense, S A
fills a block of K. For large cones (`Cone.is_large`) D - I would be too large a block. Where there are
coordinates in which D is diagonal (`Eigenbasis`), and few columns of A in the cone, K is formed in these
coordinates. Otherwise the matrix K₀ that is formed has a I in place of the block of D, with one eigenvalue a,
and K itself is only applied to vectors.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property

import numpy as np

from conediff.cones import ProductDerivative
from conediff.kkt.blocks import blocks_of
from conediff.program import Array, ConeData, Structure, union


class KKTOperator:
    """K of a stack of programs, applied to vectors without being formed.

    Parameters
    ----------
    structure : Structure
    data : ConeData
    derivative : ProductDerivative
        D and S of the same programs.
    """

    def __init__(self, structure: Structure, data: ConeData, derivative: ProductDerivative) -> None:
        self.n = structure.n
        self.P = structure.P.products(data.P)[0]
        self.A, self.At = structure.A.products(data.A)
        self.derivative = derivative

    def with_derivative(self, derivative: ProductDerivative) -> KKTOperator:
        """Return K of the same data with another D."""
        operator = copy(self)
        operator.derivative = derivative
        return operator

    def apply(self, z: Array) -> Array:
        """Return K z for z = (r, t), shape (..., B, n + m)."""
        r, t = z[..., : self.n], z[..., self.n :]
        root = self.derivative.apply_root
        St = root(t)
        return np.concatenate([self.P(r) + self.At(St), root(self.A(r) + St) - t], axis=-1)


class KKTPattern:
    """The sparsity of the upper triangle of K (or K₀, if cones are large) for one structure, and its values.

    Parameters
    ----------
    structure : Structure

    Attributes
    ----------
    size : int
        n + m.
    sign : array, shape (n + m,)
        Signs of the pivots of K: n times 1, then m times -1.
    indptr, indices, columns : int arrays
        The sparsity, by columns: starts of columns, and row and column of each entry.
    diagonal_at : int array, shape (n + m,)
        Positions of the diagonal entries.
    turned : tuple of int
        Groups whose rows are in the eigenbasis of D.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        n, P, A = structure.n, structure.P, structure.A
        self.size = n + structure.m
        self.sign = np.where(np.arange(self.size) < n, 1.0, -1.0)
        # In this order: the upper triangle of P, the diagonal, rows of A in diagonal cones, blocks of others.
        self._P_entries = np.flatnonzero(P.indices <= P.columns)
        self._A_entries, drafts = blocks_of(structure)
        self._A_rows = A.indices[self._A_entries]
        diagonal = np.arange(self.size)
        places = [
            (P.indices[self._P_entries], P.columns[self._P_entries]),
            (diagonal, diagonal),
            (A.columns[self._A_entries], n + A.indices[self._A_entries]),
        ]
        for block, rows in drafts:
            i, j = block.corner_of(rows.shape[1])
            columns = A.columns[block.entries[block.starts]]
            places.append((columns[:, None], n + rows[block.cone[block.starts]]))
            places.append((n + rows[:, i], n + rows[:, j]))
        pattern, at = union((self.size, self.size), places)
        self.indptr, self.indices = pattern.indptr, pattern.indices
        self.columns = np.repeat(diagonal, np.diff(self.indptr))
        self._P_at, self.diagonal_at, self._A_at = at[:3]
        self.turned = tuple(block.group for block, _ in drafts if block.is_turned)
        self._blocks = [
            replace(block, targets=at[3 + 2 * k], corner=at[4 + 2 * k]) for k, (block, _) in enumerate(drafts)
        ]

    @property
    def exact(self) -> bool:
        """Whether the matrix is K itself, because the blocks of all cones are formed."""
        large = [group for group, (cone, _) in enumerate(self.structure.cone.groups) if cone.is_large]
        return set(large) == set(self.turned)

    @cached_property
    def elimination_work(self) -> float:
        """Operations that eliminate the formed blocks of cones, estimated.

        A cone of d rows and k columns takes d k², and d³ / 3 for its own block if that is not diagonal.
        """
        work = 0.0
        for block in self._blocks:
            columns = np.bincount(block.cone[block.starts]).astype(float)
            rows, count = block.targets.shape[1], len(block.corner)
            work += rows * float((columns**2).sum())
            if not block.is_turned:
                work += count * rows**3 / 3
        return work

    @property
    def nnz(self) -> int:
        """Number of stored entries of the upper triangle."""
        return int(self.indices.size)

    def values(self, data: ConeData, derivative: ProductDerivative) -> Array:
        """Compute the values of K, or of K₀ if cones are large, for a stack of programs.

        Returns
        -------
        array, shape (B, nnz)
        """
        d = self._diagonal(derivative)
        count = len(d)
        values = np.zeros((count, self.nnz))
        values[:, self._P_at] = data.P.take(self._P_entries, axis=1)
        values[:, self._A_at] = data.A.take(self._A_entries, axis=1) * np.sqrt(d).take(self._A_rows, axis=1)
        values[:, self.diagonal_at[self.structure.n :]] = d - 1
        for block in self._blocks:
            values[:, block.targets], values[:, block.corner] = block.values(
                data.A, derivative.groups[block.group][2]
            )
        return values

    def _diagonal(self, derivative: ProductDerivative) -> Array:
        """D's diagonal in diagonal cones, and the replacement eigenvalue in large ones; shape (B, m)."""
        if derivative.diagonal is not None:
            return derivative.diagonal
        d = np.zeros((*derivative.batch, self.structure.m))
        for index, (cone, rows, group) in enumerate(derivative.groups):
            if cone.diagonal:
                d[:, rows] = group.apply(np.ones(rows.shape))
            elif cone.is_large and index not in self.turned:
                d[:, rows] = group.replacement_eigenvalue(rows.shape)
        return d
