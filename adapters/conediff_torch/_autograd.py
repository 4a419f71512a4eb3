"""Five autograd functions: the solution, its derivative's adjoint and derivative, and their derivatives.

`Solve` returns the values of the variables, a base, and a handle of the solution (see `_handles`). The base
stands for all that a derivative of the layer depends on: parameters where maps are not linear in them, data
of the cone program, and its solution (`LayerSolution.push`). Its numbers are never read, they are in the
solution; but its cotangents and tangents carry second derivatives.

`Pull` and `Push` depend on the base, and are linear in their other arguments; each is the other's transpose.
`Curve` is the derivative of either with respect to the base, in reverse mode, and `Turn` that of `Push` in
forward mode. To differentiate these would give third derivatives, and is refused.

Under vmap the mapped dimension becomes the leading batch dimension of one solve. If cotangents or tangents
are mapped and the handle is not (jacrev, jacfwd), each of them is applied to the same solution.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from conediff_torch import _handles
from conediff_torch._legacy import unbatched
from conediff_torch._levels import Dims, Inputs, expanded, lifted, one_by_one
from conediff_torch._refusals import refuse_third
from conediff_torch._solved import Call, Solved

Maybe = Sequence[Tensor | None]
# Whether the running backward pass keeps its graph for another one; if torch does not tell, assume that it
# does.
_keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)


def apply(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, ...]:
    """Apply an autograd function, which torch does not type."""
    result: tuple[Tensor, ...] = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class Solve(torch.autograd.Function):
    """(call, *parameters) -> (*values, base, handle)."""

    @staticmethod
    def forward(call: Call, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Solve."""
        solved = Solved(call, parameters)
        handle, call.keep_alive = _handles.register(solved)
        return (*solved.values(), solved.base(), handle)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the base and the handle."""
        call, *parameters = inputs
        _save(ctx, output[-1], output[-2])
        ctx.mark_non_differentiable(output[-1])
        # A hook may save a copy of the handle only, so the solution is kept alive here too.
        ctx.keep_alive = call.keep_alive
        ctx.inputs = Inputs(
            call.inner, tuple(tuple(p.shape) for p in parameters), tuple(ctx.needs_input_grad[1:])
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Pull the cotangents back."""
        *cotangents, gbase, _ = grads
        pulled: Maybe = [None] * len(ctx.inputs.chosen)
        if any(ctx.inputs.chosen) and _any(gbase, *cotangents):
            *found, _ = apply(Pull, ctx.inputs, *ctx.saved_tensors, gbase, *cotangents)
            pulled = ctx.inputs.one_for_each(found)
        if not _keeps_graph():
            ctx.keep_alive = None
        return (None, *pulled)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:
        """Push the tangents forward."""
        return (*apply(Push, ctx.inputs, *ctx.saved_tensors, *tangents), None)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, call: Call, *parameters: Tensor) -> Any:
        """Solve for the whole mapped dimension as one batch."""
        tensors = lifted(call.layer.parameters, info.batch_size, in_dims[1:], parameters)
        *values, handle = apply(Solve, call, *tensors)
        return (*values, handle.expand(info.batch_size)), (0,) * (len(values) + 1)


