"""diffcp's module of cones: the functions with which its README and examples make programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.cones import ProductCone
from conediff.cones.registry import KINDS

# diffcp's names of the keys of its cones; SCS's keys.
ZERO, POS, SOC, PSD, EXP, EXP_DUAL = "z", "l", "q", "s", "ep", "ed"


def parse_cone_dict(cone_dict: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the cones as pairs of key and size, in the order of their rows.

    Parameters
    ----------
    cone_dict : mapping
        SCS's dictionary of cones; "f" is the zero cone too.
    """
    cones = dict(cone_dict)
    if "f" in cones:
        cones["z"] = cones.pop("f") + cones.get("z", 0)
    return [(key, cones[key]) for kind in KINDS for key in kind.keys if key in cones]


def pi(x: ArrayLike, cones: Iterable[tuple[str, Any]], dual: bool = False) -> NDArray[np.float64]:
    """Project a vector onto a product of cones, or onto the product of their duals.

    Parameters
    ----------
    x : array, shape (m,)
    cones : iterable of (key, size)
        As from `parse_cone_dict`.
    dual : bool

    Returns
    -------
    array, shape (m,)

    Raises
    ------
    ConeError
        If the cones are not SCS's, or do not have m rows.

    Notes
    -----
    The projection onto K is v + Π(-v), where Π is that onto K* (Moreau).
    """
    vector = np.asarray(x, dtype=np.float64)
    cone = ProductCone.from_dict(dict(cones))
    return cone.project_dual(vector).point if dual else vector + cone.project_dual(-vector).point


def vec_symm(X: ArrayLike) -> NDArray[np.float64]:
    """Return the lower triangle of a symmetric matrix by columns, off-diagonal entries times sqrt(2).

    Parameters
    ----------
    X : array, shape (n, n)

    Returns
    -------
    array, shape (n (n + 1) / 2,)
    """
    matrix = np.asarray(X, dtype=np.float64)
    columns, rows = np.triu_indices(len(matrix))
    result: NDArray[np.float64] = matrix[rows, columns] * _weights(rows, columns)
    return result


def unvec_symm(x: ArrayLike, dim: int) -> NDArray[np.float64]:
    """Return the symmetric matrix X, shape (dim, dim), for which x is ``vec_symm(X)``."""
    columns, rows = np.triu_indices(dim)
    X = np.zeros((dim, dim))
    X[rows, columns] = np.asarray(x) / _weights(rows, columns)
    X[columns, rows] = X[rows, columns]
    return X


def _weights(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.where(rows == columns, 1.0, np.sqrt(2.0))
