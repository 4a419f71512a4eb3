"""A layer whose problem is stated by Python functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conediff.layer.layer import CvxpyLayer


class OptLayer(CvxpyLayer):
    """A layer whose problem is stated by Python functions.

    Parameters
    ----------
    variables, parameters : lists of cvxpy.Variable, cvxpy.Parameter
    objective : callable
        Takes the variables, then the parameters; returns the expression to minimise.
    inequalities, equalities : lists of callables, optional
        Take the same arguments; return g, where g <= 0, and h, where h == 0.
    **solver_args
        Defaults for every call, as of `CvxpyLayer`. The Keras layer also takes ``weights``, ``name``,
        ``dtype`` and ``trainable`` here.

    Notes
    -----
    The functions are called once, with cvxpy objects. A call of the layer returns one array (in an adapter,
    one tensor) if there is one variable, and a tuple of them otherwise.

    Examples
    --------
    With NumPy; the layers in ``conediff.torch``, ``conediff.tensorflow``, ``conediff.jax`` and
    ``conediff.mlx`` are made in the same way and take the framework's tensors.

    >>> import cvxpy as cp, numpy as np, conediff as cd
    >>> layer = cd.OptLayer(
    ...     [cp.Variable(2)], [cp.Parameter(2)], lambda z, x: cp.sum_squares(z - x), [lambda z, x: -z]
    ... )
    >>> layer(np.array([1.0, -1.0])).round(6) + 0.0
    array([1., 0.])
    """

    def __init__(
        self,
        variables: Sequence[Any],
        parameters: Sequence[Any],
        objective: Callable[..., Any],
        inequalities: Sequence[Callable[..., Any]] = (),
        equalities: Sequence[Callable[..., Any]] = (),
        **solver_args: Any,
    ) -> None:
        from conediff.layer.canonical import build_problem

        problem = build_problem(variables, parameters, objective, inequalities, equalities)
        single_output = len(variables) == 1
        super().__init__(problem, parameters, variables, solver_args=solver_args, single_output=single_output)
