"""Perturbations of the data of a stack of programs, their products with a solution, and cotangents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from conediff.program.data import ConeData, Structure
from conediff.program.pattern import Array


class Products(NamedTuple):
    """A perturbation of the data at a solution, by all that the derivative needs of it.

    Attributes
    ----------
    Px, Ax, Aty : arrays, shape (B, n), (B, m), (B, n)
        dP x, dA x and dA'y.
    b, c : arrays, shape (B, m), (B, n)
        db and dc.
    """

    Px: Array
    Ax: Array
    Aty: Array
    b: Array
    c: Array


def products(structure: Structure, tangent: ConeData, x: Array, y: Array) -> Products:
    """Return the products of a perturbation of the data on its own sparsity."""
    dA, dAt = structure.A.products(tangent.A)
    return Products(structure.P.products(tangent.P)[0](x), dA(x), dAt(y), tangent.b, tangent.c)


def outer(structure: Structure, x: Array, y: Array, r1: Array, r2: Array) -> ConeData:
    """Return the cotangents of the data, from the multipliers r1 (B, n) and r2 (B, m).

    g_c = -r1, g_b = r2, g_A = -(y r1' + r2 x') and g_P = -(r1 x' + x r1')/2, on the sparsity of A and P.
    """
    P, A = structure.P, structure.A
    half = r1[:, P.indices] * x[:, P.columns] + x[:, P.indices] * r1[:, P.columns]
    both = y[:, A.indices] * r1[:, A.columns] + r2[:, A.indices] * x[:, A.columns]
    return ConeData(P=-half / 2, A=-both, b=r2, c=-r1)


def scaled(count: int, *arrays: Array) -> tuple[list[Array], Array]:
    """Scale a stack of inputs to largest entries of one: the derivative is linear at every scale.

    Where an entry is not finite the input is replaced by zero and the size by NaN: the answer is then NaN.
    """
    size = np.zeros((count, 1))
    for array in arrays:
        size = np.maximum(size, np.abs(array).max(axis=1, keepdims=True, initial=0))
    lost = ~np.isfinite(size)
    if lost.any():
        arrays = tuple(np.where(lost, 0, array) for array in arrays)
        size[lost] = np.nan
    divisor = np.where(size > 0, size, 1)
    return [np.broadcast_to(array / divisor, (count, array.shape[1])) for array in arrays], size
