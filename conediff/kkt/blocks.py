r"""The blocks of K that belong to cones whose D is not diagonal: where their entries are, and their values.

Small cones have full blocks S A and D - I. Large ones with few columns of A are turned: K is formed in
coordinates in which their D is diagonal, so that D - I is a diagonal too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conediff.cones import Cone, ConeDerivative
from conediff.kkt.constants import DENSE_DIM, TURNED_COLUMNS, TURNED_WORK
from conediff.program import Array, Indices, Structure


@dataclass(frozen=True)
class Block:
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
    corner : int array, shape (count, dim (dim + 1) / 2) or (count, dim)
        Entries of K that hold the upper triangle of D - I, or its diagonal.
    is_turned : bool
        Whether K is formed in the eigenbasis of D.
    """

    group: int
    entries: Indices
    cone: Indices
    row: Indices
    starts: Indices
    targets: Indices
    corner: Indices
    is_turned: bool

    def values(self, A: Array, derivative: ConeDerivative) -> tuple[Array, Array]:
        """Return the values of ``targets`` and ``corner`` for a stack of programs.

        Parameters
        ----------
        A : array, shape (B, nnz of A) or (1, nnz of A)
        derivative : ConeDerivative
            Of the group.
        """
        if self.is_turned:
            basis = derivative.eigenbasis
            assert basis is not None
            eigenvalues = basis.eigenvalues
            product = np.empty((len(eigenvalues), self.starts.size, eigenvalues.shape[-1]))
            for k, runs, columns in self._columns(A, eigenvalues.shape[-1]):
                product[:, runs] = basis.columns(k, columns) * np.sqrt(eigenvalues[:, k, None])
            return product, eigenvalues - 1
        D, S = derivative.dense()
        i, j = self.corner_of(D.shape[-1])
        corner = D[..., i, j] - (i == j)
        if D.shape[-1] < DENSE_DIM:
            return self._sparse_product(A, S), corner
        product = np.empty((len(D), self.starts.size, D.shape[-1]))
        for k, runs, columns in self._columns(A, D.shape[-1]):
            product[:, runs] = columns @ S[:, k]
        return product, corner

    def corner_of(self, dim: int) -> tuple[Indices, Indices]:
        """Return rows and columns, within one cone, of the entries of ``corner``."""
        return (np.arange(dim), np.arange(dim)) if self.is_turned else np.triu_indices(dim)

    def _sparse_product(self, A: Array, S: Array) -> Array:
        """Return S A of many small cones, computed entry by entry; shape (B, U, dim)."""
        terms = S[:, self.cone, self.row, :] * A[:, self.entries, None]
        if self.starts.size == self.entries.size:
            return terms
        return np.add.reduceat(terms, self.starts, axis=1)

    def _columns(self, A: Array, dim: int) -> Iterator[tuple[int, Indices, Array]]:
        """Yield each cone, its runs, and its columns of A as a dense array (B, runs, dim)."""
        run = np.repeat(np.arange(self.starts.size), np.diff(np.append(self.starts, self.entries.size)))
        owner = self.cone[self.starts]
        for k in np.unique(owner):
            runs, mine = np.flatnonzero(owner == k), np.flatnonzero(self.cone == k)
            columns = np.zeros((len(A), runs.size, dim))
            columns[:, run[mine] - runs[0], self.row[mine]] = A[:, self.entries[mine]]
            yield int(k), runs, columns


def blocks_of(structure: Structure) -> tuple[Indices, list[tuple[Block, Indices]]]:
    """Split A's entries into those of cones that stay diagonal and, group by group, those of the others.

    Returns
    -------
    entries : int array
        Entries of A in cones that stay diagonal: their D is, or one eigenvalue replaces it.
    blocks : list of (Block, rows)
        One for each other group, still without positions in K.
    """
    A, m = structure.A, structure.m
    group_of, cone_of, row_of = (np.zeros(m, dtype=np.intp) for _ in range(3))
    for index, (_, rows) in enumerate(structure.cone.groups):
        group_of[rows] = index
        cone_of[rows] = np.arange(rows.shape[0])[:, None]
        row_of[rows] = np.arange(rows.shape[1])
    stays_diagonal = np.zeros(len(structure.cone.groups), dtype=bool)
    blocks = []
    for index, (cone, rows) in enumerate(structure.cone.groups):
        entries = np.flatnonzero(group_of[A.indices] == index)
        entries = entries[np.lexsort((A.columns[entries], cone_of[A.indices[entries]]))]
        owner, columns = cone_of[A.indices[entries]], A.columns[entries]
        new = np.ones(entries.size, dtype=bool)
        new[1:] = (np.diff(owner) != 0) | (np.diff(columns) != 0)
        starts, none = np.flatnonzero(new), np.zeros(0, dtype=np.intp)
        is_turned = cone.is_large and _is_worth_turning(cone, np.bincount(owner[starts]))
        stays_diagonal[index] = cone.diagonal or (cone.is_large and not is_turned)
        if not stays_diagonal[index]:
            row = row_of[A.indices[entries]]
            blocks.append((Block(index, entries, owner, row, starts, none, none, is_turned), rows))
    return np.flatnonzero(stays_diagonal[group_of[A.indices]]), blocks


def _is_worth_turning(cone: Cone, columns: Indices) -> bool:
    """Return whether K is formed in the eigenbasis of large cones with so many columns of A in each."""
    work = cone.dim * float((columns.astype(float) ** 2).sum())
    few = columns.max(initial=0) <= TURNED_COLUMNS * cone.dim
    return cone.has_eigenbasis and few and work <= TURNED_WORK
