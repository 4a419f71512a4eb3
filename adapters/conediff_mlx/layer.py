"""The layer as a callable object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import conediff
from conediff.layer.adapter import LayerMixin, OptLayerMixin
from conediff_mlx import functional


class CvxpyLayer(LayerMixin):
    """The solution of a parametrised convex problem, as a differentiable function of MLX arrays.

    Parameters
    ----------
    problem : cvxpy.Problem
    parameters : list or tuple of cvxpy.Parameter
        All parameters of the problem, in the order in which calls pass them.
    variables : list or tuple
        The outputs of a call, in this order: variables, dual variables (``constraint.dual_variables[0]``),
        and ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric program.
    solver_args : mapping, optional
        Defaults for every call; see `conediff.CvxpyLayer`.
    single_output : bool
        Whether calls return the only output itself, instead of a tuple of one.
    **of_cvxpylayers
        ``solver``, ``verbose``, ``canon_backend``, ``custom_method``; see `conediff.CvxpyLayer`.

    Raises
    ------
    DPPError, ProblemError, TypeError, ValueError
        As `conediff.CvxpyLayer`.

    Examples
    --------
    >>> import cvxpy as cp, mlx.core as mx
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> mx.grad(lambda c: layer(c)[0].sum())(mx.array([1.0, -1.0])).round(decimals=6).abs()
    array([1, 0], dtype=float32)
    """

    def __call__(self, *parameters: Any, solver_args: Mapping[str, Any] | None = None) -> Any:
        """Solve; see `functional.solve`."""
        values = functional.solve(self.numpy_layer, *parameters, solver_args=solver_args)
        return values[0] if self.numpy_layer.single_output else values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({repr(self.numpy_layer).partition('(')[2]}"


class OptLayer(OptLayerMixin, CvxpyLayer):
    __doc__ = conediff.OptLayer.__doc__
