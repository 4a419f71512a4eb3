"""The layer as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import conediff
from conediff.layer.adapter import LayerMixin, OptLayerMixin
from conediff_torch import _compiled_calls, functional


class CvxpyLayer(LayerMixin, torch.nn.Module):
    """The solution of a parametrised convex problem, as a differentiable module.

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
        Whether calls return the only output itself, as ``torch.nn.Sequential`` needs it, instead of a tuple
        of one.
    **of_cvxpylayers
        ``solver``, ``verbose``, ``canon_backend``, ``custom_method``; see `conediff.CvxpyLayer`.

    Raises
    ------
    DPPError, ProblemError, TypeError, ValueError
        As `conediff.CvxpyLayer`.

    Notes
    -----
    Input shape: for each parameter, ``(..., *parameter.shape)``. The leading dimensions are the batch.
    Parameters that have some must have the same number of them, which broadcast.

    Output shape: for each variable ``(..., *variable.shape)``, for the optimal value ``(...)``, with the
    dimensions of the batch in front. The layer solves on the CPU.

    Examples
    --------
    >>> import cvxpy as cp, torch
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> c_t = torch.tensor([1.0, -1.0], requires_grad=True)
    >>> (x_t,) = layer(c_t)
    >>> x_t.sum().backward()
    >>> c_t.grad.round(decimals=6).abs()
    tensor([1., 0.])
    """

    def _wrap(self, core: conediff.CvxpyLayer, *_: Any) -> None:
        torch.nn.Module.__init__(self)
        super()._wrap(core)
        _compiled_calls.register_layer(core)

    def forward(self, *parameters: Any, solver_args: Mapping[str, Any] | None = None, **named: Tensor) -> Any:
        """Solve; see `functional.solve`."""
        values = functional.solve(self.numpy_layer, *parameters, solver_args=solver_args, **named)
        return values[0] if self.numpy_layer.single_output else values

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _compiled_calls.register_layer(self.numpy_layer)

    def extra_repr(self) -> str:
        """Describe the parameters and variables."""
        return repr(self.numpy_layer).partition("(")[2][:-1]


class OptLayer(OptLayerMixin, CvxpyLayer):
    __doc__ = conediff.OptLayer.__doc__
