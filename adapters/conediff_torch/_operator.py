"""The layer as custom operators, which torch.compile takes into its graphs without looking inside.

Operators take tensors and plain values only. So a layer is passed by its identity, the solver arguments of a
call as their names and values, and a solution by its handle (see `_handles`).
"""

from __future__ import annotations

import ast
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conediff.layer.arguments import batch_shape
from conediff.layer.layer import CvxpyLayer
from conediff.layer.maps import ParameterSpec
from conediff_torch import _handles
from conediff_torch._arrays import result_device, result_dtype
from conediff_torch._levels import lifted
from conediff_torch._refusals import refuse_graph_of_compiled_gradient, refuse_second, refuse_tangents
from conediff_torch._solved import Solved

_layers: weakref.WeakValueDictionary[int, CvxpyLayer] = weakref.WeakValueDictionary()


def register(layer: CvxpyLayer) -> None:
    """Make a layer known to the operators, as long as it lives."""
    _layers[id(layer)] = layer


def solve(
    layer: CvxpyLayer, parameters: Sequence[Tensor], solver_args: Mapping[str, Any] | None
) -> tuple[Tensor, ...]:
    """Solve by the operator; what is written here torch.compile reads."""
    refuse_tangents()  # as torch.compile sees it; the operators look again, for there torch.func hides it
    given = solver_args or {}
    # Numbers apart from the rest, so that a new value needs no new graph.
    floats = [value for value in given.values() if type(value) is float]
    ints = [value for value in given.values() if type(value) is int]
    words = [_word(name, value) for name, value in given.items()]
    return tuple(torch.ops.conediff.solve(parameters, id(layer), ";".join(words), floats, ints)[:-1])


def _word(name: str, value: Any) -> str:
    if type(value) is float:
        return f"{name}:f"
    if type(value) is int:
        return f"{name}:i"
    return f"{name}={value!r}"


def _arguments(words: str, floats: Sequence[float], ints: Sequence[int]) -> dict[str, Any]:
    """Undo what `solve` did to the solver arguments."""
    numbers = {"f": iter(floats), "i": iter(ints)}
    result: dict[str, Any] = {}
    for word in filter(None, words.split(";")):
        name, equals, literal = word.partition("=")
        if not equals:
            name, kind = word.split(":")
            result[name] = next(numbers[kind])
            continue
        try:
            result[name] = ast.literal_eval(literal)
        except (SyntaxError, ValueError):
            raise TypeError(
                f"inside torch.compile the solver argument {name} must be a number, a string, a bool or "
                "None: give anything else where the layer is made"
            ) from None
    return result


def _layer(number: int) -> CvxpyLayer:
    layer = _layers.get(number)
    if layer is None:
        raise RuntimeError(
            "torch.compile met a layer that conediff.torch does not know: make it a conediff.torch.CvxpyLayer"
        )
    return layer


@torch.library.custom_op("conediff::solve", mutates_args=())
def _solve(
    parameters: Sequence[Tensor], layer: int, words: str, floats: Sequence[float], ints: Sequence[int]
) -> list[Tensor]:
    refuse_tangents()
    given = _arguments(words, floats, ints)
    solved = Solved(_layer(layer), given, parameters, result_dtype(parameters), result_device(parameters))
    handle, _ = _handles.issue(solved)
    return [*solved.values(), handle]


@_solve.register_fake
def _(
    parameters: Sequence[Tensor], layer: int, words: str, floats: Sequence[float], ints: Sequence[int]
) -> list[Tensor]:
    known = _layer(int(layer))
    batch = _batch(known.parameters, [p.shape for p in parameters])
    dtype, device = result_dtype(parameters), result_device(parameters)
    values = [
        torch.empty((*batch, *spec.shape), dtype=dtype.to_complex() if spec.complex else dtype, device=device)
        for spec in known.outputs
    ]
    return [*values, torch.empty((), dtype=torch.float64)]


def _batch(specs: Sequence[ParameterSpec], shapes: Sequence[torch.Size]) -> Sequence[int]:
    """Return the batch, whose sizes may be symbols; the core's checks see those as not known."""
    if len(shapes) != len(specs):
        batch_shape(specs, shapes)  # says so
    cuts = [max(0, len(shape) - len(spec.shape)) for spec, shape in zip(specs, shapes, strict=True)]
    leading = [shape[:cut] for shape, cut in zip(shapes, cuts, strict=True)]
    known = [
        (*(size if isinstance(size, int) else None for size in lead), *map(int, shape[cut:]))
        for lead, shape, cut in zip(leading, shapes, cuts, strict=True)
    ]
    batch_shape(specs, known)
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
) -> list[Tensor]:
    refuse_tangents()
    refuse_graph_of_compiled_gradient()
    every: list[Tensor | None] = [None] * (max(given) + 1)
    for k, cotangent in zip(given, cotangents, strict=True):
        every[k] = cotangent
    chosen = [k in needed for k in range(len(like))]
    return _handles.redeem(handle).pull(every, chosen, [tuple(p.shape) for p in like])


@_pull.register_fake
def _(
    handle: Tensor,
    cotangents: Sequence[Tensor],
    given: Sequence[int],
    like: Sequence[Tensor],
    needed: Sequence[int],
) -> list[Tensor]:
    return [torch.empty(like[k].shape, dtype=like[k].dtype, device=like[k].device) for k in needed]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[-1])
    ctx.kinds = [(p.shape, p.dtype, p.device) for p in inputs[0]]
    # Gradients have the structure of the inputs, in which torch takes an empty list for one of tensors.
    ctx.rest = [[] if isinstance(value, list) and not value else None for value in inputs[1:]]


def _backward(ctx: Any, grads: list[Tensor | None]) -> Any:
    (handle,) = ctx.saved_tensors
    needed = [k for k, need in enumerate(ctx.needs_input_grad[0]) if need]
    given = [k for k, grad in enumerate(grads[:-1]) if grad is not None]
    result: list[Tensor | None] = [None] * len(ctx.kinds)
    if given:
        # Shapes, dtypes and devices in tensors that take no memory.
        like = [torch.empty((), dtype=dtype, device=dev).expand(shape) for shape, dtype, dev in ctx.kinds]
        pulled = torch.ops.conediff.pull(handle, [grads[k] for k in given], given, like, needed)
        for k, grad in zip(needed, pulled, strict=True):
            result[k] = grad
    return result, *ctx.rest


def _refuse_backward(ctx: Any, grads: list[Tensor | None]) -> Any:
    refuse_second()


_solve.register_autograd(_backward, setup_context=_setup_context)
_pull.register_autograd(_refuse_backward)


@_solve.register_vmap
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    parameters: Sequence[Tensor],
    layer: int,
    words: str,
    floats: Sequence[float],
    ints: Sequence[int],
) -> tuple[list[Tensor], list[int]]:
    inner = tuple(len(spec.shape) for spec in _layer(layer).parameters)
    tensors = lifted(inner, info.batch_size, in_dims[0], parameters)
    *values, handle = torch.ops.conediff.solve(tensors, layer, words, floats, ints)
    return [*values, handle.expand(info.batch_size)], [0] * (len(values) + 1)
