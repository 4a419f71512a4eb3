"""What a layer's derivatives return to adapters."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from conediff.program import Array

Arrays = tuple[NDArray[Any] | None, ...]


class Pulled(NamedTuple):
    """What ``pull`` returns.

    Attributes
    ----------
    parameters : tuple of arrays or None
        Cotangents, as those of ``LayerSolution.vjp``.
    multipliers : array, shape (*batch, n + m)
        float64; an argument of ``curve`` and ``turn_pull``, which saves a solve.
    """

    parameters: Arrays
    multipliers: Array


class Pushed(NamedTuple):
    """What ``push`` and ``turn_push`` return.

    Attributes
    ----------
    values : tuple of arrays
        Tangents of the values, as those of ``LayerSolution.jvp``.
    point : array, shape (*batch, n + 2m)
        float64: the tangent of the point.
    """

    values: tuple[NDArray[Any], ...]
    point: Array


class Curved(NamedTuple):
    """What ``curve`` and ``turn_pull`` return.

    Attributes
    ----------
    parameters : tuple of arrays or None
        Cotangents, as those of ``LayerSolution.vjp``.
    point : array, shape (*batch, n + 2m)
        float64: a cotangent of the point.
    """

    parameters: Arrays
    point: Array
