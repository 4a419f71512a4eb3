"""The layer as a plain function of MLX arrays: a custom function, whose rules are in `_derivatives`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from conediff.layer.adapter import check_layer, convert
from conediff.layer.calls import check_count
from conediff.layer.layer import CvxpyLayer
from conediff.layer.solution import LayerSolution
from conediff_mlx._arrays import result_dtype, rounding, to_mlx, to_numpy
from conediff_mlx._derivatives import Arrays, Derivatives, as_tuple, filled


def solve(layer: CvxpyLayer, *parameters: Any, solver_args: Mapping[str, Any] | None = None) -> Arrays:
    """Solve a layer's problem; differentiable.

    Parameters
    ----------
    layer : conediff.CvxpyLayer
        A NumPy layer, such as the ``numpy_layer`` of a ``conediff.mlx.CvxpyLayer``.
    *parameters : arrays, shape (..., *parameter.shape)
        One for each parameter, in order. Leading dimensions are batch dimensions. Parameters that
        have some must have the same number of them, which broadcast.
    solver_args : mapping, optional
        Overrides the layer's defaults for this call.

    Returns
    -------
    tuple of mlx.core.array, shape (*batch, *shape)
        The values of the layer's variables, in the dtype that MLX promotes the parameters to.

    Raises
    ------
    AttributeError
        If a parameter is None; the error is a ``ParameterError`` too.
    TypeError
        If the layer is not a NumPy layer, a parameter not an array of numbers, or a solver argument unknown.
    NotImplementedError
        Under ``mx.vmap`` and ``mx.compile``; from a second derivative, if it is differentiated again.
    ParameterError, SolverError, ValueError
        As `conediff.CvxpyLayer.solve`.

    Examples
    --------
    >>> import cvxpy as cp, mlx.core as mx, conediff as cd
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> mx.grad(lambda c: solve(layer, c)[0].sum())(mx.array([1.0, -1.0])).round(decimals=6).abs()
    array([1, 0], dtype=float32)
    """
    check_layer(layer, "conediff.mlx")
    check_count([spec.name for spec in layer.parameters], parameters)
    arrays = [
        value if isinstance(value, mx.array) else convert(spec, value, mx.array)
        for spec, value in zip(layer.parameters, parameters, strict=True)
    ]
    real = result_dtype(arrays)
    dtypes = [mx.complex64 if spec.complex else real for spec in layer.outputs]
    solved: list[LayerSolution] = []
    derivatives = Derivatives(solved, arrays, dtypes)

    def forward(*parameters: mx.array) -> Arrays:
        precision = [rounding(p) for p in parameters]
        solved[:] = [layer.solve(*map(to_numpy, parameters), solver_args=solver_args, precision=precision)]
        return tuple(to_mlx(value, dtype) for value, dtype in zip(solved[0].values, dtypes, strict=True))

    if not arrays:
        return forward()
    function = mx.custom_function(forward)
    function.vjp(lambda primals, cotangents, _: derivatives.pull(as_tuple(primals), as_tuple(cotangents)))
    function.jvp(lambda primals, tangents: derivatives.push(as_tuple(primals), filled(tangents, primals)))
    return as_tuple(function(*arrays))
