r"""The cones of a program in Clarabel's terms: a list of its cones, and a linear map of the rows.

Clarabel has no box, complex PSD or dual cones, and stores the other triangle of a PSD block. For each cone K
there is a matrix T and a product K' of Clarabel's cones with

.. math:: s \in K \iff T s \in K', \qquad y = T^\top y', \qquad s = L s',

where L T = I on the rows that T reads. The program with T A and T b is then the same program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.cones import ProductCone
from conediff.errors import ConeError
from conediff.program import ConeData, Structure
from conediff.solver.constants import CLARABEL_CACHED_CONES, CLARABEL_FILL, CLARABEL_WORK, INFINITE_BOUND

# One of Clarabel's cones: the name of its class, and the argument of its constructor.
ClarabelCone = tuple[str, Any]


@dataclass(frozen=True, eq=False)
class ClarabelCones:
    """A product of cones as Clarabel states it, with r rows.

    Attributes
    ----------
    cones : tuple of (str, argument)
    to_clarabel : sparse matrix, shape (r, m)
        T.
    from_clarabel : sparse matrix, shape (m, r)
        L.
    free : int array
        Rows on which there is no condition (of a box without bounds): T and L are zero there.
    half_lines : bool array, shape (r,)
        Which rows of Clarabel's are nonnegative numbers.
    """

    cones: tuple[ClarabelCone, ...]
    to_clarabel: sp.csr_array
    from_clarabel: sp.csr_array
    free: NDArray[np.intp]
    half_lines: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Block:
    """The rows of some cones of one kind: Clarabel's cones, T and L."""

    cones: list[ClarabelCone]
    T: Any
    L: Any

    @classmethod
    def same(cls, cones: list[ClarabelCone], rows: int) -> _Block:
        """Cones whose rows Clarabel stores alike."""
        return cls(cones, sp.eye_array(rows), sp.eye_array(rows))

    @classmethod
    def orthogonal(cls, cones: list[ClarabelCone], T: Any) -> _Block:
        """Cones with T'T = I."""
        return cls(cones, T, T.T)


@lru_cache(maxsize=CLARABEL_CACHED_CONES)
def in_clarabel(cone: ProductCone) -> ClarabelCones:
    """Return a product of cones as Clarabel states it.

    Raises
    ------
    ConeError
        If SCS's dictionary of the cone has a key that is unknown here.
    """
    entries = cone.to_scs()
    upper = entries.pop("bu", ())
    blocks: list[_Block] = []
    for key, value in entries.items():
        if key == "bl":
            blocks.append(_box(np.array(value, dtype=float), np.array(upper, dtype=float)))
        elif key in _BLOCKS:
            blocks.extend(_BLOCKS[key](value))
        else:
            raise ConeError(f"there is no transformation of the cone {key!r} for Clarabel")
    cones = tuple(one for block in blocks for one in block.cones)
    if not blocks:
        none = sp.csr_array((0, 0))
        return ClarabelCones((), none, none, np.empty(0, dtype=np.intp), np.empty(0, dtype=bool))
    T = sp.csr_array(sp.block_diag([block.T for block in blocks]))
    L = sp.csr_array(sp.block_diag([block.L for block in blocks]))
    half_lines = np.repeat([name == "NonnegativeConeT" for name, _ in cones], [_rows(one) for one in cones])
    return ClarabelCones(cones, T, L, np.flatnonzero(np.diff(L.indptr) == 0), half_lines)


