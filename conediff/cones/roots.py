"""Roots of many increasing functions of one variable at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from conediff.cones.base import Array

Function = Callable[[Array, NDArray[np.intp]], tuple[Array, Array]]

_EPS = float(np.finfo(np.float64).eps)
# Evaluations of one function at most. Bisection alone takes log2(width / 4 _EPS): 300 suffice up to a width
# of 1e75.
_ITERATIONS = 300
# Iterations in which a step across an end is retried in the logarithm; afterwards bisection takes its place,
# which is certain to converge.
_LOGARITHMIC = 30
# Steps of fewer units in the last place than this that do not halve any more are rounding error. Larger: the
# search ends earlier, with errors up to that many units; smaller: it may bisect rounding error to the end.
_ROUNDING = 512


def increasing_root(function: Function, lower: Array, upper: Array, start: Array) -> Array:
    r"""Find the roots of N increasing functions by safeguarded Newton steps.

    A step that leaves its bracket is retried as a Newton step in the logarithm of the distance to the
    end it crossed (exact if the function has a logarithmic pole there). A step that does not halve the
    previous one is replaced by bisection. Elements that have converged are no longer evaluated.

    Parameters
    ----------
    function : callable
        ``function(x, which)`` returns the values and slopes at ``x`` of the functions ``which``, both of
        shape (k,). Values may be infinite: only their sign is used then.
    lower, upper : array, shape (N,)
        Brackets. If a function does not change sign in its bracket, an end is returned.
    start : array, shape (N,)

    Returns
    -------
    array, shape (N,)
        Roots, to a few units in the last place of max(1, |x|) if the function is evaluated that accurately.
    """
    low, high = lower.copy(), upper.copy()
    x = np.clip(start, low, high)
    result = x.copy()
    last = high - low
    which = np.arange(x.size)
    for iteration in range(_ITERATIONS):
        if not which.size:
            break
        value, slope = function(x, which)
        low = np.where(value < 0, x, low)
        high = np.where(value > 0, x, high)
        step = np.where(value == 0, 0.0, -value / slope)
        following = _safeguarded(x, step, low, high, last, iteration)
        moved = np.abs(following - x)
        unit = _EPS * np.maximum(np.abs(x), 1.0)
        # Newton's next error is about the square of this one over the distance to the nearest pole.
        away = np.minimum(np.minimum(x - lower[which], upper[which] - x), 1.0)
        size = np.abs(step)
        last_step = (size <= np.sqrt(unit * away)) | (size <= 4 * unit)
        noise = (size <= _ROUNDING * unit) & (size >= last / 2)
        done = last_step | noise | (high - low <= 4 * unit)
        result[which] = np.where(last_step | noise, np.clip(x + step, low, high), following)
        going = ~done
        which, x, last = which[going], following[going], moved[going]
        low, high = low[going], high[going]
    return result


def _safeguarded(x: Array, step: Array, low: Array, high: Array, last: Array, iteration: int) -> Array:
    """Return the next point: Newton's, or one near the end that Newton's crossed, or the middle."""
    newton = x + step
    following = newton
    if iteration < _LOGARITHMIC and not np.all((low < newton) & (newton < high)):
        left, right = x - low, high - x
        edge = 2 * _EPS * np.maximum(np.abs(x), 1.0)
        with np.errstate(all="ignore"):  # at an end, or if the function is infinite: not used
            to_low = low + np.maximum(left * np.exp(step / left), edge)
            to_high = high - np.maximum(right * np.exp(-step / right), edge)
        following = np.where((newton <= low) & (left > 0), to_low, following)
        following = np.where((newton >= high) & (right > 0), to_high, following)
    inside = (following > low) & (following < high)
    slow = (following == newton) & (np.abs(step) > last / 2)
    return np.where(inside & ~slow, following, low + (high - low) / 2)
