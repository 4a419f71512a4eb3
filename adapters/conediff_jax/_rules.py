"""How the primitives are differentiated, transposed and mapped.

Under vmap the mapped axis becomes the leading batch dimension of one solve; parameters that are not mapped
stay shared. If tangents or cotangents are mapped and the solution is not (jacrev, jacfwd), the derivative is
taken of each of them at the same solution, in one callback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching

from conediff.layer.adapter import third_derivatives
from conediff_jax._call import Call
from conediff_jax._levels import Dims, lift, mapped_size, spread
from conediff_jax._primitives import curve_p, pull_p, push_p, solve_p, turn_p
from conediff_jax._run import Like

# For each primitive, of what its groups hold: tangents of parameters, or cotangents of values.
_KINDS = {push_p: ("tangents",), pull_p: ("cotangents",)} | {
    turn_p: ("tangents", "tangents"),
    curve_p: ("cotangents", "tangents"),
}
# The change of a primitive along the parameters: itself with a group of tangents more.
_CHANGE = {push_p: turn_p, pull_p: curve_p}


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _chosen(items: Sequence[Any], choice: Sequence[bool]) -> list[Any]:
    return [item for item, chosen in zip(items, choice, strict=True) if chosen]


def _among(group: Sequence[bool], chosen: Sequence[bool]) -> tuple[bool, ...]:
    """Return the group without its members that are not chosen; there is a choice for each member."""
    rest = iter(chosen)
    return tuple(is_there and next(rest) for is_there in group)


def _cut(call: Call, items: Sequence[Any], groups: Any) -> tuple[list[Any], Any, list[list[Any]]]:
    """Split arguments of a derivative into parameters, state, and groups."""
    count = len(call.inner)
    rest = iter(items[count + 1 :])
    return list(items[:count]), items[count], [[next(rest) for _ in range(sum(group))] for group in groups]


def _joined(parts: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for part in parts for item in part]


# ---------------------------------------------------------------------- forward mode


def _solve_jvp(primals: Any, tangents: Any, *, call: Call, keep: bool) -> Any:
    *values, state = solve_p.bind(*primals, call=call, keep=True)
    given = tuple(not _is_zero(t) for t in tangents)
    linear = _chosen(tangents, given)
    pushed = push_p.bind(*primals, state, *linear, call=call.of_derivative(), groups=(given,), many=0)
    if not keep:
        return values, pushed
    return [*values, state], [*pushed, ad.Zero(jax.core.ShapedArray(state.shape, jax.dtypes.float0))]


def _derivative_jvp(
    primitive: Any, primals: Any, tangents: Any, *, call: Call, groups: Any, **rest: Any
) -> Any:
    results = primitive.bind(*primals, call=call, groups=groups, **rest)
    parameters, state, parts = _cut(call, primals, groups)
    along, _, changes = _cut(call, tangents, groups)
    terms = []
    for k, part in enumerate(changes):
        if not all(map(_is_zero, part)):
            rows = _joined([*parts[:k], [ad.instantiate_zeros(t) for t in part], *parts[k + 1 :]])
            terms.append(primitive.bind(*parameters, state, *rows, call=call, groups=groups, **rest))
    given = tuple(not _is_zero(t) for t in along)
    if any(given):
        if primitive not in _CHANGE:
            raise third_derivatives("put jax.lax.stop_gradient around")
        front = parts[0][0].shape[: rest["many"]]
        rows = [jnp.broadcast_to(t, front + t.shape) for t in _chosen(along, given)]
        change, groups = _CHANGE[primitive], (*groups, given)
        terms.append(
            change.bind(*parameters, state, *_joined(parts), *rows, call=call, groups=groups, **rest)
        )
    return results, [sum(term[1:], start=term[0]) for term in zip(*terms, strict=True)]


# ---------------------------------------------------------------------- transposes


def _transpose(
    primitive: Any,
    incoming: Any,
    *args: Any,
    call: Call,
    groups: Any,
    many: int,
    needed: Any = (),
    likes: Any = (),
) -> Any:
    """Transpose in the one group that is unknown.

    What comes in are cotangents of values (of `push_p` and `turn_p`) or tangents of the needed parameters (of
    the others). It takes the place of the unknown group in the primitive that returns what that group holds.
    """
    parameters, state, parts = _cut(call, args, groups)
    unknown = [[ad.is_undefined_primal(item) for item in part] for part in parts]
    (k,) = (k for k, flags in enumerate(unknown) if any(flags))
    there = tuple(not _is_zero(item) for item in incoming)
    found: Any = [None] * len(parts[k])
    if any(there):
        rows, of_values = _chosen(incoming, there), not needed
        group = there if of_values else _among(needed, there)
        others, rest = [*groups[:k], *groups[k + 1 :]], [*parts[:k], *parts[k + 1 :]]
        # Cotangents are the first group of a primitive.
        first = of_values or not others or _KINDS[primitive][k] == "cotangents"
        groups_now = (group, *others) if first else (*others, group)
        rows = _joined([rows, *rest] if first else [*rest, rows])
        settings = {"call": call, "groups": groups_now, "many": many}
        if _KINDS[primitive][k] == "cotangents":
            values = (turn_p if others else push_p).bind(*parameters, state, *rows, **settings)
            found = _chosen(values, groups[k])
        else:
            asked = tuple(
                Like(tuple(t.aval.shape[many:]), t.aval.dtype) for t in _chosen(parts[k], unknown[k])
            )
            settings |= {"needed": _among(groups[k], unknown[k]), "likes": asked}
            pulled = iter((curve_p if others else pull_p).bind(*parameters, state, *rows, **settings))
            found = [next(pulled) if flag else None for flag in unknown[k]]
    found = [item if flag else None for item, flag in zip(found, unknown[k], strict=True)]
    nothing = [[None] * len(part) for part in parts]
    return [*(None for _ in parameters), None, *_joined([*nothing[:k], found, *nothing[k + 1 :]])]


# ---------------------------------------------------------------------- vmap


def _lifted(call: Call, parameters: Sequence[Any], dims: Dims, batch: int) -> list[Any]:
    return [lift(p, d, n, batch) for p, d, n in zip(parameters, dims, call.inner, strict=True)]


def _solve_batched(args: Any, dims: Dims, *, call: Call, keep: bool) -> Any:
    mapped = [d is not None for d in dims]
    batch = max(a.ndim - n - m for a, n, m in zip(args, call.inner, mapped, strict=True))
    results = solve_p.bind(*_lifted(call, args, dims, batch), call=call, keep=keep)
    return results, (0,) * len(results)


def _batched(
    primitive: Any, args: Any, dims: Dims, *, call: Call, groups: Any, many: int, **cotangents: Any
) -> Any:
    parameters, state, parts = _cut(call, args, groups)
    of_parameters, of_state, of_parts = _cut(call, dims, groups)
    size = mapped_size(args, dims)
    if of_state is None:
        rows = [spread(a, d, size, 0) for a, d in zip(_joined(parts), _joined(of_parts), strict=True)]
        settings = {"call": call, "groups": groups, "many": many + 1, **cotangents}
        results = primitive.bind(*parameters, state, *rows, **settings)
        return results, (0,) * len(results)
    batch = state.ndim - 2
    rows = []
    for kind, group, part, own in zip(_KINDS[primitive], groups, parts, of_parts, strict=True):
        if kind == "cotangents":
            rows += [spread(g, d, size, many) for g, d in zip(part, own, strict=True)]
        else:
            inner = _chosen(call.inner, group)
            rows += [lift(t, d, n, batch, many) for t, d, n in zip(part, own, inner, strict=True)]
    parameters = _lifted(call, parameters, of_parameters, batch)
    state = spread(state, of_state, size, 0)
    settings = {"call": call, "groups": groups, "many": many}
    if not cotangents:
        results = primitive.bind(*parameters, state, *rows, **settings)
        return results, (many,) * len(results)
    needed, likes = cotangents["needed"], cotangents["likes"]
    wider = tuple(
        replace(like, shape=(size, *(1,) * (batch + n - len(like.shape)), *like.shape))
        for like, n in zip(likes, _chosen(call.inner, needed), strict=True)
    )
    pulled = primitive.bind(*parameters, state, *rows, **settings, needed=needed, likes=wider)
    own = [p.reshape(*p.shape[: many + 1], *like.shape) for p, like in zip(pulled, likes, strict=True)]
    return own, (many,) * len(own)


ad.primitive_jvps[solve_p] = _solve_jvp
batching.primitive_batchers[solve_p] = _solve_batched
for _primitive in _KINDS:
    ad.primitive_jvps[_primitive] = partial(_derivative_jvp, _primitive)
    ad.primitive_transposes[_primitive] = partial(_transpose, _primitive)
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
