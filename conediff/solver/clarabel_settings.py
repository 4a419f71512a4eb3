"""The settings of Clarabel that users may give: their names and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conediff.solver.scs_settings import checked_number

# Settings that are passed through to Clarabel.
CLARABEL_TOLERANCES = frozenset(
    {"tol_gap_abs", "tol_gap_rel", "tol_feas", "tol_infeas_abs", "tol_infeas_rel", "tol_ktratio"}
)
CLARABEL_SETTINGS = CLARABEL_TOLERANCES | {"max_iter"}


def checked_clarabel_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return Clarabel's settings.

    Raises
    ------
    ValueError
        If a value is out of Clarabel's range.
    """
    return {name: checked_number(name, value, *_range(name)) for name, value in settings.items()}


def _range(name: str) -> tuple[float, float, type]:
    return (0, 2**32, int) if name == "max_iter" else (0, np.inf, float)
