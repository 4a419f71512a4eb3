r"""The reduced symmetric KKT matrix K: its sparsity, once for a structure, and its values for every program.

With D = DΠ(v) = S S, Newton's method and both modes of the derivative solve linear systems with one symmetric
matrix,

.. math:: K = \begin{pmatrix} P & A^\top S \\ S A & D - I \end{pmatrix},

whose sparsity depends on the structure alone (Healey, Nobel, Boyd 2025). For every cone whose D is dense, S A
fills a block of K. Blocks of large cones (`Cone.is_large`) are not formed: the matrix K₀ that is formed has a
I in place of such a block of D, with one eigenvalue a, and K itself is only applied to vectors.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from conediff.cones import Cone, ProductDerivative
from conediff.kkt.constants import DENSE_DIM
from conediff.program import Array, ConeData, Indices, Structure, union


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
        """Return K z for z = (r, t), shape (B, n + m)."""
        r, t = z[:, : self.n], z[:, self.n :]
        root = self.derivative.apply_root
        St = root(t)
        return np.hstack([self.P(r) + self.At(St), root(self.A(r) + St) - t])


@dataclass(frozen=True)
class _Block:
    """Positions of the entries of one group of cones, in A and in K.

    Parameters
    ----------
    group : int
        Index of the group in `ProductCone.groups`.
    entries : int array, shape (E,)
        Entries of A in the rows of the group, sorted by cone and column.
    cone, row : int arrays, shape (E,)
        The cone of the group that each belongs to, and the row within that cone.
    starts : int array, shape (U,)
        Where a run of entries of one cone and column begins.
    targets : int array, shape (U, dim)
        Entries of K that hold the product of S with each run.
    corner : int array, shape (count, dim (dim + 1) / 2)
        Entries of K that hold the upper triangle of D - I.
    """

    group: int
    entries: Indices
    cone: Indices
    row: Indices
    starts: Indices
    targets: Indices
    corner: Indices


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
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        n, P, A = structure.n, structure.P, structure.A
        self.size = n + structure.m
        self.sign = np.where(np.arange(self.size) < n, 1.0, -1.0)
        # In this order: the upper triangle of P, the diagonal, rows of A in diagonal cones, blocks of others.
        self._P_entries = np.flatnonzero(P.indices <= P.columns)
        self._A_entries, self._A_rows, drafts = _split(structure)
        diagonal = np.arange(self.size)
        places = [
            (P.indices[self._P_entries], P.columns[self._P_entries]),
            (diagonal, diagonal),
            (A.columns[self._A_entries], n + A.indices[self._A_entries]),
        ]
        for block, rows in drafts:
            i, j = np.triu_indices(rows.shape[1])
            columns = A.columns[block.entries[block.starts]]
            places.append((columns[:, None], n + rows[block.cone[block.starts]]))
            places.append((n + rows[:, i], n + rows[:, j]))
        pattern, at = union((self.size, self.size), places)
        self.indptr, self.indices = pattern.indptr, pattern.indices
        self.columns = np.repeat(diagonal, np.diff(self.indptr))
        self._P_at, self.diagonal_at, self._A_at = at[:3]
        self._blocks = [
            replace(block, targets=at[3 + 2 * k], corner=at[4 + 2 * k]) for k, (block, _) in enumerate(drafts)
        ]

    @property
    def exact(self) -> bool:
        """Whether the matrix is K itself, because no cone is large."""
        return not any(cone.is_large for cone, _ in self.structure.cone.groups)

    @cached_property
    def elimination_work(self) -> float:
        """Operations that eliminate the formed blocks of cones, estimated.

        A cone of d rows and k columns takes d k², and d³ / 3 for its own block.
        """
        work = 0.0
        for block in self._blocks:
            columns = np.bincount(block.cone[block.starts]).astype(float)
            rows, count = block.targets.shape[1], len(block.corner)
            work += rows * float((columns**2).sum()) + count * rows**3 / 3
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
            D, S = derivative.groups[block.group][2].dense()
            i, j = np.triu_indices(D.shape[-1])
            values[:, block.corner] = D[..., i, j] - (i == j)
            product = _dense_product if D.shape[-1] >= DENSE_DIM else _sparse_product
            values[:, block.targets] = product(block, data.A, S, count)
        return values

    def _diagonal(self, derivative: ProductDerivative) -> Array:
        """D's diagonal in diagonal cones, and the replacement eigenvalue in large ones; shape (B, m)."""
        if derivative.diagonal is not None:
            return derivative.diagonal
        d = np.zeros((*derivative.batch, self.structure.m))
        for cone, rows, group in derivative.groups:
            if cone.diagonal:
                d[:, rows] = group.apply(np.ones(rows.shape))
            elif cone.is_large:
                d[:, rows] = group.replacement_eigenvalue(rows.shape)
        return d


