"""The layer as a plain function of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from conediff.layer.adapter import check_layer, convert
from conediff.layer.calls import check_count
from conediff.layer.layer import CvxpyLayer
from conediff.layer.maps import ParameterSpec
from conediff_jax import _rules  # noqa: F401  (tells JAX how to differentiate and map)
from conediff_jax._call import Call
from conediff_jax._primitives import solve_p


def solve(
    layer: CvxpyLayer, *parameters: Any, solver_args: Mapping[str, Any] | None = None
) -> tuple[jax.Array, ...]:
    """Solve a layer's problem; differentiable.

    Parameters
    ----------
    layer : conediff.CvxpyLayer
        A NumPy layer, such as the ``numpy_layer`` of a ``conediff.jax.CvxpyLayer``.
    *parameters : arrays, shape (..., *parameter.shape)
        One for each parameter, in order. Leading dimensions are batch dimensions. Parameters that
        have some must have the same number of them, which broadcast.
    solver_args : mapping, optional
        Overrides the layer's defaults for this call. Its values are constants of a compiled function.

    Returns
    -------
    tuple of jax.Array, shape (*batch, *shape)
        The values of the layer's variables, in the dtype that JAX promotes the parameters to.

    Raises
    ------
    AttributeError
        If a parameter is None; the error is a ``ParameterError`` too.
    TypeError
        If the layer is not a NumPy layer, a parameter not an array of numbers, or a solver argument unknown
        or traced.
    NotImplementedError
        From a second derivative, if it is differentiated again.
    ParameterError, SolverError, ValueError
        As `conediff.CvxpyLayer.solve`. In compiled code JAX wraps the errors that depend on values in
        ``jax.errors.JaxRuntimeError``; see ``conediff.jax.original_errors``.

    Examples
    --------
    >>> import cvxpy as cp, jax, conediff as cd
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> jax.grad(lambda c: solve(layer, c)[0].sum())(jax.numpy.array([1.0, -1.0])).round(6) + 0.0
    Array([1., 0.], dtype=float32)
    """
    check_layer(layer, "conediff.jax")
    check_count([spec.name for spec in layer.parameters], parameters)
    arrays = [_array(spec, value) for spec, value in zip(layer.parameters, parameters, strict=True)]
    solver_args = dict(solver_args or {})
    for name, value in solver_args.items():
        if isinstance(value, jax.core.Tracer):
            raise TypeError(
                f"the solver argument {name} is traced, but solver arguments are constants of a compiled "
                "function: do not let jit, grad or vmap trace it (static_argnames)"
            )
    return tuple(solve_p.bind(*arrays, call=Call.of(layer, solver_args, arrays), keep=False))


def _array(spec: ParameterSpec, value: Any) -> jax.Array:
    dense = value.todense() if hasattr(value, "todense") else value
    array: jax.Array = dense if isinstance(dense, jax.Array) else convert(spec, dense, jnp.asarray)
    if not jnp.issubdtype(array.dtype, jnp.number) and array.dtype != bool:
        raise TypeError(f"parameter {spec.name!r} must be an array of numbers, but has dtype {array.dtype}")
    return array
