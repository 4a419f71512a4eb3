"""Errors in compiled code, which JAX raises as errors of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import jax

# The last errors that layers raised in compiled code; several, because a pmap may raise several at once.
_raised: deque[Exception] = deque(maxlen=8)


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember the error that a callback raises."""

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            _raised.append(error)
            raise

    return call


@contextmanager
def original_errors() -> Iterator[None]:
    """Raise the errors of layers in compiled code as they are, not as JAX wraps them.

    JAX raises ``jax.errors.JaxRuntimeError`` for an error inside a compiled function; its message contains
    the error's type and message. In this context, which is a decorator too, the error itself is raised, with
    its attributes. On an accelerator, where a call returns before it is finished, wait for its result
    (``jax.block_until_ready``) inside.

    Examples
    --------
    >>> import cvxpy as cp, jax, conediff
    >>> from conediff.jax import CvxpyLayer, original_errors
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= c, cp.sum(x) <= 1])
    >>> layer = CvxpyLayer(problem, [c], [x])
    >>> try:
    ...     with original_errors():
    ...         _ = jax.jit(layer)(jax.numpy.array([2.0, 2.0]))
    ... except conediff.SolverError as error:
    ...     print(error.statuses)
    ('infeasible',)
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as wrapped:
        for error in reversed(_raised):
            if f"{type(error).__name__}: {error}" in str(wrapped):
                _raised.remove(error)
                raise error from wrapped
        raise
