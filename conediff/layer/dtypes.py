"""Rules for dtypes, by name, because frameworks have some that NumPy lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_REAL = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
# Dtypes that NumPy lacks: the dtype in which their values are passed, which holds all of them exactly, and
# their relative rounding (distance from 1 to the next larger number).
_NOT_IN_NUMPY = {
    "bfloat16": ("float32", 2.0**-7),
    "complex32": ("complex64", 2.0**-10),
    "float8_e4m3fn": ("float32", 2.0**-3),
    "float8_e4m3fnuz": ("float32", 2.0**-3),
    "float8_e5m2": ("float32", 2.0**-2),
    "float8_e5m2fnuz": ("float32", 2.0**-2),
    "float8_e8m0fnu": ("float32", 1.0),
}


def output_dtype(names: Iterable[str], promote: Callable[..., str], default: str) -> str:
    """Return the dtype of the real parts of the outputs.

    It is what the framework promotes the parameters' real parts to. Integers and bools do not take part.

    Parameters
    ----------
    names : iterable of str
        Dtypes of the parameters.
    promote : callable
        Takes names of real floating dtypes, returns the name of the common one.
    default : str
        The answer if no parameter is floating.
    """
    real = [_REAL.get(name, name) for name in names if name in _REAL or "float" in name]
    return promote(*real) if real else default


def numpy_dtype(name: str) -> str:
    """Return the dtype in which values of a dtype are passed to NumPy: the same, or a wider one."""
    return _NOT_IN_NUMPY[name][0] if name in _NOT_IN_NUMPY else name


def lost_rounding(name: str) -> float:
    """Return the relative rounding of a dtype that NumPy lacks; 0 for others, whose arrays show their own."""
    return _NOT_IN_NUMPY[name][1] if name in _NOT_IN_NUMPY else 0.0


def match_kind(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the real part of an array if the dtype named is real, else the array.

    The cotangent of a complex parameter is complex; where the value was real, its real part is the gradient.
    """
    return array if name.startswith("complex") else array.real


def widen(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in a dtype that NumPy itself has; JAX's and TensorFlow's arrays may have others."""
    return array.astype(numpy_dtype(array.dtype.name), copy=False)


def cast(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array in a dtype; a complex one loses its imaginary part where the dtype is real."""
    dtype = np.dtype(dtype)
    return match_kind(array, dtype.name).astype(dtype, copy=False)