def _stays_diagonal(cone: Cone) -> bool:
    """Whether the rows of these cones have a diagonal block in the matrix that is formed."""
    return cone.diagonal or cone.is_large


def _split(structure: Structure) -> tuple[Indices, Indices, list[tuple[_Block, Indices]]]:
    """Split A's entries into those of cones that stay diagonal and, group by group, those of the others.

    Returns
    -------
    entries, rows : int arrays
        Entries of A in cones that stay diagonal, and their rows.
    drafts : list of (_Block, rows)
        One for each other group, still without positions in K.
    """
    A, m = structure.A, structure.m
    group_of, cone_of, row_of = (np.zeros(m, dtype=np.intp) for _ in range(3))
    diagonal = np.zeros(m, dtype=bool)
    drafts = []
    for index, (cone, rows) in enumerate(structure.cone.groups):
        group_of[rows] = index
        cone_of[rows] = np.arange(rows.shape[0])[:, None]
        row_of[rows] = np.arange(rows.shape[1])
        diagonal[rows] = _stays_diagonal(cone)
    for index, (cone, rows) in enumerate(structure.cone.groups):
        if _stays_diagonal(cone):
            continue
        entries = np.flatnonzero(group_of[A.indices] == index)
        entries = entries[np.lexsort((A.columns[entries], cone_of[A.indices[entries]]))]
        owner, columns = cone_of[A.indices[entries]], A.columns[entries]
        new = np.ones(entries.size, dtype=bool)
        new[1:] = (np.diff(owner) != 0) | (np.diff(columns) != 0)
        none = np.zeros(0, dtype=np.intp)
        block = _Block(index, entries, owner, row_of[A.indices[entries]], np.flatnonzero(new), none, none)
        drafts.append((block, rows))
    entries = np.flatnonzero(diagonal[A.indices])
    return entries, A.indices[entries], drafts


def _sparse_product(block: _Block, A: Array, S: Array, count: int) -> Array:
    """Return S A of many small cones, computed entry by entry; shape (B, U, dim)."""
    terms = S[:, block.cone, block.row, :] * A[:, block.entries, None]
    if block.starts.size == block.entries.size:
        return terms
    return np.add.reduceat(terms, block.starts, axis=1)


def _dense_product(block: _Block, A: Array, S: Array, count: int) -> Array:
    """Return S A of a few larger cones, computed cone by cone; shape (B, U, dim)."""
    result = np.empty((count, block.starts.size, S.shape[-1]))
    run = np.repeat(np.arange(block.starts.size), np.diff(np.append(block.starts, block.entries.size)))
    owner = block.cone[block.starts]
    for cone in np.unique(owner):
        runs = np.flatnonzero(owner == cone)
        mine = np.flatnonzero(block.cone == cone)
        columns = np.zeros((len(A), runs.size, S.shape[-1]))
        columns[:, run[mine] - runs[0], block.row[mine]] = A[:, block.entries[mine]]
        result[:, runs] = columns @ S[:, cone]
    return result
