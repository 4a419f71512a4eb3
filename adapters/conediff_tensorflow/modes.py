"""What TensorFlow's modes ask for: which gradients, and which derivatives of derivatives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record

Tensors = Sequence[tf.Tensor]


_REFUSED = "ConediffRefusedGradient"


def differentiable(function: Callable[..., Any], tensors: Tensors, lasting: bool = True) -> Any:
    """Call a function that returns tensors and the function which pulls their cotangents back.

    As ``tf.custom_gradient``; but in a graph that one loses tangents of forward mode, and keeps for ever what
    the function refers to. Where there are tangents, or the function is not ``lasting``, the pull-back is
    recorded for the tapes and accumulators inside this graph alone; who differentiates the graph is refused.
    """
    if tf.executing_eagerly():
        return tf.custom_gradient(function)(*tensors)
    # A tensor of an outer graph becomes one of this graph, so that its derivative's graph can reach it.
    tensors = [tf.identity(tensor) for tensor in tensors]
    if lasting and not _has_tangents(tensors):
        return tf.custom_gradient(function)(*tensors)
    graph = tf.compat.v1.get_default_graph()
    with record.stop_recording(), graph.gradient_override_map({"PyFuncStateless": _REFUSED}):
        outputs, pull = function(*tensors)
    record.record_operation("conediff", outputs, tensors, pull)
    return outputs


@tf.RegisterGradient(_REFUSED)
def _refused_gradient(op: Any, *_: Any) -> Any:
    raise NotImplementedError(
        f"{op.name}: this graph cannot be differentiated from outside, because it computes a derivative of a "
        "solution map already; put all tapes and accumulators inside of it, or all outside"
    )


def needed(params: Tensors) -> list[bool]:
    """Tell whose gradients may be needed: of what is watched; in a graph, of all but constants."""
    return [_floating(p) and (recorded([p]) or _has_tangents([p]) or _later(p)) for p in params]


def _later(tensor: tf.Tensor) -> bool:
    """Tell whether a graph, once built, may be differentiated with respect to a tensor."""
    return not tf.executing_eagerly() and not (tf.is_symbolic_tensor(tensor) and tensor.op.type == "Const")


def recorded(tensors: Tensors) -> bool:
    """Tell whether a tape watches one of the tensors."""
    return bool(record.should_record_backprop(list(tensors)))


def _floating(tensor: tf.Tensor) -> bool:
    return bool(tensor.dtype.is_floating or tensor.dtype.is_complex)


def _has_tangents(tensors: Tensors) -> bool:
    return bool(forwardprop_util.pack_tangents(list(tensors)).tangents)


def owned_by_graph(item: Any) -> Callable[[], Any]:
    """Let the graph that is being built keep an object alive; return a weak reference to it."""
    graph = tf.compat.v1.get_default_graph()
    while isinstance(getattr(graph, "outer_graph", None), type(graph)):
        graph = graph.outer_graph
    graph._conediff_owns = [*getattr(graph, "_conediff_owns", ()), item]
    return weakref.ref(item)


def no_second_derivative(tensor: tf.Tensor, used: bool) -> tf.Tensor | None:
    """Refuse to be the second derivative with respect to a tensor, when that is asked for."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(
            "second derivatives of the layer are not supported yet: its gradient can be differentiated with "
            "respect to what it is multiplied with, but not with respect to the layer's parameters"
        )

    if tf.executing_eagerly():
        return refuse() if used else None
    return tf.ensure_shape(tf.numpy_function(refuse, [tensor], tensor.dtype, stateful=False), tensor.shape)
