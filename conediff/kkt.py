r"""The reduced symmetric system of the KKT residual: pattern once, values per program, factor, solve.

With D = DΠ(v) = S S, everything that Newton's method and both modes of the derivative need is one
symmetric matrix,

.. math:: K = \begin{pmatrix} P & A^\top S \\ S A & D - I \end{pmatrix},

whose sparsity depends on the structure alone. It is quasi-definite up to the null spaces of P and I - D,
so K + ε diag(I, -I) has an LDL' factorisation for every ordering; iterative refinement against K
itself takes ε out again. See Healey, Nobel, Boyd (2025) for the reduction, Vanderbei (1995) for
quasi-definite systems.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import qdldl

from conediff.cones import ProductDerivative
from conediff.structure import Array, ConeData, Indices, Pattern, Structure
from conediff.threads import Mapper

# Relative static regularisation: large enough that no pivot vanishes, small enough that two or three steps
# of refinement remove it.
REGULARISATION = 1e-9
# Rows in one block-diagonal factorisation: beyond some thousands it falls out of cache.
_PILE_ROWS = 2048
_PILE_COUNT = 64
# Above this a smallest singular value, estimated by one step, is not looked at again.
_SUSPICIOUS = 1e-6
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
    """The sparsity of K for one structure, and what fills it with values.

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
        self.indptr, self.indices, at = _compressed(places, self.size)
        self._P_at, self.diagonal_at, self._A_at = at[:3]
        self._blocks = [
            replace(block, targets=at[3 + 2 * k], corner=at[4 + 2 * k]) for k, (block, _) in enumerate(drafts)
        ]

    @property
    def nnz(self) -> int:
        """Stored entries of the upper triangle of K."""
        return int(self.indices.size)

    def values(self, data: ConeData, derivative: ProductDerivative) -> Array:
        """Fill K for a stack of programs.

        Returns
        -------
        array, shape (B, nnz)
        """
        count = max(data.count, len(derivative.margin))
        d = np.zeros((count, self.structure.m))
        for cone, rows, group in derivative.groups:
            if cone.diagonal:
                d[:, rows] = group.apply(np.ones(rows.shape))
        values = np.zeros((count, self.nnz))
        values[:, self._P_at] = data.P[:, self._P_entries]
        values[:, self._A_at] = data.A[:, self._A_entries] * d[:, self._A_rows]
        values[:, self.diagonal_at[self.structure.n :]] = d - 1
        for block in self._blocks:
            D, S = derivative.groups[block.group][2].dense()
            i, j = np.triu_indices(D.shape[-1])
            values[:, block.corner] = D[..., i, j] - (i == j)
            product = _dense_product if D.shape[-1] >= _DENSE_DIM else _sparse_product
            values[:, block.targets] = product(block, data.A, S, count)
        return values


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
        diagonal[rows] = cone.diagonal
    for index, (cone, rows) in enumerate(structure.cone.groups):
        if cone.diagonal:
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


def _compressed(
    places: list[tuple[Indices, Indices]], size: int
) -> tuple[Indices, Indices, list[Indices]]:
    """Compress (row, column) places into columns; say for each list where its entries went."""
    keys = [np.asarray(column, dtype=np.int64) * size + row for row, column in places]
    unique, inverse = np.unique(np.concatenate([key.ravel() for key in keys]), return_inverse=True)
    indptr = np.searchsorted(unique, np.arange(size + 1, dtype=np.int64) * size)
    ends = np.cumsum([key.size for key in keys])[:-1]
    at = [part.reshape(key.shape) for part, key in zip(np.split(inverse, ends), keys, strict=True)]
    return indptr.astype(np.int32), (unique % size).astype(np.int32), at


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


class _PileSolver:
    """QDLDL on a block diagonal of ``count`` copies of K; the symbolic analysis is made once."""

    def __init__(self, pattern: KKTPattern, count: int) -> None:
        self.count = count
        stacked = Pattern((pattern.size,) * 2, pattern.indptr, pattern.indices).stacked(count)
        self.matrix = stacked.matrix(np.zeros(stacked.nnz))
        self._solver: qdldl.Solver | None = None

    def factor(self, values: Array) -> None:
        """Factorise K with these values, shape (count * nnz,)."""
        self.matrix.data = values
        if self._solver is None:
            self._solver = qdldl.Solver(self.matrix, upper=True)
        else:
            self._solver.update(self.matrix, upper=True)

    def solve(self, rhs: Array) -> Array:
        """Solve for a right-hand side of shape (count * size,)."""
        assert self._solver is not None
        solution: Array = self._solver.solve(rhs)
        return solution


