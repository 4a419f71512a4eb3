"""Three autograd functions: the solution, its derivative's adjoint, and its derivative.

`Solve` returns the values of the variables and a handle of the solution (see `_handles`). `Pull` and `Push`
take the handle and are linear in the rest, so each is the other's transpose. The handle depends on the
parameters as the solution does: a gradient that arrives at it, or a tangent on it, asks for a second
derivative, and is refused.

Under vmap a mapped dimension becomes the leading batch dimension of one solve. A handle that is not mapped,
with cotangents or tangents that are (jacrev, jacfwd), stands for one solution and many of those.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from conediff.layer.layer import CvxpyLayer
from conediff_torch import _handles
from conediff_torch._legacy import unbatched
from conediff_torch._levels import Dims, Inputs, lifted
from conediff_torch._refusals import refuse_second
from conediff_torch._solved import Solved

Maybe = Sequence[Tensor | None]
# Whether the running backward pass keeps its graph for another; where torch does not tell, it may.
_keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)


@dataclass
class Call:
    """What of a call is no tensor, and the solution once there is one."""

    layer: CvxpyLayer
    solver_args: Mapping[str, Any]
    dtype: torch.dtype
    device: torch.device
    ticket: _handles.Ticket | None = None


def apply(function: type[torch.autograd.Function], *arguments: Any) -> tuple[Tensor, ...]:
    """Apply an autograd function, which torch does not type."""
    result: tuple[Tensor, ...] = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class Solve(torch.autograd.Function):
    """(call, *parameters) -> (*values, handle)."""

    @staticmethod
    def forward(call: Call, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Solve."""
        solved = Solved(call.layer, call.solver_args, parameters, call.dtype, call.device)
        handle, call.ticket = _handles.issue(solved)
        return (*solved.values(), handle)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the handle, and its ticket as well, should a hook keep a copy of the handle only."""
        call, *parameters = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[-1])
        ctx.save_for_forward(output[-1])
        ctx.ticket = call.ticket
        ctx.inputs = Inputs(
            tuple(len(spec.shape) for spec in call.layer.parameters),
            tuple(tuple(parameter.shape) for parameter in parameters),
            tuple(ctx.needs_input_grad[1:]),
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Pull the cotangents back."""
        *cotangents, second = grads
        refuse_second(second)
        (handle,) = ctx.saved_tensors
        pulled: Maybe = [None] * sum(ctx.inputs.chosen)
        if any(cotangent is not None for cotangent in cotangents):
            pulled = apply(Pull, ctx.inputs, handle, *cotangents)
        if not _keeps_graph():
            ctx.ticket = None
        return (None, *ctx.inputs.spread(pulled))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:
        """Push the tangents forward."""
        (handle,) = ctx.saved_tensors
        inputs = replace(ctx.inputs, chosen=tuple(tangent is not None for tangent in tangents))
        return (*apply(Push, inputs, handle, *inputs.choose(tangents)), torch.zeros_like(handle))

    @staticmethod
    def vmap(info: Any, in_dims: Dims, call: Call, *parameters: Tensor) -> Any:
        """Solve for the whole mapped dimension as one batch."""
        inner = tuple(len(spec.shape) for spec in call.layer.parameters)
        *values, handle = apply(Solve, call, *lifted(inner, info.batch_size, in_dims[1:], parameters))
        return (*values, handle.expand(info.batch_size)), (0,) * (len(values) + 1)


