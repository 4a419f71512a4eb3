"""SCS's dictionary of cones, checked: whole sizes, exponents and bounds in range, lists for numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from conediff.errors import ConeError


def parsed(cones: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `ProductCone` from SCS's dictionary.

    Parameters
    ----------
    cones : mapping
        As given; None stands for a missing value.
    known : sequence of str
        The keys that there may be.

    Raises
    ------
    ConeError
        If a key is unknown, or a value is not what SCS accepts.
    """
    # cvxpy lists all kinds that it knows; those without a cone do no harm.
    unknown = [
        key for key, value in cones.items() if key not in known and (np.ndim(value) == 0 or len(value))
    ]
    if unknown:
        raise ConeError(
            f"unknown cone {unknown[0]!r}; the known ones are {', '.join(known)}: zero, nonnegative, bounds "
            "of a box, second-order, PSD, complex PSD, exponential, dual exponential, and power"
        )
    given = {key: value for key, value in cones.items() if value is not None}
    values: dict[str, Any] = {key: _size(key, given[key]) for key in ("z", "l", "ep", "ed") if key in given}
    values |= {key: _sizes(key, given[key]) for key in ("q", "s", "cs") if key in given}
    if "p" in given:
        values["p"] = _exponents(given["p"])
    values["bl"], values["bu"] = _box(given.get("bl", ()), given.get("bu", ()))
    return values


def _size(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (Integral, np.integer)):
        raise ConeError(f"cone {key!r}: sizes are whole numbers, got {value!r}")
    if value < 0:
        raise ConeError(f"cone {key!r}: sizes are not negative, got {value!r}")
    return int(value)


def _sizes(key: str, value: Any) -> tuple[int, ...]:
    return tuple(_size(key, size) for size in _listed(key, value))


def _exponents(value: Any) -> tuple[float, ...]:
    exponents = tuple(_number("p", exponent) for exponent in _listed("p", value))
    for exponent in exponents:
        if not 0 < abs(exponent) < 1:
            raise ConeError(f"cone 'p': exponents are in (0, 1), or (-1, 0) for dual cones, got {exponent}")
    return exponents


def _box(lower: Any, upper: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    bl = tuple(_number("bl", bound) for bound in _listed("bl", lower))
    bu = tuple(_number("bu", bound) for bound in _listed("bu", upper))
    if len(bl) != len(bu):
        raise ConeError(f"box cone: 'bl' has {len(bl)} bounds and 'bu' has {len(bu)}")
    for index, (low, high) in enumerate(zip(bl, bu, strict=True)):
        if math.isnan(low) or math.isnan(high) or low == math.inf or high == -math.inf:
            raise ConeError(f"box cone: bounds {low} and {high} at {index} leave no interval")
        if low > high:
            raise ConeError(f"box cone: the lower bound {low} at {index} is above the upper bound {high}")
    return (bl, bu) if bl else (None, None)


def _listed(key: str, value: Any) -> list[Any]:
    """SCS takes a number for a list of one."""
    if isinstance(value, (str, bytes, Mapping)):
        raise ConeError(f"cone {key!r}: expected a list of numbers, got {value!r}")
    return list(np.atleast_1d(value)) if np.ndim(value) <= 1 else _nested(key, value)


def _nested(key: str, value: Any) -> list[Any]:
    raise ConeError(f"cone {key!r}: expected a flat list of numbers, got {value!r}")


def _number(key: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.floating, np.integer)):
        raise ConeError(f"cone {key!r}: expected a number, got {value!r}")
    return float(value)
