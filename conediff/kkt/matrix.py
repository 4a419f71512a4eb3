r"""The reduced symmetric system of the KKT residual: its sparsity once, its values for every program.

With D = DΠ(v) = S S, everything that Newton's method and both modes of the derivative need is one
symmetric matrix,

.. math:: K = \begin{pmatrix} P & A^\top S \\ S A & D - I \end{pmatrix},

whose sparsity depends on the structure alone (Healey, Nobel, Boyd 2025). Where Π of a cone has a dense
derivative, S A fills a block of K. In large cones that would blow K up: there the matrix that is formed has
one eigenvalue of D in place of D, and K itself is known as an operator only.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from conediff.cones import Cone, ProductDerivative, SecondOrder
from conediff.cones.base import ConeDerivative
from conediff.cones.second_order import SecondOrderDerivative
from conediff.program import Array, ConeData, Indices, Structure, union

# Cones of more rows than this are not filled into K. For a second-order cone what is formed in its place
# differs from K by a low rank, so that it pays early; for the others GMRES may take hundreds of steps.
LARGE = 500
LARGE_SECOND_ORDER = 100
# Cones of this size are multiplied with A as dense blocks, smaller ones entry by entry.
_DENSE_DIM = 12


class KKTOperator:
    """K of a stack of programs as a product, never formed.

    Parameters
    ----------
    structure : Structure
    data : ConeData
    derivative : ProductDerivative
        D and S at v, for the same stack.
    """

    def __init__(self, structure: Structure, data: ConeData, derivative: ProductDerivative) -> None:
        self.n = structure.n
        self.P = structure.P.products(data.P)[0]
        self.A, self.At = structure.A.products(data.A)
        self.derivative = derivative

    def with_derivative(self, derivative: ProductDerivative) -> KKTOperator:
        """Return K of the same data at another D."""
        operator = copy(self)
        operator.derivative = derivative
        return operator

    def apply(self, z: Array) -> Array:
        """Return K z for z = (r, t), shape (B, n + m)."""
        r, t = z[:, : self.n], z[:, self.n :]
        root = self.derivative.apply_root
        spread = root(t)
        return np.hstack([self.P(r) + self.At(spread), root(self.A(r) + spread) - t])


@dataclass(frozen=True)
class _Block:
    """Where the entries of one group of cones stand, in A and in K.

    ``entries`` (E,) index A's values, sorted by cone and column; ``cone`` and ``row`` say to which cone
    of the group, and to which row of it, each belongs; ``starts`` (U,) begin the runs of one cone and
    column, whose products with S go to ``targets`` (U, dim) of K. The upper triangle of D - I goes to
    ``corner`` (count, dim (dim + 1) / 2).
    """

    group: int
    entries: Indices
    cone: Indices
    row: Indices
    starts: Indices
    targets: Indices
    corner: Indices


class KKTPattern:
    """The sparsity of K's upper triangle for one structure, and what fills it with values.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        n, P, A = structure.n, structure.P, structure.A
        self.size = n + structure.m
        self.sign = np.where(np.arange(self.size) < n, 1.0, -1.0)
        # Upper triangle by upper triangle: P, the diagonal, the rows of A in diagonal cones, the blocks.
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
        """Whether the matrix is K itself: no cone is large."""
        return not any(is_large(cone) for cone, _ in self.structure.cone.groups)

    @property
    def nnz(self) -> int:
        """Stored entries of the upper triangle of K."""
        return int(self.indices.size)

    def values(self, data: ConeData, derivative: ProductDerivative) -> Array:
        """Fill K, or what stands for it, for a stack of programs.

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
            product = _dense_product if D.shape[-1] >= _DENSE_DIM else _sparse_product
            values[:, block.targets] = product(block, data.A, S, count)
        return values

    def _diagonal(self, derivative: ProductDerivative) -> Array:
        """D's diagonal, or what stands for it, where K's sparsity has no more; shape (B, m)."""
        if derivative.diagonal is not None:
            return derivative.diagonal
        d = np.zeros((*derivative.batch, self.structure.m))
        for cone, rows, group in derivative.groups:
            if cone.diagonal:
                d[:, rows] = group.apply(np.ones(rows.shape))
            elif is_large(cone):
                d[:, rows] = _usual_eigenvalue(group, rows.shape)
        return d


def is_large(cone: Cone) -> bool:
    """Whether the blocks of these cones are not filled into K."""
    limit = LARGE_SECOND_ORDER if isinstance(cone, SecondOrder) else LARGE
    return not cone.diagonal and cone.dim > limit


def _stays_diagonal(cone: Cone) -> bool:
    return cone.diagonal or is_large(cone)


def _usual_eigenvalue(group: ConeDerivative, shape: tuple[int, int]) -> Array:
    """An eigenvalue that stands for all of every D, shape (B, count, 1).

    That of second-order cones which has all multiplicity but two: so what is formed differs from K by a
    matrix of low rank. Otherwise the mean, estimated by one vector of random signs (Hutchinson).
    """
    if isinstance(group, SecondOrderDerivative):
        return group.around[..., None]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], shape)
    mean: Array = np.clip((signs * group.apply(signs)).mean(axis=-1, keepdims=True), 0, 1)
    return mean


def _split(structure: Structure) -> tuple[Indices, Indices, list[tuple[_Block, Indices]]]:
    """Sort A's entries into those of diagonal cones and, group by group, those of the others."""
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
    """S A of many small cones, entry by entry; shape (B, U, dim)."""
    terms = S[:, block.cone, block.row, :] * A[:, block.entries, None]
    if block.starts.size == block.entries.size:
        return terms
    return np.add.reduceat(terms, block.starts, axis=1)


def _dense_product(block: _Block, A: Array, S: Array, count: int) -> Array:
    """S A of a few large cones, cone by cone; shape (B, U, dim)."""
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
