"""The settings of SCS that users may give: their names and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

# Settings that are passed through to SCS; `eps` is short for both tolerances.
SCS_SETTINGS = frozenset(
    {
        "normalize",
        "scale",
        "adaptive_scale",
        "adaptive_diag_scale",
        "rho_x",
        "max_iters",
        "eps_abs",
        "eps_rel",
        "eps_infeas",
        "alpha",
        "verbose",
        "acceleration_lookback",
        "acceleration_interval",
        "acceleration_type_1",
        "acceleration_regularization",
        "acceleration_relaxation",
        "write_data_filename",
        "log_csv_filename",
        "linear_solver",
    }
)

# The largest whole number that SCS's int holds where it has 32 bits.
_LARGEST = 2**31 - 1
# Open intervals; SCS itself prints what is wrong and says no more.
_RANGES: dict[str, tuple[float, float, type]] = {
    "eps_abs": (0, np.inf, float),
    "eps_rel": (0, np.inf, float),
    "eps_infeas": (0, np.inf, float),
    "scale": (0, np.inf, float),
    "rho_x": (0, np.inf, float),
    "alpha": (0, 2, float),
    "acceleration_regularization": (-np.inf, np.inf, float),
    "max_iters": (0, _LARGEST + 1, int),
    "acceleration_lookback": (-1, _LARGEST + 1, int),
    "acceleration_interval": (0, _LARGEST + 1, int),
}
# Settings that are true or false; SCS takes some as int.
_SWITCHES = {
    "normalize": bool,
    "adaptive_scale": bool,
    "verbose": bool,
    "adaptive_diag_scale": int,
    "acceleration_type_1": int,
}
# The values of scs.LinearSolver.
_LINEAR_SOLVERS = ("auto", "qdldl", "cpu_indirect", "mkl", "accelerate", "cpu_dense", "gpu_indirect", "cudss")


def checked_number(name: str, value: Any, low: float, high: float, kind: type) -> Any:
    """Return a Python number of this kind; raise ValueError if it is none, or not within (low, high)."""
    right_kind = isinstance(value, Integral if kind is int else Real)
    if isinstance(value, (bool, np.bool_)) or not right_kind or not low < value < high:
        if kind is int:
            bounds = f"whole number from {low + 1:.0f} to {high - 1:.0f}"
        elif np.isinf(low):
            bounds = "finite number"
        else:
            bounds = "number " + (f"above {low:g}" if np.isinf(high) else f"between {low:g} and {high:g}")
        raise ValueError(f"solver setting {name!r} must be a {bounds}, got {_shown(value)}")
    try:
        return kind(value)
    except OverflowError:
        raise ValueError(f"solver setting {name!r} is too large for a float: {_shown(value)}") from None


def _checked_choice(name: str, value: Any) -> Any:
    """Return the value of a setting that is no number; raise ValueError if it has no such value."""
    if name in _SWITCHES:
        if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, Integral) and value in (0, 1)):
            raise ValueError(f"solver setting {name!r} must be True or False, got {_shown(value)}")
        return _SWITCHES[name](value)
    if name == "acceleration_relaxation":
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not 0 <= float(value) <= 2:
            raise ValueError(f"solver setting {name!r} must be a number from 0 to 2, got {_shown(value)}")
        return float(value)
    if name == "linear_solver":
        value = getattr(value, "value", value)  # of scs.LinearSolver
        if value not in _LINEAR_SOLVERS:
            known = ", ".join(_LINEAR_SOLVERS)
            raise ValueError(f"solver setting {name!r} must be one of {known}; got {_shown(value)}")
        return value
    if value is not None and not isinstance(value, str):
        raise ValueError(f"solver setting {name!r} must be a file name or None, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """Return the value as a message shows it, at most 80 characters."""
    return f"{value!r:.80}"


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return SCS's settings with ``eps`` spelt out.

    Raises
    ------
    TypeError
        If a name is not one of SCS's; the message lists those that are.
    ValueError
        If a value is out of SCS's range.
    """
    unknown = sorted(set(settings) - SCS_SETTINGS - {"eps"})
    if unknown:
        known = ", ".join(sorted(SCS_SETTINGS | {"eps"}))
        raise TypeError(f"unknown solver setting {unknown[0]!r}; the settings of SCS are: {known}")
    result = dict(settings)
    eps = result.pop("eps", None)
    if eps is not None:
        result.setdefault("eps_abs", eps)
        result.setdefault("eps_rel", eps)
    for name, value in result.items():
        if name in _RANGES:
            result[name] = checked_number(name, value, *_RANGES[name])
        else:
            result[name] = _checked_choice(name, value)
    return result