class KKT:
    """Factorises stacks of K of one structure; keeps the symbolic analyses.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.pattern = KKTPattern(structure)
        self._free: dict[int, list[_PileSolver]] = {}

    def factor(
        self,
        data: ConeData,
        derivative: ProductDerivative,
        regularisation: Array | float = REGULARISATION,
        mapper: Mapper = map,
    ) -> KKTFactor:
        """Factorise the regularised K of every program of a stack.

        Parameters
        ----------
        data : ConeData
        derivative : ProductDerivative
            D and S at the programs' v.
        regularisation : float or array, shape (B,)
            Relative to K when its rows are scaled to largest entries of about one.
        mapper : callable
            Like the built-in ``map``; may run in threads.
        """
        values = self.pattern.values(data, derivative)
        scale = self._scale(values)
        pattern = self.pattern
        columns = np.repeat(np.arange(pattern.size), np.diff(pattern.indptr))
        values *= scale[:, pattern.indices]
        values *= scale[:, columns]
        values[:, pattern.diagonal_at] += np.reshape(regularisation, (-1, 1)) * pattern.sign
        operator = KKTOperator(pattern.structure, data, derivative)
        return KKTFactor(self, operator, values, scale, mapper)

    def _scale(self, values: Array) -> Array:
        """Scale rows and columns by the root of their largest entry, once: Ruiz's first step."""
        order, starts = self._entries_by_row
        largest = np.maximum.reduceat(np.abs(values)[:, order], starts, axis=1)
        largest[largest == 0] = 1
        return 1 / np.sqrt(largest)

    @cached_property
    def _entries_by_row(self) -> tuple[Indices, Indices]:
        """Entries of the full symmetric K, row by row: places in the upper triangle, and row starts."""
        pattern = self.pattern
        columns = np.repeat(np.arange(pattern.size), np.diff(pattern.indptr))
        rows = np.concatenate([pattern.indices, columns])
        order = np.argsort(rows, kind="stable")
        starts = np.searchsorted(rows[order], np.arange(pattern.size))
        return order % pattern.nnz, starts

    def borrow(self, count: int) -> _PileSolver:
        """Take a solver for a pile of ``count`` programs, analysed before if one is free."""
        try:
            return self._free[count].pop()
        except (KeyError, IndexError):
            return _PileSolver(self.pattern, count)

    def give_back(self, solver: _PileSolver) -> None:
        """Let others use a solver whose factorisation is no longer needed."""
        self._free.setdefault(solver.count, []).append(solver)


class KKTFactor:
    """LDL' of the regularised K for every program of a stack.

    The number of programs in a pile depends on the structure and the stack only, never on threads, so
    that results do not either.
    """

    def __init__(
        self, kkt: KKT, operator: KKTOperator, values: Array, scale: Array, mapper: Mapper
    ) -> None:
        self.operator = operator
        self._kkt, self._scale, self._map = kkt, scale, mapper
        self._piles = _piles(len(values), kkt.pattern.size)
        self._solvers = list(mapper(lambda pile: self._factor(values, *pile), self._piles))

    def __del__(self) -> None:
        for solver in getattr(self, "_solvers", ()):
            self._kkt.give_back(solver)

    def _factor(self, values: Array, part: slice, count: int) -> _PileSolver:
        solver = self._kkt.borrow(count)
        solver.factor(_padded(values[part], count).ravel())
        return solver

    def solve_regularised(self, rhs: Array) -> Array:
        """Solve with the regularised K, once; shapes (B, n + m)."""
        rhs = rhs * self._scale

        def one(job: tuple[tuple[slice, int], _PileSolver]) -> Array:
            (part, count), solver = job
            solution = solver.solve(_padded(rhs[part], count).ravel())
            return solution.reshape(count, -1)[: len(rhs[part])]

        parts = list(self._map(one, zip(self._piles, self._solvers, strict=True)))
        return np.concatenate(parts) * self._scale

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
        start = np.random.default_rng(0).standard_normal(scale.shape[1])
        z = self.solve_regularised(np.broadcast_to(start / np.linalg.norm(start), scale.shape) / scale) / scale
        value = 1 / _norm(z)
        z = z * value[:, None]
        if np.any(value < _SUSPICIOUS):
            for _ in range(2):
                z = z - self.solve_regularised(self.operator.apply(z * scale)) / scale
                z = z / _norm(z)[:, None]
            value = np.where(value < _SUSPICIOUS, _norm(self.operator.apply(z * scale) * scale), value)
        vector = z * scale
        return value, vector / _norm(vector)[:, None]


def _norm(stack: Array) -> Array:
    """2-norms of a stack of vectors."""
    norms: Array = np.linalg.norm(stack, axis=1)
    return norms


def _piles(total: int, size: int) -> list[tuple[slice, int]]:
    """Cut a stack into piles; each is padded to a power of two, so that few analyses serve all."""
    full = 1
    while 2 * full * size <= _PILE_ROWS and full < _PILE_COUNT:
        full *= 2
    result = []
    for start in range(0, total, full):
        length = min(full, total - start)
        result.append((slice(start, start + length), 1 << (length - 1).bit_length()))
    return result


def _padded(rows: Array, count: int) -> Array:
    """Repeat the last row until there are ``count``."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)]) if len(rows) < count else rows
