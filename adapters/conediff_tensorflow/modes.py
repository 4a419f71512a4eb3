"""Functions on arrays as TensorFlow operations, differentiable in all modes; and what these modes ask for."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record

from .serial import NO_SAVED_MODEL

Tensors = Sequence[tf.Tensor]
Gradient = Callable[[Tensors, Tensors, Tensors], Sequence["tf.Tensor | None"]]
# XLA cannot compile these operations, and says so by their names.
_NAME = "conediff_{}_runs_on_NumPy_and_not_under_XLA_so_pass_jit_compile_False"
_numbers = itertools.count()


def operation(
    name: str,
    run: Callable[..., list[Any]],
    inputs: Tensors,
    dtypes: Sequence[str],
    shapes: Sequence[Any],
    gradient: Gradient | None,
) -> list[tf.Tensor]:
    """Apply a function on arrays to tensors.

    Parameters
    ----------
    name : str
    run : callable
        Takes arrays, returns a list of arrays.
    inputs : sequence of tensors
    dtypes, shapes : sequences
        Of the outputs; used in graphs.
    gradient : callable or None
        Takes inputs, outputs and cotangents, all tensors; returns cotangents of the inputs, or None. In a
        graph it may be called for copies of the operation in other graphs, so it must refer to no tensors of
        its own.

    Returns
    -------
    list of tensors
    """
    if tf.executing_eagerly():
        return _eager(run, inputs, gradient)
    types, name = [tf.as_dtype(dtype) for dtype in dtypes], _NAME.format(name)
    overrides = {} if gradient is None else {"PyFuncStateless": _registered(gradient)}
    graph = tf.compat.v1.get_default_graph()
    with record.stop_recording(), graph.gradient_override_map(overrides):
        # Stateless, so that TensorFlow may leave out what nobody uses, and vectorise by a loop.
        results = tf.numpy_function(run, inputs, types, stateful=False, name=name)
    outputs = list(results) if isinstance(results, (list, tuple)) else [results]
    for output, shape in zip(outputs, shapes, strict=True):
        output.set_shape(shape)
    if gradient is not None:
        record.record_operation(name, outputs, list(inputs), lambda *gs: gradient(inputs, outputs, gs))
    return outputs


def _eager(run: Callable[..., list[Any]], inputs: Tensors, gradient: Gradient | None) -> list[tf.Tensor]:
    def apply(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., Any]]:
        outputs = [tf.convert_to_tensor(array) for array in run(*(tensor.numpy() for tensor in inputs))]
        return outputs, lambda *cotangents: gradient(inputs, outputs, cotangents)

    if gradient is None:
        return apply(*inputs)[0]
    return list(tf.custom_gradient(apply)(*inputs))


def _registered(gradient: Gradient) -> str:
    """Register a gradient for who differentiates a graph from outside; tapes inside have their record."""
    name = f"Conediff{next(_numbers)}"

    def differentiate(op: Any, *cotangents: Any) -> Any:
        if op is None:  # So TensorFlow traces gradients that are to go into a SavedModel.
            raise NotImplementedError(NO_SAVED_MODEL.format("a conediff layer"))
        return gradient(op.inputs, op.outputs, cotangents)

    tf.RegisterGradient(name)(differentiate)
    return name


def owned(item: Any) -> Callable[..., Any]:
    """Let the graph that is being built keep an object alive; return a function that returns it.

    For TensorFlow keeps functions that graphs call, and gradients that they register, for ever.
    """
    graph = tf.compat.v1.get_default_graph()
    while isinstance(getattr(graph, "outer_graph", None), type(graph)):
        graph = graph.outer_graph
    graph._conediff_owns = [*getattr(graph, "_conediff_owns", ()), item]
    reference = weakref.ref(item)
    return lambda *_: reference()


def needed(params: Tensors) -> tuple[bool, ...]:
    """Tell whose gradients may be needed: of what is watched; in a graph, of all but constants."""
    return tuple(
        bool(p.dtype.is_floating or p.dtype.is_complex) and (watched([p]) or _pushed(p) or _later(p))
        for p in params
    )


def watched(tensors: Tensors) -> bool:
    """Tell whether a tape watches one of the tensors."""
    return bool(record.should_record_backprop(list(tensors)))


def _pushed(tensor: tf.Tensor) -> bool:
    """Tell whether a tensor has a tangent of forward mode."""
    return bool(forwardprop_util.pack_tangents([tensor]).tangents)


def _later(tensor: tf.Tensor) -> bool:
    """Tell whether a graph, once built, may be differentiated with respect to a tensor."""
    return not tf.executing_eagerly() and not (tf.is_symbolic_tensor(tensor) and tensor.op.type == "Const")


def no_second_derivatives(tensors: Tensors, asked: bool) -> list[tf.Tensor | None]:
    """Refuse to be the second derivatives with respect to tensors, when they are asked for."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(
            "second derivatives of the layer are not supported: its gradient can be differentiated with "
            "respect to what it is multiplied with, but not with respect to the layer's parameters. Leave "
            "the layer out of the term that needs them, or put tf.stop_gradient around its gradient there"
        )

    if tf.executing_eagerly():
        return [refuse() if asked else None for _ in tensors]
    floating = [tensor.dtype.is_floating or tensor.dtype.is_complex for tensor in tensors]
    return [
        tf.ensure_shape(tf.numpy_function(refuse, [t], t.dtype, stateful=False), t.shape) if real else None
        for t, real in zip(tensors, floating, strict=True)
    ]
