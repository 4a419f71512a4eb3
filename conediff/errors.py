"""Everything conediff raises or warns: one base class, one sentence each."""

from __future__ import annotations

import sys
import warnings
from typing import Any

# Packages whose lines are not the user's.
_INSIDE = {"conediff", "conediff_torch", "conediff_tensorflow", "torch", "tensorflow", "keras"}


class ConediffError(Exception):
    """Base class of the errors that conediff raises."""


class ProblemError(ConediffError, ValueError):
    """The problem itself cannot be used (not convex, mixed-integer, unsupported)."""


class DPPError(ProblemError):
    """The problem is convex, but not disciplined in its parameters (not DPP)."""


class ConeError(ConediffError, ValueError):
    """A cone specification is malformed, or does not fit the data."""


class ParameterError(ConediffError, ValueError):
    """A parameter's value is not finite, or violates what was declared of it."""


class SolverError(ConediffError, RuntimeError):
    """Some elements of a batch have no accurate solution.

    Attributes
    ----------
    indices : tuple of tuple of int
        Batch indices of the elements that failed.
    statuses : tuple of str
        Their statuses, in the same order.
    solutions : object or None
        What was computed for the whole batch, certificates of infeasibility included.
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
    """An executor takes no work, or lost it too often."""


class ConediffWarning(UserWarning):
    """Base class of the warnings that conediff issues."""


class AccuracyWarning(ConediffWarning):
    """A solution or a derivative is less accurate than was asked for."""


class DegeneracyWarning(ConediffWarning):
    """The solution map is not differentiable here; the least-squares answer is returned."""


def warn(message: str, category: type[ConediffWarning]) -> None:
    """Issue a warning that points at the first line outside of conediff and the frameworks that call it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in _INSIDE
