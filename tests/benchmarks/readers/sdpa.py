"""Semidefinite programs in SDPA's sparse format: minimise c'x subject to x_1 F_1 + ... + x_m F_m - F_0 >= 0.

Source: Fujisawa, Kojima, Nakata, Yamashita, SDPA user's manual, section 6. Blocks of the matrix become PSD
cones of svec; diagonal blocks and blocks of order one become nonnegative rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tests.benchmarks.readers.problem import (
    Array,
    ConeRows,
    FormatError,
    Problem,
    svec_factor,
    svec_position,
)

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?")


def read_sdpa(path: Path) -> Problem:
    """Read a .dat-s file.

    Parameters
    ----------
    path : Path
        Entries may be given in either triangle, once each.

    Raises
    ------
    FormatError
        If numbers are missing, or an entry lies outside of its block.
    """
    lines = [line for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    rest = iter([line for line in lines if line.lstrip()[0] not in '*"'])
    n = int(_numbers(rest, 1, path)[0])
    count = int(_numbers(rest, 1, path)[0])
    sizes = _numbers(rest, count, path).astype(int)
    c = _numbers(rest, n, path)
    entries = _entries(rest, path)
    _check(entries, sizes, n, path)
    rows = ConeRows(n)
    for block, size in enumerate(sizes, start=1):
        _add_block(rows, int(size), entries[entries[:, 1] == block], path)
    return Problem(rows.program(c))


def _numbers(lines: Iterator[str], count: int, path: Path) -> Array:
    """Return the next numbers; what follows them on their last line is a comment."""
    found: list[float] = []
    while len(found) < count:
        line = next(lines, None)
        if line is None:
            raise FormatError(f"{path.name} ends before {count} numbers")
        found += [_float(word) for word in _NUMBER.findall(line)]
    return np.array(found[:count])


def _entries(lines: Iterator[str], path: Path) -> Array:
    """Return the entries that are not zero as rows (matrix, block, i, j, value)."""
    words = re.sub(r"[{}(),]", " ", " ".join(lines)).split()
    if len(words) % 5:
        raise FormatError(f"{path.name}: an entry has five numbers, but the file has {len(words)}")
    try:
        entries = np.array([_float(word) for word in words]).reshape(-1, 5)
    except ValueError as error:
        raise FormatError(f"{path.name}: {error}") from error
    return np.asarray(entries[entries[:, 4] != 0])


def _float(word: str) -> float:
    return float(word.translate(str.maketrans("dD", "ee")))


def _check(entries: Array, sizes: NDArray[np.intp], n: int, path: Path) -> None:
    matrix, block, i, j = entries[:, :4].astype(int).T
    bad = (matrix < 0) | (matrix > n) | (block < 1) | (block > sizes.size) | (i < 1) | (j < 1)
    order = np.abs(sizes)[np.clip(block, 1, sizes.size) - 1]
    bad |= (i > order) | (j > order)
    if bad.any():
        raise FormatError(f"{path.name}: no such entry: {entries[np.flatnonzero(bad)[0], :4].astype(int)}")


def _add_block(rows: ConeRows, size: int, entries: Array, path: Path) -> None:
    """Add s = sum of x_k F_k - F_0 of one block, which is s = b - A x with A = -F and b = -F_0."""
    order = abs(size)
    matrix, (i, j) = entries[:, 0].astype(int), entries[:, 2:4].T.astype(int) - 1
    if size < 0 or order == 1:
        if (i != j).any():
            raise FormatError(f"{path.name}: an entry off the diagonal of a diagonal block")
        kind, position, values, height = "l", i, entries[:, 4], order
    else:
        kind, position = "s", svec_position(order, i, j)
        values, height = entries[:, 4] * svec_factor(i, j), order * (order + 1) // 2
    constant = matrix == 0
    b = np.zeros(height)
    np.add.at(b, position[constant], -values[constant])
    linear = ~constant
    A = sp.coo_array((-values[linear], (position[linear], matrix[linear] - 1)), shape=(height, rows.n))
    rows.add(kind, A, b, order)
