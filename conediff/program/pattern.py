"""The sparsity pattern that all matrices of a stack share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.program.constants import CACHED_BLOCK_DIAGONALS, DENSE_MINIMUM, DENSE_RATIO

Array = NDArray[np.float64]
Indices = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Sparsity of a matrix in compressed columns, with sorted rows within each column.

    Parameters
    ----------
    shape : tuple of int
    indptr : int array, shape (columns + 1,)
    indices : int array, shape (nnz,)
    """

    shape: tuple[int, int]
    indptr: Indices
    indices: Indices

    @classmethod
    def of(cls, matrix: sp.csc_array) -> Pattern:
        """Return the pattern of a CSC matrix whose indices are sorted and unique."""
        shape = (int(matrix.shape[0]), int(matrix.shape[1]))
        return cls(shape, matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.indices.size)

    @cached_property
    def columns(self) -> Indices:
        """Column of every stored entry, shape (nnz,); `indices` has the rows."""
        return np.repeat(np.arange(self.shape[1], dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def mirror(self) -> Indices:
        """Position of entry (j, i) for every stored entry (i, j) of a symmetric pattern, shape (nnz,)."""
        return np.lexsort((self.columns, self.indices))

    @cached_property
    def _is_dense(self) -> bool:
        """Whether products with dense matrices are faster."""
        return self.shape[0] * self.shape[1] <= DENSE_RATIO * self.nnz + DENSE_MINIMUM

    @cached_property
    def _flat(self) -> Indices:
        """Flat position of every stored entry in a dense matrix, in C order."""
        return self.indices.astype(np.intp) * self.shape[1] + self.columns

    @cached_property
    def _blank(self) -> tuple[sp.csc_array, sp.csr_array]:
        """The matrix and its transpose with zero values; SciPy checks the indices here, not in copies."""
        matrix = sp.csc_array((np.zeros(self.nnz), self.indices, self.indptr), shape=self.shape)
        matrix.has_sorted_indices = True
        transposed = matrix.T
        transposed.has_sorted_indices = True
        return matrix, transposed

    def matrix(self, values: Array) -> sp.csc_array:
        """Return the CSC matrix with these values, shape (nnz,)."""
        matrix = copy(self._blank[0])
        matrix.data = values
        return matrix

    def transposed(self, values: Array) -> sp.csr_array:
        """Return the transposed matrix with these values, shape (nnz,), in compressed rows."""
        matrix = copy(self._blank[1])
        matrix.data = values
        return matrix

    @cached_property
    def _block_diagonals(self) -> dict[int, Pattern]:
        return {}

    def block_diagonal(self, count: int) -> Pattern:
        """Return the pattern of ``count`` copies down a block diagonal; the last few patterns are cached."""
        if count == 1:
            return self
        found = self._block_diagonals.get(count)
        if found is None:
            if len(self._block_diagonals) >= CACHED_BLOCK_DIAGONALS:
                self._block_diagonals.clear()
            found = self._block_diagonals[count] = self._build_block_diagonal(count)
        return found

    def _build_block_diagonal(self, count: int) -> Pattern:
        rows, columns = self.shape
        copies = np.arange(count, dtype=np.int32)[:, None]
        indices = (self.indices + copies * rows).ravel().astype(np.int32)
        starts = (self.indptr[:-1] + copies * self.nnz).ravel()
        indptr = np.append(starts, count * self.nnz).astype(np.int32)
        return Pattern((count * rows, count * columns), indptr, indices)

    def __reduce__(self) -> tuple[type[Pattern], tuple[Any, ...]]:
        """Pickle shape and indices only, not the cached properties."""
        return Pattern, (self.shape, self.indptr, self.indices)

    def row_peaks(self, values: Array) -> Array:
        """Return the largest of the values in each row, shape (B, rows), of magnitudes (B, nnz); or zero."""
        order, starts, places = self._by_row
        return _run_peaks(values.take(order, axis=1), starts, places, self.shape[0])

    def column_peaks(self, values: Array) -> Array:
        """Return the largest of the values in each column, shape (B, columns), as `row_peaks` does."""
        used = np.flatnonzero(np.diff(self.indptr))
        return _run_peaks(values, self.indptr[used], used, self.shape[1])

    @cached_property
    def _by_row(self) -> tuple[Indices, Indices, Indices]:
        """The order of the stored entries by rows, where in it the rows begin, and which rows these are."""
        order = np.argsort(self.indices, kind="stable")
        rows = self.indices[order]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        return order, starts, rows[starts]

    def products(self, values: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """Return M and M' as functions of stacks of vectors.

        Parameters
        ----------
        values : array, shape (B, nnz) or (1, nnz)
            One row is shared by the whole stack.

        Returns
        -------
        matvec, rmatvec : callables
            ``matvec`` maps shape (..., B, columns) to (..., B, rows), ``rmatvec`` the other way.
        """
        rows, columns = self.shape
        if self._is_dense:
            flat = np.zeros((len(values), rows * columns))
            flat[:, self._flat] = values
            dense = flat.reshape(len(values), rows, columns)
            dense_t = dense.transpose(0, 2, 1)
            return lambda x: (dense @ x[..., None])[..., 0], lambda y: (dense_t @ y[..., None])[..., 0]
        if len(values) == 1:
            single, single_t = self.matrix(values[0]), self.transposed(values[0])
            return lambda x: _by_rows(single, x, 1), lambda y: _by_rows(single_t, y, 1)
        count = len(values)
        pattern = self.block_diagonal(count)
        block, transposed = pattern.matrix(values.ravel()), pattern.transposed(values.ravel())
        return lambda x: _by_rows(block, x, count), lambda y: _by_rows(transposed, y, count)


def _run_peaks(values: Array, starts: Indices, places: Indices, size: int) -> Array:
    """Return the largest of each run of values, at its place among ``size`` numbers, zero elsewhere."""
    result = np.zeros((len(values), size))
    if starts.size:
        result[:, places] = np.maximum.reduceat(values, starts, axis=1)
    return result


def _by_rows(matrix: sp.csc_array | sp.csr_array, x: Array, count: int) -> Array:
    """Multiply the vectors (..., B, columns) by ``matrix``, which has ``count`` of them side by side."""
    if x.ndim == 2 and count == len(x):
        return np.asarray((matrix @ x.ravel()).reshape(count, -1))
    product: Array = (matrix @ x.reshape(-1, count * x.shape[-1]).T).T
    return (
        product.reshape(*x.shape[:-1], -1) if x.size else np.zeros((*x.shape[:-1], matrix.shape[0] // count))
    )


def union(shape: tuple[int, int], places: Sequence[tuple[Indices, Indices]]) -> tuple[Pattern, list[Indices]]:
    """Return the smallest pattern that contains all the given places.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the matrix.
    places : sequence of (rows, columns)
        Pairs of integer arrays; the two of a pair broadcast to one shape. Places may repeat.

    Returns
    -------
    pattern : Pattern
    at : list of int arrays
        For each pair of ``places``, in its broadcast shape: positions of its entries in the pattern.
    """
    height = max(shape[0], 1)
    keys = [np.asarray(columns, dtype=np.int64) * height + rows for rows, columns in places]
    unique, inverse = np.unique(np.concatenate([key.ravel() for key in keys]), return_inverse=True)
    indptr = np.searchsorted(unique, np.arange(shape[1] + 1, dtype=np.int64) * height)
    ends = np.cumsum([key.size for key in keys])[:-1]
    at = [block.reshape(key.shape) for block, key in zip(np.split(inverse, ends), keys, strict=True)]
    return Pattern(shape, indptr.astype(np.int32), (unique % height).astype(np.int32)), at
