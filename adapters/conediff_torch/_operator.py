"""The layer as custom operators, which torch.compile takes into its graphs without looking inside.

``conediff::solve`` returns the values of the variables, and the handle of the solution (see `_handles`), from
which ``conediff::pull`` computes cotangents of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conediff.layer.calls import batch_shape
from conediff.layer.layer import CvxpyLayer
from conediff.layer.maps import ParameterSpec
from conediff_torch import _compiled_calls, _handles
from conediff_torch._arrays import result_device, result_dtype
from conediff_torch._levels import check_batch, lifted
from conediff_torch._refusals import refuse_graph_of_backward, refuse_second, refuse_tangents
from conediff_torch._solved import Call, Solved


def solve(
    layer: CvxpyLayer, parameters: Sequence[Tensor], solver_args: Mapping[str, Any] | None
) -> tuple[Tensor, ...]:
    """Solve by the operator; torch.compile traces this function."""
    refuse_tangents()  # The operators check again, because torch.func hides the tangents from this one.
    names, floats, ints, others = _compiled_calls.split(solver_args or {})
    call = _compiled_calls.register(id(layer), names, *others)
    return tuple(torch.ops.conediff.solve(parameters, call, floats, ints)[:-1])


@torch.library.custom_op("conediff::solve", mutates_args=())
def _solve(
    parameters: Sequence[Tensor], call: int, floats: Sequence[float], ints: Sequence[int]
) -> list[Tensor]:
    refuse_tangents()
    compiled, layer = _compiled_calls.lookup(call)
    solved = Solved(Call.of(layer, compiled.solver_args(floats, ints), parameters), parameters)
    handle, _ = _handles.register(solved)
    return [*solved.values(), handle]


@_solve.register_fake
def _(parameters: Sequence[Tensor], call: int, *_: Any) -> list[Tensor]:
    layer = _compiled_calls.lookup(call)[1]
    batch = _batch(layer.parameters, [p.shape for p in parameters])
    dtype, device = result_dtype(parameters), result_device(parameters)
    values = [
        torch.empty((*batch, *spec.shape), dtype=dtype.to_complex() if spec.complex else dtype, device=device)
        for spec in layer.outputs
    ]
    return [*values, torch.empty((), dtype=torch.float64)]


def _batch(specs: Sequence[ParameterSpec], shapes: Sequence[torch.Size]) -> Sequence[int]:
    """Return the batch shape. Sizes may be symbols, which the core's checks take for unknown sizes."""
    check_batch(specs, shapes)
    leading = [shape[: len(shape) - len(spec.shape)] for shape, spec in zip(shapes, specs, strict=True)]
    try:
        batch: Sequence[int] = torch.broadcast_shapes(*leading)  # type: ignore[no-untyped-call]
    except RuntimeError:
        batch_shape(specs, [tuple(map(int, shape)) for shape in shapes])
        raise
    return batch


@torch.library.custom_op("conediff::pull", mutates_args=())
def _pull(
    handle: Tensor,
    cotangents: Sequence[Tensor],
    given: Sequence[int],
    like: Sequence[Tensor],
    needed: Sequence[int],
    recorded: bool,
) -> list[Tensor]:
    """Pull cotangents back; ``recorded`` says whether autograd records the call and may differentiate it."""
    refuse_tangents()
    if not recorded:
        refuse_graph_of_backward()
    solved = _handles.lookup(handle)
    every: list[Tensor | None] = [None] * solved.count
    for k, cotangent in zip(given, cotangents, strict=True):
        every[k] = cotangent
    chosen, shapes = [k in needed for k in range(len(like))], [tuple(p.shape) for p in like]
    return solved.pull(chosen, shapes, None, *every)[:-1]


@_pull.register_fake
def _(
    handle: Tensor, cotangents: Any, given: Any, like: Sequence[Tensor], needed: Sequence[int], *_: Any
) -> list[Tensor]:
    return [torch.empty(like[k].shape, dtype=like[k].dtype, device=like[k].device) for k in needed]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[-1])
    ctx.kinds = [(p.shape, p.dtype, p.device) for p in inputs[0]]
    # Gradients have the structure of the inputs; torch takes an empty list of numbers for one of tensors.
    ctx.rest = [[] if isinstance(value, list) and not value else None for value in inputs[1:]]


def _backward(ctx: Any, grads: list[Tensor | None]) -> Any:
    (handle,) = ctx.saved_tensors
    needed = [k for k, need in enumerate(ctx.needs_input_grad[0]) if need]
    given = [k for k, grad in enumerate(grads[:-1]) if grad is not None]
    result: list[Tensor | None] = [None] * len(ctx.kinds)
    if given:
        # Shapes, dtypes and devices, as tensors that take no memory.
        like = [torch.empty((), dtype=dtype, device=dev).expand(shape) for shape, dtype, dev in ctx.kinds]
        cotangents, recorded = [grads[k] for k in given], torch.is_grad_enabled()
        pulled = torch.ops.conediff.pull(handle, cotangents, given, like, needed, recorded)
        for k, grad in zip(needed, pulled, strict=True):
            result[k] = grad
    return result, *ctx.rest


_solve.register_autograd(_backward, setup_context=_setup_context)
_pull.register_autograd(refuse_second)


@_solve.register_vmap
def _(
    info: Any, in_dims: Any, parameters: Sequence[Tensor], call: int, *numbers: Any
) -> tuple[list[Tensor], list[int]]:
    specs = _compiled_calls.lookup(call)[1].parameters
    tensors = lifted(specs, info.batch_size, in_dims[0], parameters)
    *values, handle = torch.ops.conediff.solve(tensors, call, *numbers)
    return [*values, handle.expand(info.batch_size)], [0] * (len(values) + 1)
