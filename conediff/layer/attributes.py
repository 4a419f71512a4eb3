"""Checks of a parameter's values: finite, and as the parameter was declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.errors import ParameterError
from conediff.layer.constants import DEFINITE_TOLERANCE, SIGN_TOLERANCE, STRUCTURE_TOLERANCE
from conediff.layer.maps import ParameterSpec


def check_finite(spec: ParameterSpec, array: NDArray[Any]) -> None:
    """Raise ParameterError at the first NaN or infinity."""
    if not np.isfinite(array).all():
        _refuse(spec, array, ~np.isfinite(array), "is not finite:")


def check_attributes(spec: ParameterSpec, array: NDArray[Any], precision: float = 0.0) -> None:
    """Raise ParameterError if a value violates a declared attribute or bound of its parameter.

    Tolerances are relative to the largest entry, and at least 100 roundings of the value's precision. Where
    the maps do not read what violates an attribute (the antisymmetric part of a symmetric matrix, entries
    outside of a pattern, the real part of an imaginary number), only gross violations are refused.
    """
    if array.size == 0 or not (
        spec.attributes or spec.log or spec.lower is not None or spec.upper is not None
    ):
        return
    if array.dtype.kind in "fc":
        precision = max(precision, float(np.finfo(array.real.dtype).eps))
    largest = float(np.abs(array).max())

    def slack_of(tolerance: float) -> float:
        return max(tolerance, 100 * precision) * largest

    if spec.log and not (array.real > 0).all():
        _refuse(spec, array, ~(array.real > 0), "must be positive in a geometric program, but")
    for attribute in spec.attributes:
        if attribute in _VIOLATED:
            slack = slack_of(_TOLERANCES.get(attribute, SIGN_TOLERANCE))
            if attribute in ("integer", "boolean"):
                slack = max(slack, DEFINITE_TOLERANCE)  # whole numbers are one apart
            bad = _VIOLATED[attribute](array, slack)
        elif attribute in ("diag", "sparsity") and spec.pattern is not None:
            slack = slack_of(STRUCTURE_TOLERANCE)
            bad = _off_pattern(spec, array, slack)
        else:
            continue
        if bad.any():
            _refuse(spec, array, bad, f"is declared {_WORDS.get(attribute, attribute)}, but", slack)
        if attribute in ("PSD", "NSD"):
            _check_definite(spec, array, slack_of(DEFINITE_TOLERANCE), attribute)
    slack = slack_of(SIGN_TOLERANCE)
    for bound, sign, word in ((spec.lower, 1, "below"), (spec.upper, -1, "above")):
        if bound is not None:
            bad = sign * (array.real - bound) < -slack
            if bad.any():
                _refuse(spec, array, bad, f"is {word} its declared bound:", slack)


def _check_definite(spec: ParameterSpec, array: NDArray[Any], slack: float, attribute: str) -> None:
    """Raise ParameterError if a symmetric matrix has an eigenvalue of the wrong sign."""
    wide = array.astype(np.result_type(array.dtype, np.float64))
    values = np.linalg.eigvalsh((wide + wide.conj().swapaxes(-1, -2)) / 2)  # what the maps read
    word, extreme = ("smallest", values[..., 0]) if attribute == "PSD" else ("largest", values[..., -1])
    bad = extreme < -slack if attribute == "PSD" else extreme > slack
    if bad.any():
        where = _first(spec, bad)
        raise ParameterError(
            f"parameter {spec.name!r} is declared {attribute}, but the {word} eigenvalue of {where[0]} is "
            f"{extreme[where[1]]:.3g}{_opting_out(slack)}"
        )


def _off_symmetry(array: NDArray[Any], slack: float) -> Any:
    return np.abs(array - array.conj().swapaxes(-1, -2)) > slack


# For each attribute, a function that returns True at the entries that violate it by more than a slack.
_VIOLATED: dict[str, Callable[[NDArray[Any], float], Any]] = {
    "nonneg": lambda a, slack: a < -slack,
    "nonpos": lambda a, slack: a > slack,
    "pos": lambda a, slack: a < -slack,  # zero is accepted, as by cvxpy; logarithms are checked apart
    "neg": lambda a, slack: a > slack,
    "imag": lambda a, slack: np.abs(a.real) > slack,
    "symmetric": _off_symmetry,
    "hermitian": _off_symmetry,
    "PSD": _off_symmetry,
    "NSD": _off_symmetry,
    "integer": lambda a, slack: np.abs(a - np.round(a.real)) > slack,
    "boolean": lambda a, slack: np.minimum(np.abs(a), np.abs(a - 1)) > slack,
}

_TOLERANCES = {
    **dict.fromkeys(("imag", "symmetric", "hermitian", "PSD", "NSD"), STRUCTURE_TOLERANCE),
    **dict.fromkeys(("integer", "boolean"), DEFINITE_TOLERANCE),
}

# How messages name attributes whose names do not say everything.
_WORDS = {
    "PSD": "PSD, hence symmetric (Hermitian if complex)",
    "NSD": "NSD, hence symmetric (Hermitian if complex)",
    "sparsity": "sparse, zero outside of its pattern",
}


def _off_pattern(spec: ParameterSpec, array: NDArray[Any], slack: float) -> Any:
    outside = np.ones(int(np.prod(spec.shape)), dtype=bool)
    outside[spec.pattern] = False
    return (np.abs(array) > slack) & outside.reshape(spec.shape)


def _refuse(
    spec: ParameterSpec, array: NDArray[Any], bad: NDArray[np.bool_], what: str, slack: float | None = None
) -> None:
    where, index = _first(spec, bad)
    said = f"{where} is {array[index]}"
    if "symmetric" in what or "hermitian" in what:
        mirrored = (*index[:-2], index[-1], index[-2])
        said += f" and {_place(spec, mirrored)} is {array[mirrored]}"
    raise ParameterError(f"parameter {spec.name!r} {what} {said}{_opting_out(slack)}")


def _first(spec: ParameterSpec, bad: NDArray[np.bool_]) -> tuple[str, tuple[int, ...]]:
    """Return the first entry where ``bad`` is True, as text and as an index."""
    index = tuple(int(i) for i in np.argwhere(bad)[0]) if np.ndim(bad) else ()
    return _place(spec, index), index


def _place(spec: ParameterSpec, index: tuple[int, ...]) -> str:
    return f"{spec.name}[{', '.join(map(str, index))}]" if index else spec.name


def _opting_out(slack: float | None) -> str:
    if slack is None:
        return ""
    return f" (tolerance {slack:.1e}; solver_args={{'validate': False}} skips this check)"
