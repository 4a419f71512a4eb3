"""Sparsity of a matrix, once for all the matrices of a stack that share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.signedinteger[Any]]

# Block-diagonal patterns that a pattern keeps; more would hold memory for batch sizes no longer in use.
_KEPT_STACKS = 4
# Products use filled matrices if rows * columns <= _DENSE_RATIO * nnz + _DENSE_MINIMUM: a sparse product
# costs several times as much per entry as a dense one, and about 10 microseconds a call.
_DENSE_RATIO, _DENSE_MINIMUM = 4, 256


@dataclass(frozen=True, eq=False)
class Pattern:
    """Sparsity of a matrix in compressed columns, rows sorted within each column.

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
        return int(self.indices.size)

    @cached_property
    def columns(self) -> Indices:
        """Column of every stored entry, shape (nnz,); `indices` are the rows."""
        return np.repeat(np.arange(self.shape[1], dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def mirror(self) -> Indices:
        """Where the entry at (column, row) of every stored (row, column) stands; of a symmetric pattern."""
        return np.lexsort((self.columns, self.indices))

    @cached_property
    def _is_dense(self) -> bool:
        """Whether products with filled matrices are faster."""
        return self.shape[0] * self.shape[1] <= _DENSE_RATIO * self.nnz + _DENSE_MINIMUM

    @cached_property
    def _flat(self) -> Indices:
        """Place of every stored entry in a filled matrix, in C order."""
        return self.indices.astype(np.intp) * self.shape[1] + self.columns

    @cached_property
    def _blank(self) -> tuple[sp.csc_array, sp.csr_array]:
        """The matrix and its transpose without values: SciPy's checks, once."""
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
    def _stacks(self) -> dict[int, Pattern]:
        return {}

    def stacked(self, count: int) -> Pattern:
        """Return the pattern of ``count`` copies down a block diagonal; the last few are kept."""
        if count == 1:
            return self
        found = self._stacks.get(count)
        if found is None:
            if len(self._stacks) >= _KEPT_STACKS:
                self._stacks.clear()
            found = self._stacks[count] = self._stacked(count)
        return found

    def _stacked(self, count: int) -> Pattern:
        rows, columns = self.shape
        copies = np.arange(count, dtype=np.int32)[:, None]
        indices = (self.indices + copies * rows).ravel().astype(np.int32)
        starts = (self.indptr[:-1] + copies * self.nnz).ravel()
        indptr = np.append(starts, count * self.nnz).astype(np.int32)
        return Pattern((count * rows, count * columns), indptr, indices)

    def __reduce__(self) -> tuple[type[Pattern], tuple[Any, ...]]:
        """Pickle the sparsity alone, not what was made from it."""
        return Pattern, (self.shape, self.indptr, self.indices)

    def products(self, values: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """Return M and M' as functions of stacks of vectors.

        Parameters
        ----------
        values : array, shape (B, nnz) or (1, nnz)
            One row serves the whole stack.

        Returns
        -------
        matvec, rmatvec : callables
            They take (B, columns) to (B, rows), and (B, rows) to (B, columns).
        """
        rows, columns = self.shape
        if self._is_dense:
            flat = np.zeros((len(values), rows * columns))
            flat[:, self._flat] = values
            filled = flat.reshape(len(values), rows, columns)
            turned = filled.transpose(0, 2, 1)
            return lambda x: (filled @ x[:, :, None])[:, :, 0], lambda y: (turned @ y[:, :, None])[:, :, 0]
        if len(values) == 1:
            single, single_t = self.matrix(values[0]), self.transposed(values[0])
            return lambda x: (single @ x.T).T, lambda y: (single_t @ y.T).T
        count = len(values)
        stack = self.stacked(count)
        block, transposed = stack.matrix(values.ravel()), stack.transposed(values.ravel())
        return (
            lambda x: (block @ x.ravel()).reshape(count, rows),
            lambda y: (transposed @ y.ravel()).reshape(count, columns),
        )


def union(shape: tuple[int, int], places: Sequence[tuple[Indices, Indices]]) -> tuple[Pattern, list[Indices]]:
    """Return the smallest pattern that has all the given places.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the matrix.
    places : sequence of (rows, columns)
        Integer arrays that broadcast to one shape each; places may repeat.

    Returns
    -------
    pattern : Pattern
    at : list of int arrays
        For each of ``places``, in its broadcast shape, where its entries stand in the pattern.
    """
    height = max(shape[0], 1)
    keys = [np.asarray(columns, dtype=np.int64) * height + rows for rows, columns in places]
    unique, inverse = np.unique(np.concatenate([key.ravel() for key in keys]), return_inverse=True)
    indptr = np.searchsorted(unique, np.arange(shape[1] + 1, dtype=np.int64) * height)
    ends = np.cumsum([key.size for key in keys])[:-1]
    at = [part.reshape(key.shape) for part, key in zip(np.split(inverse, ends), keys, strict=True)]
    return Pattern(shape, indptr.astype(np.int32), (unique % height).astype(np.int32)), at
