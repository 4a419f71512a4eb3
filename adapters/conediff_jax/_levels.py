"""Where the mapped axis of a vmap goes: in front of all batch dimensions that any parameter has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Dims = Sequence[Any]  # of int, or None for an array that is not mapped


def mapped_size(arrays: Sequence[jax.Array], dims: Dims) -> int:
    """Return the length of the mapped axis."""
    return next(int(a.shape[d]) for a, d in zip(arrays, dims, strict=True) if d is not None)


def lift(array: jax.Array, dim: int | None, inner: int, batch: int, many: int = 0) -> jax.Array:
    """Move the mapped axis of a parameter or tangent in front of its batch dimensions.

    Parameters
    ----------
    array : array, shape (*many, *own batch, *shape), and the mapped axis anywhere
    dim : int or None
        Position of the mapped axis; None if the array is not mapped.
    inner : int
        Number of dimensions of the shape.
    batch : int
        Number of batch dimensions of the solution, without the mapped axis. Own dimensions that are missing
        become 1, unless the array has none and is not mapped.
    many : int
        Number of leading dimensions that stay in front.
    """
    if dim is not None:
        array = jnp.moveaxis(array, dim, many)
    lead = array.ndim - inner - many - (dim is not None)
    if dim is None and lead == 0:
        return array
    front, size = array.shape[:many], () if dim is None else array.shape[many : many + 1]
    rest = array.shape[many + len(size) :]
    return array.reshape(*front, *(size or (1,)), *(1,) * (batch - lead), *rest)


def spread(array: jax.Array, dim: int | None, size: int, position: int) -> jax.Array:
    """Move the mapped axis to a position; repeat an array that is not mapped."""
    if dim is not None:
        return jnp.moveaxis(array, dim, position)
    shape = (*array.shape[:position], size, *array.shape[position:])
    return jnp.broadcast_to(jnp.expand_dims(array, position), shape)
