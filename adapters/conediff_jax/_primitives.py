"""Five primitives: the solution, its derivatives of first and second order, and their adjoints.

With z(θ) the values, t and u tangents of θ, and g a cotangent of z:

    solve_p(θ)          z
    push_p(θ, t)        z'[t]
    pull_p(θ, g)        g z'
    turn_p(θ, t, u)     z''[t, u]
    curve_p(θ, g, t)    g z''[t, .]

All but the first take the state of the solution (see `_kept`) behind the parameters. Derivatives and
transposes of the derivatives are among them: push and pull are each other's transpose, turn and curve too,
and curve is its own in t. So one function has both modes, of which ``jax.custom_vjp`` and ``jax.custom_jvp``
around a callback offer one each. `_rules` tells JAX's transformations about them.

Outside of jit a primitive runs at once, without XLA, and its errors are those that it raises. Inside, it is a
``jax.pure_callback``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from conediff_jax import _run
from conediff_jax._call import Call
from conediff_jax._errors import recorded
from conediff_jax._kept import width

Avals = list[jax.core.ShapedArray]
ShapedArray = jax.core.ShapedArray


def solve_avals(*parameters: Any, call: Call, keep: bool) -> Avals:
    """Return shapes and dtypes of the values and, with ``keep``, of the state."""
    batch = call.batch([p.shape for p in parameters])
    values = _values(call, batch)
    structure = call.core.maps.structure
    state = ShapedArray((*batch, width(structure.n, structure.m)), np.dtype(np.uint32))
    return [*values, state] if keep else values


def value_avals(*args: Any, call: Call, groups: Sequence[_run.Group], many: int) -> Avals:
    """Return shapes and dtypes of arrays like the values."""
    state, linear = args[len(call.inner)], args[len(call.inner) + 1 :]
    return _values(call, linear[0].shape[:many] + state.shape[:-1])


def cotangent_avals(
    *args: Any,
    call: Call,
    groups: Sequence[_run.Group],
    needed: _run.Group,
    likes: Sequence[_run.Like],
    many: int,
) -> Avals:
    """Return shapes and dtypes of the cotangents of the needed parameters."""
    linear = args[len(call.inner) + 1 :]
    return [ShapedArray(linear[0].shape[:many] + like.shape, like.dtype) for like in likes]


def _values(call: Call, lead: tuple[int, ...]) -> Avals:
    return [ShapedArray(lead + s, d) for s, d in zip(call.shapes, call.dtypes, strict=True)]


def _primitive(name: str, run: Callable[..., list[Any]], avals: Callable[..., Avals]) -> Any:
    """Make a primitive of a function of NumPy arrays that returns a list of them."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(avals)

    def staged(*args: Any, **params: Any) -> Any:
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals(*args, **params)]
        callback = recorded(lambda *arrays: run(*map(np.asarray, arrays), **params))
        return jax.pure_callback(callback, shapes, *args)

    def at_once(*args: Any, **params: Any) -> list[Any]:
        device = _device(args)
        # JAX may share the memory of these copies, and write into it if the user donates the array.
        results = [np.array(result, order="C") for result in run(*map(np.asarray, args), **params)]
        arrays = list(jax.device_put(results, device))
        if params.get("keep"):
            params["call"].kept.give(results[-1], arrays[-1])
        return arrays

    primitive.def_impl(at_once)
    mlir.register_lowering(primitive, mlir.lower_fun(staged, multiple_results=True))
    return primitive


def _device(args: Sequence[Any]) -> Any:
    """Return the device of the results; None if arrays may be anywhere, or are distributed over devices.

    Raises
    ------
    ValueError
        If arrays are on different devices.
    """
    placed = {frozenset(arg.devices()) for arg in args if isinstance(arg, jax.Array) and arg.committed}
    if len(placed) > 1:
        found = " and ".join(sorted(str(sorted(map(str, devices))) for devices in placed))
        raise ValueError(f"expected all arrays to be on the same device, but found {found}")
    devices = placed.pop() if placed else frozenset()
    return next(iter(devices)) if len(devices) == 1 else None


solve_p = _primitive("conediff_solve", _run.solve, solve_avals)
push_p = _primitive("conediff_push", _run.push, value_avals)
pull_p = _primitive("conediff_pull", _run.pull, cotangent_avals)
turn_p = _primitive("conediff_turn", _run.turn, value_avals)
curve_p = _primitive("conediff_curve", _run.curve, cotangent_avals)
