"""diffcp's module of cones: the functions with which its README and examples make programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.cones import ProductCone, smat, svec
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
    cones = with_scs_keys(cone_dict)
    return [(key, cones[key]) for kind in KINDS for key in kind.keys if key in cones]


def with_scs_keys(cones: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dictionary with the zero cone under "z" alone, which diffcp also calls "f"."""
    renamed = dict(cones)
    if "f" in renamed:
        renamed["z"] = renamed.pop("f") + renamed.get("z", 0)
    return renamed


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

    Raises
    ------
    ValueError
        If X is not a square matrix.
    """
    matrix = np.asarray(X, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(f"X must be a square matrix, but has shape {matrix.shape}")
    return svec(matrix)


def unvec_symm(x: ArrayLike, dim: int) -> NDArray[np.float64]:
    """Return the symmetric matrix for which x is ``vec_symm(X)``.

    Parameters
    ----------
    x : array, shape (dim (dim + 1) / 2,)
    dim : int

    Returns
    -------
    array, shape (dim, dim)

    Raises
    ------
    ValueError
        If x does not have this length.
    """
    vector = np.asarray(x, dtype=np.float64)
    if vector.shape != (dim * (dim + 1) // 2,):
        raise ValueError(f"x must have shape ({dim * (dim + 1) // 2},) for dim={dim}, but has {vector.shape}")
    return smat(vector, dim)
