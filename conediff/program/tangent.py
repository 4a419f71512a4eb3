"""Perturbations of the data of a stack of programs, their products, and cotangents from outer products."""

from __future__ import annotations

import numpy as np

from conediff.program.data import ConeData, Structure
from conediff.program.pattern import Array


def outer(structure: Structure, x: Array, y: Array, r1: Array, r2: Array) -> ConeData:
    """Return the cotangents of the data for what `StackDerivative.vjp` returns."""
    P, A = structure.P, structure.A
    half = r1[:, P.indices] * x[:, P.columns] + x[:, P.indices] * r1[:, P.columns]
    both = y[:, A.indices] * r1[:, A.columns] + r2[:, A.indices] * x[:, A.columns]
    return ConeData(P=-half / 2, A=-both, b=r2, c=-r1)


def products(structure: Structure, tangent: ConeData, x: Array, y: Array) -> tuple[Array, ...]:
    """Return what `StackDerivative.jvp` takes, for a perturbation of the data on its own sparsity."""
    dA, dAt = structure.A.products(tangent.A)
    return structure.P.products(tangent.P)[0](x), dA(x), dAt(y), tangent.b, tangent.c


def scaled(count: int, *arrays: Array) -> tuple[list[Array], Array]:
    """Scale a stack of inputs to largest entries of one: the derivative is linear at every scale.

    Where they are not finite, zero is solved for, and a size of NaN makes the answer NaN.
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
