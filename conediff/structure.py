"""What programs of one structure share (sizes, sparsity, cones), and the numbers in which they differ.

Everything behind the public interface works on a *stack*: one `Structure`, and `ConeData` whose arrays
carry a leading axis for the programs. A single program is a stack of one.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.cones import ProductCone

# Stacked patterns that a pattern keeps.
_KEPT = 4
# A matrix with no more entries than so many for every one that is stored, and some, is multiplied as dense.
_DENSE, _TINY = 4, 256

Array = NDArray[np.float64]
Indices = NDArray[np.signedinteger[Any]]


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
        return self.shape[0] * self.shape[1] <= _DENSE * self.nnz + _TINY

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
            if len(self._stacks) >= _KEPT:
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


@dataclass(frozen=True, eq=False)
class Structure:
    """Sizes, sparsity and cones of a cone program.

    Parameters
    ----------
    P : Pattern, shape (n, n)
        Both triangles are stored; may be empty.
    A : Pattern, shape (m, n)
    cone : ProductCone
        Of dimension m, rows in SCS's order.
    """

    P: Pattern
    A: Pattern
    cone: ProductCone

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.A.shape[1]

    @property
    def m(self) -> int:
        """Number of rows of A."""
        return self.A.shape[0]


@dataclass(frozen=True, eq=False)
class ConeData:
    """The numbers of a stack of programs; an array of one row serves the whole stack.

    Parameters
    ----------
    P : array, shape (B, nnz of P) or (1, nnz of P)
    A : array, shape (B, nnz of A) or (1, nnz of A)
    b : array, shape (B, m) or (1, m)
    c : array, shape (B, n) or (1, n)
    """

    P: Array
    A: Array
    b: Array
    c: Array

    @property
    def count(self) -> int:
        """Number of programs in the stack."""
        lengths = (len(part) for part in (self.P, self.A, self.b, self.c))
        return next((length for length in lengths if length != 1), 1)

    def repeated(self, count: int) -> ConeData:
        """Return a stack of ``count`` programs from one of so many, or of one that they all share."""
        if self.count == count:
            return self
        return replace(self, c=np.broadcast_to(self.c, (count, self.c.shape[1])))

    def zeros(self) -> ConeData:
        """Return zeros, of one row, for the same structure."""
        return ConeData(*(np.zeros((1, part.shape[1])) for part in (self.P, self.A, self.b, self.c)))

    def take(self, index: NDArray[np.intp] | slice) -> ConeData:
        """Return the programs at these positions; what is shared stays shared."""
        return ConeData(*(a if len(a) == 1 else a[index] for a in (self.P, self.A, self.b, self.c)))