def clarabel_work(structure: Structure, data: ConeData, ignored: float = CLARABEL_WORK) -> float:
    """Estimate the operations of one factorisation that PSD cones cost Clarabel.

    A cone of r rows is a dense block of r columns in its system. If the data leave out most entries, Clarabel
    decomposes the cone (chordal decomposition); r is then the number of entries that are there, times
    CLARABEL_FILL. Returns 0 where even the dense blocks take no more than ``ignored``.
    """
    if sum((order * (order + 1) // 2) ** 3 for order in psd_orders(structure.cone)) / 3 <= ignored:
        return 0.0
    cones = in_clarabel(structure.cone)
    sizes = [_rows(cone) if cone[0] == "PSDTriangleConeT" else 0 for cone in cones.cones]
    used = (data.b != 0).any(axis=0)
    used[structure.A.indices] = True
    entries = np.concatenate([[0], np.cumsum(abs(cones.to_clarabel) @ used > 0)])
    stops = np.cumsum([_rows(cone) for cone in cones.cones])
    starts = np.concatenate([[0], stops[:-1]])
    present = CLARABEL_FILL * (entries[stops] - entries[starts])
    return float((np.minimum(sizes, present).astype(float) ** 3).sum() / 3)


@lru_cache(maxsize=32)
def psd_orders(cone: ProductCone) -> tuple[int, ...]:
    """Return the orders of the PSD cones, complex ones as real ones of twice the order."""
    orders = cone.to_scs()
    return (*orders.get("s", ()), *(2 * order for order in orders.get("cs", ())))


def _rows(cone: ClarabelCone) -> int:
    """Return the rows of one of Clarabel's cones."""
    name, argument = cone
    if name == "PSDTriangleConeT":
        return int(argument * (argument + 1) // 2)
    return 3 if name in ("ExponentialConeT", "PowerConeT") else int(argument)


def _second_order(sizes: Sequence[int]) -> list[_Block]:
    """Return the blocks of ``q``; a cone of one row is a half-line."""
    return [
        _Block.same([("NonnegativeConeT" if size == 1 else "SecondOrderConeT", size)], size)
        for size in sizes
        if size
    ]


def _psd(orders: Sequence[int]) -> list[_Block]:
    """Return the blocks of ``s``: the lower triangle by columns becomes the upper triangle by columns."""
    return [_Block.orthogonal([_psd_cone(order)], _psd_rows(order)) for order in orders if order]


def _psd_cone(order: int) -> ClarabelCone:
    return ("NonnegativeConeT", 1) if order == 1 else ("PSDTriangleConeT", order)


def _position(row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return Clarabel's position of entry (row, column) of a symmetric matrix."""
    low, high = np.minimum(row, column), np.maximum(row, column)
    return np.asarray(high * (high + 1) // 2 + low)


def _psd_rows(order: int) -> sp.coo_array:
    column, row = np.triu_indices(order)  # of SCS's entries, in their order
    count = row.size
    return sp.coo_array((np.ones(count), (_position(row, column), np.arange(count))), shape=(count, count))


def _complex_psd(orders: Sequence[int]) -> list[_Block]:
    """Return the blocks of ``cs``: R + iS is positive semidefinite iff [[R, -S], [S, R]] is.

    All entries are over the square root of 2, so that T'T = I.
    """
    return [
        _Block.orthogonal([_psd_cone(2 * order)], _real_embedding(order))
        if order > 1
        else _Block.same([_psd_cone(1)], 1)
        for order in orders
        if order
    ]


def _real_embedding(order: int) -> sp.coo_array:
    column, row = np.triu_indices(order)
    width = np.where(row == column, 1, 2)
    real = np.cumsum(width) - width  # positions of the real parts in SCS's vector
    below = row > column
    i, j, imaginary = row[below], column[below], real[below] + 1
    parts = [
        (_position(row, column), real, 1.0),
        (_position(order + row, order + column), real, 1.0),
        (_position(order + i, j), imaginary, 1.0),
        (_position(order + j, i), imaginary, -1.0),
    ]
    values = np.concatenate([np.full(at.size, sign / np.sqrt(2)) for _, at, sign in parts])
    places = tuple(np.concatenate([part[k] for part in parts]) for k in (0, 1))
    return sp.coo_array((values, places), shape=(order * (2 * order + 1), order**2))


def _box(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> _Block:
    """Return the block of the box: the rows t, s - t lower and t upper - s, or zero if the two are equal."""
    size = 1 + lower.size
    T = [sp.coo_array(([1.0], ([0], [0])), shape=(1, size))]
    cones: list[ClarabelCone] = [("NonnegativeConeT", 1)]
    has_lower, has_upper = lower > -INFINITE_BOUND, upper < INFINITE_BOUND
    back: list[tuple[int, int, float]] = [(0, 0, 1.0)]  # entries (row of s, row of s', value) of L
    for k in range(lower.size):
        row = len(T)
        equal = has_lower[k] and lower[k] == upper[k]
        if has_lower[k]:
            T.append(sp.coo_array(([1.0, -lower[k]], ([0, 0], [1 + k, 0])), shape=(1, size)))
            cones.append(("ZeroConeT" if equal else "NonnegativeConeT", 1))
            back += [(1 + k, row, 1.0), (1 + k, 0, lower[k])]
        if has_upper[k] and not equal:
            T.append(sp.coo_array(([-1.0, upper[k]], ([0, 0], [1 + k, 0])), shape=(1, size)))
            cones.append(("NonnegativeConeT", 1))
            if not has_lower[k]:
                back += [(1 + k, row, -1.0), (1 + k, 0, upper[k])]
    rows, columns, values = zip(*back, strict=True)
    L = sp.coo_array((values, (rows, columns)), shape=(size, len(T)))
    return _Block(cones, sp.vstack(T), L)


def _repeated(cone: ClarabelCone, T: Any, L: Any) -> Callable[[int], list[_Block]]:
    """Make a function that returns the block of so many equal cones of three rows."""

    def blocks(count: int) -> list[_Block]:
        each = sp.eye_array(count)
        return [_Block([cone] * count, sp.kron(each, T), sp.kron(each, L))] if count else []

    return blocks


def _power(exponents: Sequence[float]) -> list[_Block]:
    """Return the blocks of ``p``; (u, v, w) is in the dual cone iff (u / a, v / (1 - a), w) is in K_a."""
    blocks = []
    for exponent in exponents:
        a = abs(exponent)
        size = np.array([1 / a, 1 / (1 - a), 1.0]) if exponent < 0 else np.ones(3)
        T, L = sp.diags_array(size), sp.diags_array(1 / size)
        blocks.append(_Block([("PowerConeT", a)], T, L))
    return blocks


def _same(name: str) -> Callable[[int], list[_Block]]:
    return lambda size: [_Block.same([(name, size)], size)] if size else []


_EXPONENTIAL = ("ExponentialConeT", None)
# (u, v, w) is in the dual exponential cone iff (u - v, -u, w) is in the exponential cone.
_TO_EXPONENTIAL = np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_FROM_EXPONENTIAL = np.array([[0.0, -1.0, 0.0], [-1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
# By the keys of SCS's dictionary, the box apart.
_BLOCKS: dict[str, Callable[[Any], list[_Block]]] = {
    "z": _same("ZeroConeT"),
    "l": _same("NonnegativeConeT"),
    "q": _second_order,
    "s": _psd,
    "cs": _complex_psd,
    "ep": _repeated(_EXPONENTIAL, np.eye(3), np.eye(3)),
    "ed": _repeated(_EXPONENTIAL, _TO_EXPONENTIAL, _FROM_EXPONENTIAL),
    "p": _power,
}
