"""Matrices of linear functions that can only be called. Knows nothing of cvxpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.errors import ProblemError
from conediff.program import Array

# A linear map that is not a selection is probed a column at a time, up to this many.
_MOST_COLUMNS = 2000


def linear_maps(
    probe: Callable[[Array], list[NDArray[Any]]], size: int, names: Sequence[str]
) -> list[tuple[tuple[int, ...], bool, sp.csr_array]]:
    """Return the matrices of a linear function, which is given as a black box with several outputs.

    Where each entry (real or imaginary part) of an output is a multiple of one entry of the input, two
    probes find all of them: ones for the factors, 1, 2, 3, ... for the positions. A third verifies it.

    Returns
    -------
    list of (shape, complex, csr_array)
        Rows are the entries in C order; imaginary parts follow the real ones.
    """
    numbers = np.arange(1.0, size + 1.0)
    check = np.random.default_rng(0).uniform(0.5, 1.5, size)
    ones, numbered, checked = probe(np.ones(size)), probe(numbers), probe(check)
    found = []
    for k, name in enumerate(names):
        is_complex = any(np.iscomplexobj(out[k]) for out in (ones, numbered, checked))
        factor, positions, expected = (_parts(out[k], is_complex) for out in (ones, numbered, checked))
        matrix = _selection(factor, positions, size)
        if not _close(matrix @ check, expected):
            if size > _MOST_COLUMNS:
                raise ProblemError(f"{name} is not a selection of the cone program's solution.")
            columns = [_parts(probe(unit)[k], is_complex) for unit in np.eye(size)]
            matrix = sp.csr_array(np.stack(columns, axis=1))
            if not _close(matrix @ check, expected):
                raise ProblemError(f"{name} is not linear in the cone program's solution.")
        found.append((tuple(int(j) for j in ones[k].shape), is_complex, matrix))
    return found


def _selection(factor: Array, positions: Array, size: int) -> sp.csr_array:
    """Return the matrix with one entry ``factor`` a row, in the column that factor x (column + 1) tells."""
    rows = np.flatnonzero(factor)
    columns = np.rint(positions[rows] / factor[rows]).astype(np.int64) - 1
    inside = (columns >= 0) & (columns < size)
    rows, columns = rows[inside], columns[inside]
    return sp.csr_array((factor[rows], (rows, columns)), shape=(factor.size, size))


def _parts(value: NDArray[Any], is_complex: bool) -> Array:
    flat = np.asarray(value).ravel()
    return np.concatenate([flat.real, flat.imag]) if is_complex else np.asarray(flat, dtype=np.float64)


def _close(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=1e-9, atol=1e-12))
