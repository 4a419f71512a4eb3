"""Canonical maps as plain text, so that a saved layer is loaded without pickle and without cvxpy."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from conediff.layer.maps import ProblemMaps

NO_SAVED_MODEL = (
    "{} cannot be exported as a SavedModel: its solver runs in Python, which a SavedModel cannot hold. Use "
    "model.save('model.keras') and keras.saving.load_model instead; the loaded model needs conediff, but "
    "neither cvxpy nor pickle"
)


def encode(maps: ProblemMaps) -> dict[str, Any]:
    """Return the maps in a form that JSON can hold: a header, and a compressed npz file in base64."""
    arrays = maps.to_arrays()
    header = arrays.pop("header")
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return {"header": header, "arrays": base64.b64encode(file.getvalue()).decode("ascii")}


def decode(text: Mapping[str, Any]) -> ProblemMaps:
    """Rebuild the maps from what `encode` returned."""
    file = io.BytesIO(base64.b64decode(text["arrays"]))
    with np.load(file, allow_pickle=False) as arrays:
        return ProblemMaps.from_arrays({"header": text["header"], **arrays})
