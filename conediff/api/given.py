"""What users give to derivatives: arrays in order, or by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from conediff.derivative.kkt_derivative import Tangent
from conediff.program import Array
from conediff.program.cone_program import numbers, real

Given = Sequence[Any] | Mapping[str, Any]
Curvature = Callable[..., Given]

COTANGENTS = ("dx", "dy", "ds")
TANGENTS = ("dP", "dA", "db", "dc")


def shaped(name: str, value: Any, shape: tuple[int, int]) -> Any:
    """Return a matrix; raise ValueError if it does not have this shape."""
    matrix: Any = real(name, value) if sp.issparse(value) else numbers(name, value)
    if matrix.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, but has {matrix.shape}")
    return matrix


def row(name: str, value: ArrayLike | None, size: int) -> Array:
    """Return a vector as a stack of one; zero for None."""
    vector = np.zeros(size) if value is None else numbers(name, value)
    if vector.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), but has {vector.shape}")
    return vector[None]


def rows(name: str, value: Any, count: int, size: int) -> Array:
    """Return a stack of vectors; zero for None."""
    stack = np.zeros((1, size)) if value is None else numbers(name, value)
    if value is not None and stack.shape != (count, size):
        raise ValueError(f"{name} must have shape ({count}, {size}), but has {stack.shape}")
    return np.broadcast_to(stack, (count, size))


def listed(names: tuple[str, ...], given: Given) -> list[Any]:
    """Return what was given, in order or by name, in the order of the names; None where it is missing."""
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"expected names among {', '.join(names)}, got {unknown[0]!r}")
        return [given.get(name) for name in names]
    if len(given) != len(names):
        raise ValueError(f"expected {len(names)} arrays ({', '.join(names)}), or a mapping, got {len(given)}")
    return list(given)


def own_curvature(
    curvature: Curvature | None,
    shown: Callable[[Array], Array],
    read: Callable[[Sequence[Any]], list[Array]],
) -> Callable[[Tangent], list[Array]] | None:
    """Return the loss's own Hessian on stacks, from the user's, which sees what is ``shown``."""
    if curvature is None:
        return None
    return lambda moved: read(listed(COTANGENTS, curvature(*map(shown, moved))))