class Pull(torch.autograd.Function):
    """(inputs, handle, *cotangents of the values) -> cotangents of the chosen parameters."""

    @staticmethod
    def forward(inputs: Inputs, handle: Tensor, *cotangents: Tensor | None) -> tuple[Tensor, ...]:
        """Apply the adjoint of the derivative."""
        solved = _handles.redeem(handle)
        return unbatched(lambda *gs: solved.pull(gs, inputs.chosen, inputs.shapes), cotangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the handle."""
        _setup_linear(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        """Push forward: the transpose of the adjoint."""
        (handle,) = ctx.saved_tensors
        pushed: Maybe = [None] * len(ctx.given)
        if any(ctx.needs_input_grad[2:]) and any(tangent is not None for tangent in tangents):
            inputs = ctx.inputs.restricted(tangents)
            pushed = apply(Push, inputs, handle, *(t for t in tangents if t is not None))
            pushed = [value if given else None for value, given in zip(pushed, ctx.given, strict=True)]
        return (None, _second(handle, ctx), *pushed)

    @staticmethod
    def jvp(ctx: Any, _: None, second: Tensor | None, *cotangents: Tensor | None) -> Any:
        """Pull the changes of the cotangents back: the adjoint is linear."""
        refuse_second(second)
        (handle,) = ctx.saved_tensors
        return apply(Pull, ctx.inputs, handle, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, inputs: Inputs, handle: Tensor, *cotangents: Tensor | None) -> Any:
        """Pull back a batch, or many cotangents of one solution."""
        _, own, *dims = in_dims
        if own is None:
            return _one_by_one(info, dims, cotangents, lambda *gs: apply(Pull, inputs, handle, *gs))
        size = info.batch_size
        batch = [
            None if cotangent is None else _in_front(cotangent, dim, size)
            for cotangent, dim in zip(cotangents, dims, strict=True)
        ]
        pulled = apply(Pull, inputs.mapped(size), handle.select(own, 0), *batch)
        shapes = inputs.choose(inputs.shapes)
        own_each = tuple(g.reshape(size, *shape) for g, shape in zip(pulled, shapes, strict=True))
        return own_each, (0,) * len(pulled)


class Push(torch.autograd.Function):
    """(inputs, handle, *tangents of the chosen parameters) -> tangents of the values."""

    @staticmethod
    def forward(inputs: Inputs, handle: Tensor, *tangents: Tensor) -> tuple[Tensor, ...]:
        """Apply the derivative."""
        solved = _handles.redeem(handle)
        return unbatched(lambda *ts: solved.push(inputs.spread(ts)), tangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the handle."""
        _setup_linear(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        """Pull back: the transpose of the derivative."""
        (handle,) = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        pulled: Maybe = [None] * len(wanted)
        if any(wanted) and any(cotangent is not None for cotangent in cotangents):
            pulled = apply(Pull, ctx.inputs, handle, *cotangents)
        return (None, _second(handle, ctx), *pulled)

    @staticmethod
    def jvp(ctx: Any, _: None, second: Tensor | None, *tangents: Tensor | None) -> Any:
        """Push the changes of the tangents forward: the derivative is linear."""
        refuse_second(second)
        (handle,) = ctx.saved_tensors
        return apply(Push, ctx.inputs.restricted(tangents), handle, *(t for t in tangents if t is not None))

    @staticmethod
    def vmap(info: Any, in_dims: Dims, inputs: Inputs, handle: Tensor, *tangents: Tensor) -> Any:
        """Push forward a batch, or many tangents at one solution."""
        _, own, *dims = in_dims
        if own is None:
            return _one_by_one(info, dims, tangents, lambda *ts: apply(Push, inputs, handle, *ts))
        size = info.batch_size
        mapped = inputs.mapped(size)
        batch = [
            tangent if dim is None else tangent.movedim(dim, 0).reshape(shape)
            for tangent, dim, shape in zip(tangents, dims, mapped.choose(mapped.shapes), strict=True)
        ]
        pushed = apply(Push, mapped, handle.select(own, 0), *batch)
        return pushed, (0,) * len(pushed)


# torch asks for these signatures at every call, and computing one takes as long as a small backward pass.
for _function in (Solve, Pull, Push):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _setup_linear(ctx: Any, inputs: tuple[Any, ...]) -> None:
    ctx.inputs, handle, *rest = inputs
    ctx.given = [tensor is not None for tensor in rest]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(handle)
    ctx.save_for_forward(handle)


def _second(handle: Tensor, ctx: Any) -> Tensor | None:
    """Return what `Solve` refuses, if a second derivative goes back so far."""
    return torch.full_like(handle, torch.nan) if ctx.needs_input_grad[1] else None


def _in_front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _one_by_one(info: Any, dims: Dims, tensors: Maybe, function: Callable[..., Sequence[Tensor]]) -> Any:
    """Apply a function to each slice of the mapped dimension."""
    results = []
    for i in range(info.batch_size):
        slices = (
            tensor if tensor is None or dim is None else tensor.select(dim, i)
            for tensor, dim in zip(tensors, dims, strict=True)
        )
        results.append(function(*slices))
    stacked = tuple(torch.stack(list(part)) for part in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)
