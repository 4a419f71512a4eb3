"""Tangents and cotangents of the data of a stack: products with a solution, and outer products of vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from conediff.program.data import ConeData, Structure
from conediff.program.pattern import Array


class Products(NamedTuple):
    """The products of a tangent of the data with a solution: all that the derivative needs of the tangent.

    Attributes
    ----------
    Px, Ax, Aty : arrays, shape (B, n), (B, m), (B, n)
        dP x, dA x and dA'y.
    b, c : arrays, shape (B, m), (B, n)
        db and dc; one row if the tangent has one.
    """

    Px: Array
    Ax: Array
    Aty: Array
    b: Array
    c: Array


def products(structure: Structure, tangent: ConeData, x: Array, y: Array) -> Products:
    """Return the products of a tangent of the data, on its own sparsity, with x and y."""
    dA, dAt = structure.A.products(tangent.A)
    return Products(structure.P.products(tangent.P)[0](x), dA(x), dAt(y), tangent.b, tangent.c)


def outer(structure: Structure, x: Array, y: Array, r1: Array, r2: Array) -> ConeData:
    r"""Return the cotangents of the data from a solution and the multipliers r1 and r2.

    .. math::
        g_P = -\tfrac12 (r_1 x^\top + x r_1^\top), \quad g_A = -(y r_1^\top + r_2 x^\top), \quad
        g_b = r_2, \quad g_c = -r_1

    Parameters
    ----------
    x, y : arrays, shape (B, n), (B, m)
        Primal and dual solution.
    r1, r2 : arrays, shape (B, n), (B, m)
        Multipliers that the adjoint derivative returns.

    Returns
    -------
    ConeData
        The entries of g_P and g_A on the sparsity patterns of P and A.
    """
    P, A = structure.P, structure.A
    symmetric = r1[:, P.indices] * x[:, P.columns] + x[:, P.indices] * r1[:, P.columns]
    outer_A = y[:, A.indices] * r1[:, A.columns] + r2[:, A.indices] * x[:, A.columns]
    return ConeData(P=-symmetric / 2, A=-outer_A, b=r2, c=-r1)


def scaled(count: int, *arrays: Array) -> tuple[list[Array], Array]:
    """Divide each element's inputs by their largest absolute entry; the derivative is linear.

    Parameters
    ----------
    count : int
        Number of elements B.
    *arrays : arrays, shape (B, k) or (1, k)

    Returns
    -------
    inputs : list of arrays, shape (B, k)
    size : array, shape (B, 1)
        Factors by which the results must be multiplied. An element with an entry that is not finite gets
        zero inputs and the size NaN, so that its result is NaN.
    """
    size = np.zeros((count, 1))
    for array in arrays:
        size = np.maximum(size, np.abs(array).max(axis=1, keepdims=True, initial=0))
    not_finite = ~np.isfinite(size)
    if not_finite.any():
        arrays = tuple(np.where(not_finite, 0, array) for array in arrays)
        size[not_finite] = np.nan
    divisor = np.where(size > 0, size, 1)
    return [np.broadcast_to(array / divisor, (count, array.shape[1])) for array in arrays], size
