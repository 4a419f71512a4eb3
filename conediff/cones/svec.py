"""Symmetric and Hermitian matrices as vectors, in SCS's layouts of ``s`` and ``cs``; see `psd`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conediff.cones.automorphism import Array

Matrix = NDArray[Any]  # real symmetric or complex Hermitian

_ROOT2 = np.sqrt(2.0)


class _Layout(NamedTuple):
    """Positions of the entries of a triangle in its vector."""

    row: NDArray[np.intp]  # of the entries below the diagonal, column by column
    column: NDArray[np.intp]
    diagonal: NDArray[np.intp]  # positions in the vector of the diagonal
    real: NDArray[np.intp]  # positions of the (real parts of the) entries below the diagonal
    owner: tuple[NDArray[np.intp], NDArray[np.intp]]  # row and column of each position


@lru_cache(maxsize=256)
def layout_of(order: int, complex_: bool) -> _Layout:
    """Return the layout of matrices of this order."""
    column, row = np.triu_indices(order)
    width = np.where(row == column, 1, 2 if complex_ else 1)
    position = np.cumsum(width) - width
    below = row > column
    owner = (np.repeat(row, width), np.repeat(column, width))
    return _Layout(row[below], column[below], position[~below], position[below], owner)


def smat(v: Array, order: int) -> Array:
    """Unpack vectors of shape (..., order (order + 1) / 2) to symmetric matrices (..., order, order)."""
    layout = layout_of(order, False)
    X = np.empty((*v.shape[:-1], order, order))
    diagonal = np.arange(order)
    X[..., diagonal, diagonal] = v[..., layout.diagonal]
    X[..., layout.row, layout.column] = v[..., layout.real] / _ROOT2
    X[..., layout.column, layout.row] = X[..., layout.row, layout.column]
    return X


def svec(X: Array) -> Array:
    """Pack symmetric matrices (..., order, order) to vectors; only the lower triangle is read."""
    order = X.shape[-1]
    layout = layout_of(order, False)
    v = np.empty((*X.shape[:-2], order * (order + 1) // 2))
    diagonal = np.arange(order)
    v[..., layout.diagonal] = X[..., diagonal, diagonal]
    v[..., layout.real] = _ROOT2 * X[..., layout.row, layout.column]
    return v


def complex_smat(v: Array, order: int) -> NDArray[np.complex128]:
    """Unpack vectors of shape (..., order^2) to Hermitian matrices (..., order, order)."""
    layout = layout_of(order, True)
    X = np.empty((*v.shape[:-1], order, order), dtype=np.complex128)
    diagonal = np.arange(order)
    X[..., diagonal, diagonal] = v[..., layout.diagonal]
    below = (v[..., layout.real] + 1j * v[..., layout.real + 1]) / _ROOT2
    X[..., layout.row, layout.column] = below
    X[..., layout.column, layout.row] = below.conj()
    return X


def complex_svec(X: NDArray[np.complex128]) -> Array:
    """Pack Hermitian matrices (..., order, order) to vectors; only the lower triangle is read."""
    order = X.shape[-1]
    layout = layout_of(order, True)
    v = np.empty((*X.shape[:-2], order**2))
    diagonal = np.arange(order)
    v[..., layout.diagonal] = X[..., diagonal, diagonal].real
    below = X[..., layout.row, layout.column]
    v[..., layout.real] = _ROOT2 * below.real
    v[..., layout.real + 1] = _ROOT2 * below.imag
    return v


def unpack(v: Array, order: int, complex_: bool) -> Matrix:
    """Unpack vectors to symmetric or Hermitian matrices."""
    return complex_smat(v, order) if complex_ else smat(v, order)


def pack(X: Matrix, complex_: bool) -> Array:
    """Pack symmetric or Hermitian matrices to vectors."""
    return complex_svec(X) if complex_ else svec(X)
