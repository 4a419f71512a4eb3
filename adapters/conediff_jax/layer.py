"""The layer as a callable object, which JAX takes for a constant."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import jax

import conediff
from conediff.layer.adapter import LayerMixin, OptLayerMixin
from conediff_jax import functional


class CvxpyLayer(LayerMixin):
    """The solution of a parametrised convex problem, as a differentiable function of JAX arrays.

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

    Notes
    -----
    A layer is a pytree without leaves: it may be a field of a module of Equinox or Flax, and an argument of a
    compiled function. A copy of a layer, as ``copy`` and ``pickle`` make it, is equal to it.

    Examples
    --------
    >>> import cvxpy as cp, jax
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> jax.jacobian(lambda c: layer(c)[0])(jax.numpy.array([1.0, -1.0])).round(6) + 0.0
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """

    def _wrap(self, core: conediff.CvxpyLayer, *_: Any) -> None:
        super()._wrap(core)
        self._identity = uuid.uuid4().hex  # which copies share

    def __call__(self, *parameters: Any, solver_args: Mapping[str, Any] | None = None) -> Any:
        """Solve; see `functional.solve`."""
        values = functional.solve(self.numpy_layer, *parameters, solver_args=solver_args)
        return values[0] if self.numpy_layer.single_output else values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CvxpyLayer) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({repr(self.numpy_layer).partition('(')[2]}"


class OptLayer(OptLayerMixin, CvxpyLayer):
    __doc__ = conediff.OptLayer.__doc__


jax.tree_util.register_static(CvxpyLayer)
jax.tree_util.register_static(OptLayer)
