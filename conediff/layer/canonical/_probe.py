"""Finds the matrix of a linear function by calling it. Independent of cvxpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.errors import ProblemError
from conediff.program import Array

# Largest number of columns of a linear map that is not a scaled selection. Such a map takes one call of the
# function per column; a larger value accepts more problems and takes longer.
_MAX_PROBED_COLUMNS = 2000
# Tolerances of the check against a random vector: relative, and absolute for entries near zero. The entries
# of the vector lie in [0.5, 1.5], so a right matrix has rounding errors only, and a wrong one errors of about
# the size of its entries.
_RELATIVE_TOLERANCE = 1e-9
_ABSOLUTE_TOLERANCE = 1e-12


def find_linear_maps(
    probe: Callable[[Array], list[NDArray[Any]]], size: int, names: Sequence[str]
) -> list[tuple[tuple[int, ...], bool, sp.csr_array]]:
    """Return the matrices of a linear function with several outputs.

    If each entry (real or imaginary part) of an output is a multiple of one entry of the input, two calls
    find the whole matrix: with ones for the factors, and with 1, 2, 3, ... for the positions. A third call,
    with a random vector, verifies it. Otherwise the function is called once per column.

    Parameters
    ----------
    probe : callable
        Takes a vector of shape (size,); returns a list of arrays, one per name.
    size : int
        Number of entries of the input.
    names : sequence of str
        Names of the outputs in error messages.

    Returns
    -------
    list of (shape, complex, csr_array)
        One row per entry, in C order; imaginary parts follow the real parts.

    Raises
    ------
    ProblemError
        If an output is not linear, or would need too many calls.
    """
    numbers = np.arange(1.0, size + 1.0)
    check = np.random.default_rng(0).uniform(0.5, 1.5, size)
    ones, numbered, checked = probe(np.ones(size)), probe(numbers), probe(check)
    found = []
    for k, name in enumerate(names):
        is_complex = any(np.iscomplexobj(out[k]) for out in (ones, numbered, checked))
        factor, positions, expected = (_to_real(out[k], is_complex) for out in (ones, numbered, checked))
        matrix = _selection(factor, positions, size)
        if not _close(matrix @ check, expected):
            if size > _MAX_PROBED_COLUMNS:
                raise ProblemError(
                    f"The entries of {name} are not multiples of single entries of the cone program's "
                    f"solution. Then it may have at most {_MAX_PROBED_COLUMNS} entries, but it has {size}."
                )
            columns = [_to_real(probe(unit)[k], is_complex) for unit in np.eye(size)]
            matrix = sp.csr_array(np.stack(columns, axis=1))
            if not _close(matrix @ check, expected):
                raise ProblemError(f"{name} is not linear in the cone program's solution.")
        found.append((tuple(int(j) for j in ones[k].shape), is_complex, matrix))
    return found


def _selection(factor: Array, positions: Array, size: int) -> sp.csr_array:
    """Return the matrix with one entry per row: ``factor``, in column ``positions / factor - 1``."""
    rows = np.flatnonzero(factor)
    columns = np.rint(positions[rows] / factor[rows]).astype(np.int64) - 1
    inside = (columns >= 0) & (columns < size)
    rows, columns = rows[inside], columns[inside]
    return sp.csr_array((factor[rows], (rows, columns)), shape=(factor.size, size))


def _to_real(value: NDArray[Any], is_complex: bool) -> Array:
    """Return the entries as a real vector; the imaginary parts of complex ones follow the real parts."""
    flat = np.asarray(value).ravel()
    return np.concatenate([flat.real, flat.imag]) if is_complex else np.asarray(flat, dtype=np.float64)


def _close(one: Array, other: Array) -> bool:
    """Return whether all entries agree to the tolerances."""
    return bool(np.allclose(one, other, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE))
