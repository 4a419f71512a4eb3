"""Parsers of the values in SCS's dictionary of cones: sizes, exponents and bounds.

Each parser takes the key, for its messages, and the value as the user passed it. It returns the value as an
int or a tuple, or raises `ConeError` where SCS would not accept it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from conediff.errors import ConeError


def size(key: str, value: Any) -> int:
    """Parse a number of rows or cones."""
    if isinstance(value, bool) or not isinstance(value, (Integral, np.integer)):
        raise ConeError(f"cone {key!r}: sizes are whole numbers, got {value!r}")
    if value < 0:
        raise ConeError(f"cone {key!r}: sizes are not negative, got {value!r}")
    return int(value)


def sizes(key: str, value: Any) -> tuple[int, ...]:
    """Parse a list of sizes; a number counts as a list of one."""
    return tuple(size(key, one) for one in _listed(key, value))


def numbers(key: str, value: Any) -> tuple[float, ...]:
    """Parse a list of numbers; a number counts as a list of one."""
    return tuple(_number(key, one) for one in _listed(key, value))


def exponents(key: str, value: Any) -> tuple[float, ...]:
    """Parse exponents of power cones, which are negative for dual cones."""
    parsed = numbers(key, value)
    for exponent in parsed:
        if not 0 < abs(exponent) < 1:
            raise ConeError(
                f"cone {key!r}: exponents are in (0, 1), or (-1, 0) for dual cones, got {exponent}"
            )
    return parsed


def check_bounds(lower: tuple[float, ...], upper: tuple[float, ...]) -> None:
    """Raise if parsed bounds of a box differ in number, or leave no interval."""
    if len(lower) != len(upper):
        raise ConeError(f"box cone: 'bl' has {len(lower)} bounds and 'bu' has {len(upper)}")
    for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if math.isnan(low) or math.isnan(high) or low == math.inf or high == -math.inf:
            raise ConeError(f"box cone: bounds {low} and {high} at {index} leave no interval")
        if low > high:
            raise ConeError(f"box cone: the lower bound {low} at {index} is above the upper bound {high}")


def _listed(key: str, value: Any) -> list[Any]:
    """The value as a flat list. SCS accepts a number in place of a list of one."""
    if isinstance(value, (str, bytes, Mapping)):
        raise ConeError(f"cone {key!r}: expected a list of numbers, got {value!r}")
    if np.ndim(value) > 1:
        raise ConeError(f"cone {key!r}: expected a flat list of numbers, got {value!r}")
    return list(np.atleast_1d(value))


def _number(key: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.floating, np.integer)):
        raise ConeError(f"cone {key!r}: expected a number, got {value!r}")
    return float(value)
