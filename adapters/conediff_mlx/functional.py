"""The layer as a plain function of MLX arrays.

The solution is a custom function of MLX's, whose derivative and its adjoint are custom functions in turn:
MLX takes the arrays that a rule computes outside of MLX for constants, so that a second derivative would
silently be zero; those of the derivative raise an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from conediff.layer.calls import check_count
from conediff.layer.layer import CvxpyLayer
from conediff.layer.solution import LayerSolution
from conediff_mlx._arrays import is_inexact, result_dtype, rounding, to_mlx, to_numpy

Arrays = tuple[mx.array, ...]


def solve(layer: CvxpyLayer, *parameters: Any, solver_args: Mapping[str, Any] | None = None) -> Arrays:
    """Solve a layer's problem; differentiable.

    Parameters
    ----------
    layer : conediff.CvxpyLayer
        A NumPy layer, such as the ``numpy_layer`` of a ``conediff.mlx.CvxpyLayer``.
    *parameters : arrays, shape (..., *parameter.shape)
        One for each parameter, in order. Leading dimensions are batch dimensions, and broadcast.
    solver_args : mapping, optional
        Overrides the layer's defaults for this call.

    Returns
    -------
    tuple of mlx.core.array, shape (*batch, *shape)
        The values of the layer's variables, in the dtype that MLX promotes the parameters to.

    Raises
    ------
    AttributeError
        If a parameter is None.
    TypeError
        If the layer is not a NumPy layer, a parameter not an array, or a solver argument unknown.
    NotImplementedError
        Under ``mx.vmap`` and ``mx.compile``; from a derivative, if it is differentiated again.
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
    if not isinstance(layer, CvxpyLayer):
        raise TypeError(
            "functional.solve takes a NumPy layer (conediff.CvxpyLayer; of a conediff.mlx layer, its "
            f"numpy_layer), but got a {type(layer).__module__}.{type(layer).__name__}"
        )
    check_count([spec.name for spec in layer.parameters], parameters)
    arrays = [_array(spec.name, value) for spec, value in zip(layer.parameters, parameters, strict=True)]
    real = result_dtype(arrays)
    dtypes = [mx.complex64 if spec.complex else real for spec in layer.outputs]
    solved: list[LayerSolution] = []

    def forward(*parameters: mx.array) -> Arrays:
        solution = layer.solve(
            *map(to_numpy, parameters), solver_args=solver_args, precision=[rounding(p) for p in parameters]
        )
        solved[:] = [solution]
        return tuple(to_mlx(value, dtype) for value, dtype in zip(solution.values, dtypes, strict=True))

    def pull(parameters: Any, cotangents: Any, _: Any) -> Arrays:
        """Return cotangents of the parameters: zero for integers."""
        given = _tuple(parameters)
        needed = [is_inexact(p) for p in given]

        def run(*arrays: mx.array) -> Arrays:
            found = solved[0].vjp(*map(to_numpy, arrays[len(given) :]), needed=needed)
            return tuple(
                mx.zeros_like(p) if g is None else to_mlx(g, p.dtype)
                for g, p in zip(found, given, strict=True)
            )

        return _once(run)(*given, *_tuple(cotangents))

    def push(parameters: Any, tangents: Any) -> Arrays:
        """Return tangents of the values; None stands for a tangent that is zero."""
        given, changes = _tuple(parameters), _tuple(tangents)
        some = [t for t in changes if t is not None]

        def run(*arrays: mx.array) -> Arrays:
            rest = iter(arrays[len(given) :])
            found = solved[0].jvp(*(None if t is None else to_numpy(next(rest)) for t in changes))
            return tuple(to_mlx(value, dtype) for value, dtype in zip(found, dtypes, strict=True))

        return _once(run)(*given, *some)

    if not arrays:
        return forward()
    function = mx.custom_function(forward)
    function.vjp(pull)
    function.jvp(push)
    return _tuple(function(*arrays))


def _once(run: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """Return a function whose derivatives are an error."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(
            "second derivatives of the layer are not supported: its gradient can be used, but not be "
            "differentiated again. Leave the layer out of the term that needs them, put mx.stop_gradient "
            "around its gradient there, or take differences of gradients"
        )

    function = mx.custom_function(run)
    function.vjp(refuse)
    function.jvp(refuse)
    return lambda *arrays: _tuple(function(*arrays))


def _tuple(items: Any) -> tuple[Any, ...]:
    """Return what MLX passes as one item if there is one, and as several otherwise."""
    return tuple(items) if isinstance(items, Sequence) else (items,)


def _array(name: str, value: Any) -> mx.array:
    if value is None:
        raise AttributeError(f"parameter {name!r} is None: pass an array")
    if isinstance(value, Mapping):
        raise TypeError(f"parameter {name!r} must be an array, but is a dict: pass solver_args by name")
    return value if isinstance(value, mx.array) else mx.array(value)