class Pull(torch.autograd.Function):
    """(inputs, handle, base, cotangent of the base, *of the values) -> (*of chosen parameters, multipliers).

    The multipliers are those of the adjoint system, which `Curve` needs.
    """

    @staticmethod
    def forward(
        inputs: Inputs, handle: Tensor, base: Tensor, gbase: Tensor | None, *cotangents: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Apply the adjoint of the derivative."""
        pull = partial(_handles.lookup(handle).pull, inputs.chosen, inputs.shapes)
        return unbatched(pull, (gbase, *cotangents))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save what second derivatives need."""
        ctx.inputs, *tensors = inputs
        _save(ctx, *tensors, output[-1])
        ctx.mark_non_differentiable(output[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Push forward, the transpose of the adjoint; `Curve` for the base."""
        handle, base, gbase, *cotangents, multipliers = ctx.saved_tensors
        *tangents, _ = grads
        _, _, curved, *linear = ctx.needs_input_grad
        if not any((curved, *linear)) or not _any(*tangents):
            return (None,) * len(ctx.needs_input_grad)
        *values, dbase = apply(Push, ctx.inputs, handle, base, *ctx.inputs.one_for_each(tangents))
        own = None
        if curved:
            own = apply(Curve, False, handle, base, dbase, multipliers, gbase, *cotangents)[0]
        pushed = (g if need else None for g, need in zip((dbase, *values), linear, strict=True))
        return (None, None, own, *pushed)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, dbase: Tensor | None, dgbase: Tensor | None, *dg: Any) -> Any:
        """Pull back the change of the cotangents, and what a change of the base amounts to."""
        handle, base, gbase, *cotangents, multipliers = ctx.saved_tensors
        if dbase is not None:
            own = apply(Curve, True, handle, base, dbase, multipliers, gbase, *cotangents)[0]
            dgbase = own if dgbase is None else own + dgbase
        return (*apply(Pull, ctx.inputs, handle, base, dgbase, *dg)[:-1], None)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, inputs: Inputs, handle: Tensor, base: Tensor, *gs: Any) -> Any:
        """Pull back a batch, or many cotangents of one solution."""
        (_, own, at, *dims), size = in_dims, info.batch_size
        if own is None:
            each = one_by_one(partial(apply, Pull, inputs, handle, base), size, dims, gs)
            return each, (0,) * len(each)
        batch = expanded(size, (at, *dims), (base, *gs))
        *pulled, multipliers = apply(Pull, inputs.mapped(size), handle.select(own, 0), *batch)
        shapes = inputs.choose(inputs.shapes)
        pulled = [g.reshape(size, *shape) for g, shape in zip(pulled, shapes, strict=True)]
        return (*pulled, multipliers), (0,) * (len(pulled) + 1)


class Push(torch.autograd.Function):
    """(inputs, handle, base, *tangents of the parameters) -> (*tangents of the values, of the base)."""

    @staticmethod
    def forward(inputs: Inputs, handle: Tensor, base: Tensor, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Apply the derivative."""
        return unbatched(_handles.lookup(handle).push, tangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save what second derivatives need."""
        ctx.inputs, handle, base, *_ = inputs
        _save(ctx, handle, base, output[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Pull back, the transpose of the derivative; `Curve` for the base."""
        handle, base, dbase = ctx.saved_tensors
        *cotangents, gbase = grads
        _, _, curved, *chosen = ctx.needs_input_grad
        if not any((curved, *chosen)) or not _any(gbase, *cotangents):
            return (None,) * len(ctx.needs_input_grad)
        inputs = replace(ctx.inputs, chosen=tuple(chosen))
        *pulled, multipliers = apply(Pull, inputs, handle, base, gbase, *cotangents)
        own = None
        if curved:
            own = apply(Curve, False, handle, base, dbase, multipliers, gbase, *cotangents)[0]
        return (None, None, own, *inputs.one_for_each(pulled))

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, change: Tensor | None, *tangents: Tensor | None) -> Any:
        """Push forward the change of the tangents, and add what a change of the base amounts to."""
        handle, base, dbase = ctx.saved_tensors
        pushed = apply(Push, ctx.inputs, handle, base, *tangents)
        if change is None:
            return pushed
        turned = apply(Turn, handle, base, change, dbase)
        return tuple(first + second for first, second in zip(pushed, turned, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: Dims, inputs: Inputs, handle: Tensor, base: Tensor, *tangents: Any) -> Any:
        """Push forward a batch, or many tangents at one solution."""
        (_, own, at, *dims), size = in_dims, info.batch_size
        if own is None:
            pushed = one_by_one(partial(apply, Push, inputs, handle, base), size, dims, tangents)
            return pushed, (0,) * len(pushed)
        mapped = inputs.mapped(size)
        batch = [
            t if t is None or dim is None else t.movedim(dim, 0).reshape(shape)
            for t, dim, shape in zip(tangents, dims, mapped.shapes, strict=True)
        ]
        pushed = apply(Push, mapped, handle.select(own, 0), *expanded(size, (at,), (base,)), *batch)
        return pushed, (0,) * len(pushed)


class Curve(torch.autograd.Function):
    """(forward, handle, base, tangent of the base, multipliers, cotangent of the base, *of the values)
    -> (cotangent of the base,).

    What `Pull` and `Push` add where they are differentiated with respect to the base: in reverse mode, or in
    forward mode (of `Pull`). The tangent is that of push(ω), and the multipliers are those of pull(g).
    """

    @staticmethod
    def forward(forward: bool, handle: Tensor, base: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Apply the formula."""
        return unbatched(partial(_handles.lookup(handle).curve, forward), tensors)

    setup_context = staticmethod(_save_nothing)
    backward = jvp = staticmethod(refuse_third)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, forward: bool, *tensors: Tensor | None) -> Any:
        """Compute for a batch, or many times at one solution."""
        return _mapped(partial(apply, Curve, forward), info.batch_size, in_dims[1:], tensors)


class Turn(torch.autograd.Function):
    """(handle, base, change of the base, tangent of the base) -> (*tangents of the values, of the base).

    How push(ω) changes with the base; the tangent is that of push(ω).
    """

    @staticmethod
    def forward(handle: Tensor, base: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Apply the formula."""
        return unbatched(_handles.lookup(handle).turn, tensors)

    setup_context = staticmethod(_save_nothing)
    backward = jvp = staticmethod(refuse_third)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *tensors: Tensor | None) -> Any:
        """Compute for a batch, or many times at one solution."""
        return _mapped(partial(apply, Turn), info.batch_size, in_dims, tensors)


# torch reads these signatures at every call; computing one takes as long as a small backward pass.
for _function in (Solve, Pull, Push, Curve, Turn):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _save(ctx: Any, *tensors: Tensor | None) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _mapped(function: Callable[..., Any], size: int, dims: Dims, tensors: Sequence[Tensor | None]) -> Any:
    """Apply a function of a handle, a base and more under vmap."""
    handle, *rest = tensors
    own, *others = dims
    assert handle is not None
    if own is None:
        found = one_by_one(partial(function, handle), size, others, rest)
    else:
        found = function(handle.select(own, 0), *expanded(size, others, rest))
    return found, (0,) * len(found)


def _any(*tensors: Tensor | None) -> bool:
    return any(tensor is not None for tensor in tensors)
