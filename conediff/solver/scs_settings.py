"""The settings of SCS that users may give: their names and ranges."""

from __future__ import annotations

from collections.abc import Mapping
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
        "time_limit_secs",
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

# Open intervals; SCS itself prints what is wrong and says no more.
_RANGES: dict[str, tuple[float, float, type]] = {
    "eps_abs": (0, np.inf, float),
    "eps_rel": (0, np.inf, float),
    "eps_infeas": (0, np.inf, float),
    "scale": (0, np.inf, float),
    "rho_x": (0, np.inf, float),
    "alpha": (0, 2, float),
    "max_iters": (0, np.inf, int),
    "acceleration_lookback": (-1, np.inf, int),
    "acceleration_interval": (0, np.inf, int),
}


def _checked(name: str, value: Any, low: float, high: float, kind: type) -> None:
    """Raise where a number is not of its kind, or not within (low, high)."""
    right_kind = isinstance(value, (int, np.integer) if kind is int else (int, float, np.number))
    if isinstance(value, bool) or not right_kind or not low < value < high:
        bounds = f"above {low:g}" if np.isinf(high) else f"between {low:g} and {high:g}"
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"solver setting {name!r} must be {what} {bounds}, got {value!r}")


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
    for name, (low, high, kind) in _RANGES.items():
        if name in result:
            _checked(name, result[name], low, high, kind)
    return result
