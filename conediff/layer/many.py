"""Many cotangents or tangents at once.

They are answered one after the other: a solve costs as much alone, and one factorisation serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conediff.layer.maps import OutputSpec, ParameterSpec


def count_of(
    arrays: Sequence[Any],
    batch: tuple[int, ...],
    specs: Sequence[ParameterSpec | OutputSpec],
    what: str,
) -> int | None:
    """Return how many cotangents or tangents there are; None if it is one, without an axis for them.

    Parameters
    ----------
    arrays : sequence of arrays or None
    batch : tuple of int
    specs : sequence of ParameterSpec or OutputSpec
        Of what the arrays belong to.
    what : str
        "cotangents" or "tangents".

    Raises
    ------
    ValueError
        If only some have the axis, or its lengths differ.
    """
    pairs = zip(arrays, specs, strict=False)
    given = [(np.shape(array), len(batch) + len(spec.shape)) for array, spec in pairs if array is not None]
    counts = {shape[0] if len(shape) == depth + 1 else None for shape, depth in given}
    if len(counts) > 1:
        shapes = ", ".join(str(shape) for shape, _ in given)
        raise ValueError(
            f"either all {what} have a first axis, of one length, for many at once, or none has; got shapes "
            f"{shapes}"
        )
    return counts.pop() if counts else None


def apply_to_each(
    function: Callable[..., Sequence[Any]], arrays: Sequence[Any], count: int
) -> tuple[Any, ...]:
    """Apply a linear function to each of many, and stack what it returns; None stays None."""
    arrays = [None if array is None else np.asarray(array) for array in arrays]
    if count == 0:  # for the shapes
        one = function(*(None if array is None else np.zeros(array.shape[1:]) for array in arrays))
        return tuple(None if part is None else np.zeros((0, *part.shape), part.dtype) for part in one)
    rows = [function(*(None if array is None else array[k] for array in arrays)) for k in range(count)]
    return tuple(None if column[0] is None else np.stack(column) for column in zip(*rows, strict=True))
