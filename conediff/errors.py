"""All errors and warnings of conediff, each with a common base class."""

from __future__ import annotations

import sys
import warnings
from typing import Any

# Packages whose code calls conediff for the user: `warn` skips their lines to point at the user's own.
_LIBRARIES = {
    *("conediff", "conediff_torch", "conediff_tensorflow", "conediff_jax", "conediff_mlx"),
    *("torch", "tensorflow", "keras", "jax", "equinox", "flax", "mlx", "cvxpy"),
}


class ConediffError(Exception):
    """Base class of the errors that conediff raises."""


class ProblemError(ConediffError, ValueError):
    """The problem cannot be used: it is not convex, mixed-integer, or unsupported."""


class DPPError(ProblemError):
    """The problem is convex, but does not follow the rules of disciplined parametrised programming (DPP)."""


class ConeError(ConediffError, ValueError):
    """A cone specification is malformed or does not fit the data."""


class ParameterError(ConediffError, ValueError):
    """A parameter's value is not finite or violates the parameter's declaration."""


class SolverError(ConediffError, RuntimeError):
    """Some elements of a batch have no accurate solution.

    Attributes
    ----------
    indices : tuple of tuple of int
        Batch indices of the elements that failed.
    statuses : tuple of str
        Statuses of these elements, in the same order.
    solutions : object or None
        The results for the whole batch, including certificates of infeasibility.
    """

    def __init__(
        self,
        message: str,
        indices: tuple[tuple[int, ...], ...] = (),
        statuses: tuple[str, ...] = (),
        solutions: Any = None,
    ) -> None:
        super().__init__(message)
        self.indices = indices
        self.statuses = statuses
        self.solutions = solutions


class ExecutorError(ConediffError, RuntimeError):
    """An executor does not accept jobs, or has lost one too often."""


class ConediffWarning(UserWarning):
    """Base class of the warnings that conediff issues."""


class AccuracyWarning(ConediffWarning):
    """A solution or a derivative is less accurate than the requested tolerance."""


class DegeneracyWarning(ConediffWarning):
    """The solution map is not differentiable here; the least-squares derivative is returned."""


def warn(message: str, category: type[ConediffWarning]) -> None:
    """Issue a warning that points at the first calling line outside of conediff and the frameworks."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_library(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_library(module: str) -> bool:
    """Return whether the module belongs to conediff or a framework."""
    return module.partition(".")[0] in _LIBRARIES
