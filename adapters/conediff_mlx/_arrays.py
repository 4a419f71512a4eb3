"""The conversion of MLX arrays to NumPy arrays and back, and the dtype of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from conediff.layer.dtypes import lost_rounding, match_kind, numpy_dtype

_NO_VALUES = (
    "mx.vmap and mx.compile cannot hold a layer, which needs the values of its parameters: give a batch as "
    "leading dimensions of the parameters, which are solved together, and compile what is around the layer"
)


def to_numpy(array: mx.array) -> NDArray[Any]:
    """Return an array's values, in a dtype that NumPy has.

    Raises
    ------
    NotImplementedError
        Under ``mx.vmap`` and ``mx.compile``, where arrays have no values.
    """
    name = dtype_name(array)
    if numpy_dtype(name) != name:
        array = array.astype(getattr(mx, numpy_dtype(name)))
    try:
        mx.eval(array)
    except ValueError as error:
        if "during function transformations" in str(error):
            raise NotImplementedError(_NO_VALUES) from error
        raise
    return np.array(array)


def to_mlx(array: NDArray[Any], dtype: mx.Dtype) -> mx.array:
    """Return an array in an MLX dtype; its real part if the dtype is real."""
    array = np.ascontiguousarray(match_kind(array, _name(dtype))).reshape(array.shape)
    wide = mx.float64 if array.dtype == np.float64 else None
    return mx.array(array, dtype=dtype if wide is None or dtype == wide else None).astype(dtype)


def rounding(array: mx.array) -> float:
    """Return the relative rounding of an array's dtype, or 0 if its NumPy array shows it."""
    return lost_rounding(dtype_name(array))


def dtype_name(array: mx.array) -> str:
    """Return the name under which the core knows an array's dtype."""
    return _name(array.dtype)


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]


def is_inexact(array: mx.array) -> bool:
    """Tell whether an array holds floating or complex numbers."""
    return bool(mx.issubdtype(array.dtype, mx.inexact))


def result_dtype(arrays: Sequence[mx.array]) -> mx.Dtype:
    """Return the dtype of the real parts of the outputs: MLX's promotion of the inexact parameters."""
    inexact = [a for a in arrays if is_inexact(a)]
    dtype = mx.result_type(*inexact) if inexact else mx.float32
    return mx.float32 if dtype == mx.complex64 else dtype
