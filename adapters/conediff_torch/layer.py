"""The layer as a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import conediff
from conediff_torch import _operator, functional


class CvxpyLayer(torch.nn.Module):
    """The solution of a parametrised convex problem, as a differentiable module.

    Parameters
    ----------
    problem : cvxpy.Problem
    parameters : list or tuple of cvxpy.Parameter
        All parameters of the problem, in the order in which calls pass them.
    variables : list or tuple
        What calls return, in this order: variables, dual variables (``constraint.dual_variables[0]``), and
        ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric program.
    solver_args : mapping, optional
        Defaults for every call; see `conediff.CvxpyLayer`.
    **of_cvxpylayers
        ``solver``, ``verbose``, ``canon_backend``, ``custom_method``; see `conediff.CvxpyLayer`.

    Raises
    ------
    DPPError, ProblemError, TypeError, ValueError
        As `conediff.CvxpyLayer`.

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

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        gp: bool = False,
        solver_args: Mapping[str, Any] | None = None,
        **of_cvxpylayers: Any,
    ) -> None:
        super().__init__()
        stated = problem, parameters, variables, gp, solver_args
        self._wrap(conediff.CvxpyLayer(*stated, **of_cvxpylayers))

    def _wrap(self, layer: conediff.CvxpyLayer) -> None:
        self.numpy_layer = layer
        _operator.register(layer)

    @property
    def info(self) -> dict[str, Any]:
        """How the last call went, per element: status, iterations, residual; and times in seconds."""
        return self.numpy_layer.info

    def forward(
        self, *parameters: Tensor, solver_args: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, ...]:
        """Solve; see `functional.solve`."""
        return functional.solve(self.numpy_layer, *parameters, solver_args=solver_args)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _operator.register(self.numpy_layer)

    def extra_repr(self) -> str:
        """Describe the parameters and variables."""
        return repr(self.numpy_layer).partition("(")[2][:-1]


class OptLayer(CvxpyLayer):
    """A module whose problem is stated by Python functions.

    Parameters
    ----------
    variables, parameters : lists of cvxpy.Variable, cvxpy.Parameter
    objective : callable
        Takes the variables, then the parameters; returns the expression to minimise.
    inequalities, equalities : lists of callables, optional
        Of the same arguments: g with g <= 0, h with h == 0.
    **solver_args
        Defaults for every call.

    Notes
    -----
    The functions are called once, with cvxpy objects only. A call returns one tensor where there is one
    variable, and a tuple of them otherwise.

    Examples
    --------
    >>> import cvxpy as cp, torch
    >>> layer = OptLayer(
    ...     [cp.Variable(2)], [cp.Parameter(2)], lambda z, x: cp.sum_squares(z - x), [lambda z, x: -z], []
    ... )
    >>> layer(torch.tensor([1.0, -1.0])).round(decimals=6).abs()
    tensor([1., 0.])
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
        torch.nn.Module.__init__(self)
        stated = variables, parameters, objective, inequalities, equalities
        self._wrap(conediff.OptLayer(*stated, **solver_args))

    def forward(self, *parameters: Tensor, solver_args: Mapping[str, Any] | None = None) -> Any:
        """Solve; return one tensor where there is one variable."""
        values = super().forward(*parameters, solver_args=solver_args)
        return values[0] if len(values) == 1 else values
