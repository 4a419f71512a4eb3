"""How the primitives are differentiated, transposed and mapped.

Under vmap the mapped axis becomes the leading batch dimension of one solve; parameters that are not mapped
stay shared. If cotangents or tangents are mapped and the solution is not (jacrev, jacfwd), each of them is
applied to the same solution, in one callback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.interpreters import ad, batching

from conediff_jax._call import Call
from conediff_jax._levels import Dims, lift, mapped_size, spread
from conediff_jax._primitives import pull_p, push_p, solve_p
from conediff_jax._run import Like

_NO_SECOND = (
    "second derivatives of the layer are not supported: its gradient can be multiplied and added, but not be "
    "differentiated with respect to the layer's parameters. Leave the layer out of the term that needs them "
    "(a gradient penalty, a Hessian), put jax.lax.stop_gradient around its gradient there, or take "
    "differences of gradients"
)


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _chosen(items: Sequence[Any], choice: Sequence[bool]) -> list[Any]:
    return [item for item, chosen in zip(items, choice, strict=True) if chosen]


def _cut(call: Call, items: Sequence[Any]) -> tuple[list[Any], Any, list[Any]]:
    """Split arguments of `push_p` or `pull_p` into parameters, state, and what they are linear in."""
    count = len(call.inner)
    return list(items[:count]), items[count], list(items[count + 1 :])


# ---------------------------------------------------------------------- forward mode


def _solve_jvp(primals: Any, tangents: Any, *, call: Call, keep: bool) -> Any:
    *values, state = solve_p.bind(*primals, call=call, keep=True)
    given = tuple(not _is_zero(t) for t in tangents)
    linear = _chosen(tangents, given)
    pushed = push_p.bind(*primals, state, *linear, call=call.of_derivative(), given=given, many=0)
    if not keep:
        return values, pushed
    return [*values, state], [*pushed, ad.Zero(jax.core.ShapedArray(state.shape, jax.dtypes.float0))]


def _linear_jvp(primitive: Any) -> Any:
    def rule(primals: Any, tangents: Any, *, call: Call, **params: Any) -> Any:
        of_parameters, _, linear = _cut(call, tangents)
        if not all(map(_is_zero, of_parameters)):
            raise NotImplementedError(_NO_SECOND)
        results = primitive.bind(*primals, call=call, **params)
        parameters, state, _ = _cut(call, primals)
        pushed = primitive.bind(*parameters, state, *map(ad.instantiate_zeros, linear), call=call, **params)
        return results, pushed

    return rule


ad.primitive_jvps[solve_p] = _solve_jvp
ad.primitive_jvps[push_p] = _linear_jvp(push_p)
ad.primitive_jvps[pull_p] = _linear_jvp(pull_p)


# ---------------------------------------------------------------------- transposes


def _push_transpose(cotangents: Any, *args: Any, call: Call, given: Any, many: int) -> Any:
    parameters, state, tangents = _cut(call, args)
    unknown = [ad.is_undefined_primal(t) for t in tangents]
    rest = iter(unknown)
    needed = tuple(is_given and next(rest) for is_given in given)
    likes = tuple(Like(tuple(t.aval.shape[many:]), t.aval.dtype) for t in _chosen(tangents, unknown))
    known = tuple(not _is_zero(g) for g in cotangents)
    pulled: Any = [None] * len(likes)
    if any(known):
        pulled = pull_p.bind(
            *parameters,
            state,
            *_chosen(cotangents, known),
            call=call,
            given=known,
            needed=needed,
            likes=likes,
            many=many,
        )
    return [*(None for _ in parameters), None, *_one_for_each(unknown, pulled)]


def _pull_transpose(
    tangents: Any, *args: Any, call: Call, given: Any, needed: Any, likes: Any, many: int
) -> Any:
    parameters, state, cotangents = _cut(call, args)
    unknown = [ad.is_undefined_primal(g) for g in cotangents]
    known = [not _is_zero(t) for t in tangents]
    rest = iter(known)
    given_back = tuple(need and next(rest) for need in needed)
    pushed: Any = [None] * len(cotangents)
    if any(known):
        values = push_p.bind(
            *parameters, state, *_chosen(tangents, known), call=call, given=given_back, many=many
        )
        pushed = _chosen(values, given)
    return [
        *(None for _ in parameters),
        None,
        *(p if u else None for p, u in zip(pushed, unknown, strict=True)),
    ]


def _one_for_each(choice: Sequence[bool], items: Sequence[Any]) -> list[Any]:
    rest = iter(items)
    return [next(rest) if chosen else None for chosen in choice]


ad.primitive_transposes[push_p] = _push_transpose
ad.primitive_transposes[pull_p] = _pull_transpose


# ---------------------------------------------------------------------- vmap


def _lifted(call: Call, parameters: Sequence[Any], dims: Dims, batch: int) -> list[Any]:
    return [lift(p, d, n, batch) for p, d, n in zip(parameters, dims, call.inner, strict=True)]


def _solve_batched(args: Any, dims: Dims, *, call: Call, keep: bool) -> Any:
    mapped = [d is not None for d in dims]
    batch = max(a.ndim - n - m for a, n, m in zip(args, call.inner, mapped, strict=True))
    results = solve_p.bind(*_lifted(call, args, dims, batch), call=call, keep=keep)
    return results, (0,) * len(results)


def _push_batched(args: Any, dims: Dims, *, call: Call, given: Any, many: int) -> Any:
    parameters, state, tangents = _cut(call, args)
    of_parameters, of_state, of_tangents = _cut(call, dims)
    size = mapped_size(args, dims)
    if of_state is None:
        rows = [spread(t, d, size, 0) for t, d in zip(tangents, of_tangents, strict=True)]
        pushed = push_p.bind(*parameters, state, *rows, call=call, given=given, many=many + 1)
        return pushed, (0,) * len(pushed)
    batch = state.ndim - 2
    inner = _chosen(call.inner, given)
    rows = [lift(t, d, n, batch, many) for t, d, n in zip(tangents, of_tangents, inner, strict=True)]
    parameters = _lifted(call, parameters, of_parameters, batch)
    state = spread(state, of_state, size, 0)
    pushed = push_p.bind(*parameters, state, *rows, call=call, given=given, many=many)
    return pushed, (many,) * len(pushed)


def _pull_batched(
    args: Any, dims: Dims, *, call: Call, given: Any, needed: Any, likes: Any, many: int
) -> Any:
    parameters, state, cotangents = _cut(call, args)
    of_parameters, of_state, of_cotangents = _cut(call, dims)
    size = mapped_size(args, dims)
    settings = {"call": call, "given": given, "needed": needed}
    if of_state is None:
        rows = [spread(g, d, size, 0) for g, d in zip(cotangents, of_cotangents, strict=True)]
        pulled = pull_p.bind(*parameters, state, *rows, **settings, likes=likes, many=many + 1)
        return pulled, (0,) * len(pulled)
    batch = state.ndim - 2
    rows = [spread(g, d, size, many) for g, d in zip(cotangents, of_cotangents, strict=True)]
    parameters = _lifted(call, parameters, of_parameters, batch)
    state = spread(state, of_state, size, 0)
    wider = tuple(
        replace(like, shape=(size, *(1,) * (batch + n - len(like.shape)), *like.shape))
        for like, n in zip(likes, _chosen(call.inner, needed), strict=True)
    )
    pulled = pull_p.bind(*parameters, state, *rows, **settings, likes=wider, many=many)
    own = [p.reshape(*p.shape[: many + 1], *like.shape) for p, like in zip(pulled, likes, strict=True)]
    return own, (many,) * len(own)


batching.primitive_batchers[solve_p] = _solve_batched
batching.primitive_batchers[push_p] = _push_batched
batching.primitive_batchers[pull_p] = _pull_batched
