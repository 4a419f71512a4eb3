"""Three autograd functions: the solution, its derivative's adjoint, and its derivative.

`Solve` returns the values of the variables and a handle of the solution (see `_handles`). `Pull` and `Push`
take the handle and are linear in their other arguments; each is the other's transpose. The handle depends on
the parameters as the solution does: a gradient or tangent of the handle is part of a second derivative, and
is refused.

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
from conediff_torch._levels import Dims, Inputs, lifted, one_by_one
from conediff_torch._refusals import refuse_second
from conediff_torch._solved import Call, Solved

Maybe = Sequence[Tensor | None]
# Whether the running backward pass keeps its graph for another one; if torch does not tell, assume that it
# does.
_keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)


def apply(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, ...]:
    """Apply an autograd function, which torch does not type."""
    result: tuple[Tensor, ...] = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class Solve(torch.autograd.Function):
    """(call, *parameters) -> (*values, handle)."""

    @staticmethod
    def forward(call: Call, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Solve."""
        solved = Solved(call, parameters)
        handle, call.keep_alive = _handles.register(solved)
        return (*solved.values(), handle)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the handle."""
        call, *parameters = inputs
        _save_handle(ctx, output[-1])
        # A hook may save a copy of the handle only, so the solution is kept alive here too.
        ctx.keep_alive = call.keep_alive
        ctx.inputs = Inputs(
            call.inner, tuple(tuple(p.shape) for p in parameters), tuple(ctx.needs_input_grad[1:])
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Pull the cotangents back."""
        *cotangents, second = grads
        refuse_second(second)
        pulled = _pull_if_any(ctx, ctx.inputs, cotangents)
        if not _keeps_graph():
            ctx.keep_alive = None
        return (None, *pulled)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:
        """Push the tangents forward."""
        (handle,) = ctx.saved_tensors
        return (*apply(Push, ctx.inputs, handle, *tangents), torch.zeros_like(handle))

    @staticmethod
    def vmap(info: Any, in_dims: Dims, call: Call, *parameters: Tensor) -> Any:
        """Solve for the whole mapped dimension as one batch."""
        *values, handle = apply(Solve, call, *lifted(call.inner, info.batch_size, in_dims[1:], parameters))
        return (*values, handle.expand(info.batch_size)), (0,) * (len(values) + 1)


class Pull(torch.autograd.Function):
    """(inputs, handle, *cotangents of the values) -> cotangents of the chosen parameters."""

    @staticmethod
    def forward(inputs: Inputs, handle: Tensor, *cotangents: Tensor | None) -> tuple[Tensor, ...]:
        """Apply the adjoint of the derivative."""
        solved = _handles.lookup(handle)
        return unbatched(lambda *gs: solved.pull(gs, inputs.chosen, inputs.shapes), cotangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save the handle."""
        ctx.inputs = inputs[0]
        _save_handle(ctx, inputs[1])

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        """Push forward: the transpose of the adjoint."""
        (handle,) = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        pushed: Maybe = [None] * len(needed)
        if any(needed) and any(tangent is not None for tangent in tangents):
            pushed = apply(Push, ctx.inputs, handle, *ctx.inputs.one_for_each(tangents))
            pushed = [value if need else None for value, need in zip(pushed, needed, strict=True)]
        return (None, _second(handle, ctx), *pushed)

    @staticmethod
    def jvp(ctx: Any, _: None, second: Tensor | None, *cotangents: Tensor | None) -> Any:
        """Pull the changes of the cotangents back: the adjoint is linear."""
        refuse_second(second)
        return apply(Pull, ctx.inputs, *ctx.saved_tensors, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, inputs: Inputs, handle: Tensor, *cotangents: Tensor | None) -> Any:
        """Pull back a batch, or many cotangents of one solution."""
        _, own, *dims = in_dims
        if own is None:
            pulled = one_by_one(partial(apply, Pull, inputs, handle), info.batch_size, dims, cotangents)
            return pulled, (0,) * len(pulled)
        size = info.batch_size
        batch = [
            g if g is None else g.expand(size, *g.shape) if dim is None else g.movedim(dim, 0)
            for g, dim in zip(cotangents, dims, strict=True)
        ]
        pulled = apply(Pull, inputs.mapped(size), handle.select(own, 0), *batch)
        shapes = inputs.choose(inputs.shapes)
        own_each = tuple(g.reshape(size, *shape) for g, shape in zip(pulled, shapes, strict=True))
        return own_each, (0,) * len(pulled)


class Push(torch.autograd.Function):
    """(inputs, handle, *tangents of the parameters) -> tangents of the values."""

    @staticmethod
    def forward(inputs: Inputs, handle: Tensor, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Apply the derivative."""
        solved = _handles.lookup(handle)
        return unbatched(lambda *ts: solved.push(ts), tangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save the handle."""
        ctx.inputs = inputs[0]
        _save_handle(ctx, inputs[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        """Pull back: the transpose of the derivative."""
        (handle,) = ctx.saved_tensors
        inputs = replace(ctx.inputs, chosen=tuple(ctx.needs_input_grad[2:]))
        return (None, _second(handle, ctx), *_pull_if_any(ctx, inputs, cotangents))

    @staticmethod
    def jvp(ctx: Any, _: None, second: Tensor | None, *tangents: Tensor | None) -> Any:
        """Push the changes of the tangents forward: the derivative is linear."""
        refuse_second(second)
        return apply(Push, ctx.inputs, *ctx.saved_tensors, *tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, inputs: Inputs, handle: Tensor, *tangents: Tensor | None) -> Any:
        """Push forward a batch, or many tangents at one solution."""
        _, own, *dims = in_dims
        if own is None:
            pushed = one_by_one(partial(apply, Push, inputs, handle), info.batch_size, dims, tangents)
            return pushed, (0,) * len(pushed)
        mapped = inputs.mapped(info.batch_size)
        batch = [
            t if t is None or dim is None else t.movedim(dim, 0).reshape(shape)
            for t, dim, shape in zip(tangents, dims, mapped.shapes, strict=True)
        ]
        pushed = apply(Push, mapped, handle.select(own, 0), *batch)
        return pushed, (0,) * len(pushed)


# torch reads these signatures at every call; computing one takes as long as a small backward pass.
for _function in (Solve, Pull, Push):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _save_handle(ctx: Any, handle: Tensor) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(handle)
    ctx.save_for_forward(handle)


def _pull_if_any(ctx: Any, inputs: Inputs, cotangents: Maybe) -> Maybe:
    """Return one cotangent for each parameter: None if it needs none, or if all given cotangents are None."""
    (handle,) = ctx.saved_tensors
    if not any(inputs.chosen) or all(cotangent is None for cotangent in cotangents):
        return [None] * len(inputs.chosen)
    return inputs.one_for_each(apply(Pull, inputs, handle, *cotangents))


def _second(handle: Tensor, ctx: Any) -> Tensor | None:
    """Return the cotangent of the handle, which `Solve` refuses; None if the handle needs none."""
    return torch.full_like(handle, torch.nan) if ctx.needs_input_grad[1] else None
