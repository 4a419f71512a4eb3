"""The layer as a plain function of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conediff.layer.adapter import check_given, check_layer
from conediff.layer.calls import check_count
from conediff.layer.layer import CvxpyLayer
from conediff_torch import _operator
from conediff_torch._autograd import Solve, apply
from conediff_torch._dynamo_disabled import dynamo_disabled
from conediff_torch._solved import Call


def solve(
    layer: CvxpyLayer,
    *parameters: Any,
    solver_args: Mapping[str, Any] | None = None,
    **named: Tensor,
) -> tuple[Tensor, ...]:
    """Solve a layer's problem; differentiable.

    Parameters
    ----------
    layer : conediff.CvxpyLayer
        A NumPy layer, such as the ``numpy_layer`` of a ``conediff.torch.CvxpyLayer``.
    *parameters : Tensor, shape (..., *parameter.shape)
        One for each parameter, in order; or one dictionary of them, by the cvxpy parameters or their names.
        Leading dimensions are batch dimensions. Parameters that have some must have the same number of them,
        which broadcast.
    solver_args : mapping, optional
        Overrides the layer's defaults for this call.
    **named : Tensor
        The parameters by their names, in place of ``parameters``.

    Returns
    -------
    tuple of Tensor, shape (*batch, *shape)
        The values of the layer's variables, in the parameters' dtype and on their device.

    Raises
    ------
    AttributeError
        If a parameter is None; the error is a ``ParameterError`` too.
    TypeError
        If the layer is not a NumPy layer, a parameter not a tensor, or a solver argument unknown.
    RuntimeError
        If the parameters are on different devices.
    NotImplementedError
        Under ``torch.jit.trace``; from a second derivative, or the gradient of a compiled layer, if it is
        differentiated again.
    ParameterError, SolverError, ValueError
        As `conediff.CvxpyLayer.solve`.

    Examples
    --------
    >>> import cvxpy as cp, torch, conediff as cd
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> c_t = torch.tensor([1.0, -1.0], requires_grad=True)
    >>> (x_t,) = solve(layer, c_t)
    >>> x_t.sum().backward()
    >>> c_t.grad.round(decimals=6).abs()
    tensor([1., 0.])
    """
    check_layer(layer, "conediff.torch")
    if named or (len(parameters) == 1 and isinstance(parameters[0], dict)):
        parameters = tuple(layer.inputs.ordered(parameters, named))
    if not parameters:
        check_count([spec.name for spec in layer.parameters], parameters)
    for k, parameter in enumerate(parameters):
        if not isinstance(parameter, Tensor):
            _refuse(layer, k, parameter)
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise NotImplementedError("torch.jit.trace would record the solution as a constant: use torch.export")
    tensors = [p if p.layout is torch.strided else p.to_dense() for p in parameters]
    if torch.compiler.is_compiling() or any(p.is_meta for p in tensors):
        return _operator.solve(layer, tensors, solver_args)
    return _solve_eagerly(layer, tensors, solver_args or {})


@dynamo_disabled
def _solve_eagerly(
    layer: CvxpyLayer, tensors: Sequence[Tensor], solver_args: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    return apply(Solve, Call.of(layer, solver_args, tensors), *tensors)[:-2]


def _refuse(layer: CvxpyLayer, k: int, parameter: Any) -> None:
    name = layer.parameters[k].name if k < len(layer.parameters) else str(k)
    check_given(name, parameter, "a tensor")
    raise TypeError(
        f"parameter {name!r} must be a torch.Tensor, but is a {type(parameter).__name__}: convert it by "
        "torch.as_tensor"
    )
