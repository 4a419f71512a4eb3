"""Functions on arrays as TensorFlow operations with derivatives, and questions to TensorFlow's modes."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record

from conediff.layer.adapter import third_derivatives

from .serial import NO_SAVED_MODEL

Tensors = Sequence[tf.Tensor]
Gradient = Callable[[Tensors, Tensors, Tensors], Sequence["tf.Tensor | None"]]
# XLA cannot compile these operations; its error message contains their names.
_NAME = "conediff_{}_runs_on_NumPy_and_not_under_XLA_so_pass_jit_compile_False"
_numbers = itertools.count()


def operation(
    name: str,
    run: Callable[..., list[Any]],
    inputs: Tensors,
    outputs: tuple[Sequence[str], Sequence[Any]],
    backward: Gradient | None,
    transposed: Gradient | None = None,
) -> list[tf.Tensor]:
    """Apply a function on arrays to tensors.

    Parameters
    ----------
    name : str
    run : callable
        Takes arrays, returns a list of arrays.
    inputs : sequence of tensors
    outputs : pair of sequences
        Dtypes and shapes of the outputs; used in graphs.
    backward : callable or None
        Takes inputs, outputs and cotangents, all tensors; returns cotangents of the inputs, or None. In a
        graph it may be called for copies of the operation in other graphs, so it must not refer to tensors of
        its own.
    transposed : callable, optional
        The function that forward mode transposes; ``backward`` by default.

    Returns
    -------
    list of tensors
    """
    inputs = list(inputs)
    with record.stop_recording():
        if tf.executing_eagerly():
            results = [tf.convert_to_tensor(array) for array in run(*(tensor.numpy() for tensor in inputs))]
        else:
            results = _in_graph(_NAME.format(name), run, inputs, outputs, backward)
    if backward is not None:
        backward, transposed = (
            _of_cotangents(g, inputs, results) for g in (backward, transposed or backward)
        )
        record.record_operation_backprop_only(name, results, inputs, backward)
        record.record_operation_forwardprop_only(name, results, inputs, transposed, None)
    return results


def _in_graph(
    name: str,
    run: Callable[..., list[Any]],
    inputs: Tensors,
    outputs: tuple[Sequence[str], Sequence[Any]],
    backward: Gradient | None,
) -> list[tf.Tensor]:
    dtypes, shapes = outputs
    overrides = {} if backward is None else {"PyFuncStateless": _registered(backward)}
    with tf.compat.v1.get_default_graph().gradient_override_map(overrides):
        # Stateless, so that TensorFlow may leave out unused operations, and vectorise them by a loop.
        results = tf.numpy_function(run, inputs, list(map(tf.as_dtype, dtypes)), stateful=False, name=name)
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape(shape)
    return results


def _of_cotangents(gradient: Gradient, inputs: Tensors, outputs: Tensors) -> Callable[..., Any]:
    return lambda *cotangents: gradient(inputs, outputs, cotangents)


def _registered(gradient: Gradient) -> str:
    """Register the gradient of an operation in a graph that is differentiated from outside of the graph."""
    name = f"Conediff{next(_numbers)}"

    def differentiate(op: Any, *cotangents: Any) -> Any:
        if op is None:  # TensorFlow passes None when it traces gradients for a SavedModel.
            raise NotImplementedError(NO_SAVED_MODEL.format("a conediff layer"))
        return gradient(op.inputs, op.outputs, cotangents)

    tf.RegisterGradient(name)(differentiate)
    return name


def keep_alive(item: Any) -> Callable[..., Any]:
    """Let the graph that is being built own an object; return a function that returns the object.

    TensorFlow never releases functions that graphs call, and gradients that they register; so these must not
    own it.
    """
    graph = tf.compat.v1.get_default_graph()
    while isinstance(getattr(graph, "outer_graph", None), type(graph)):
        graph = graph.outer_graph
    graph._conediff_owns = [*getattr(graph, "_conediff_owns", ()), item]
    reference = weakref.ref(item)
    return lambda *_: reference()


def needed(params: Tensors) -> tuple[bool, ...]:
    """Tell for each parameter whether its cotangent may be asked for."""
    return tuple(
        is_inexact(p) and (watched([p]) or has_forward_tangent(p) or may_be_differentiated(p)) for p in params
    )


def is_inexact(tensor: tf.Tensor) -> bool:
    """Tell whether a tensor holds floating or complex numbers."""
    return bool(tensor.dtype.is_floating or tensor.dtype.is_complex)


def watched(tensors: Tensors) -> bool:
    """Tell whether a tape watches one of the tensors."""
    return bool(record.should_record_backprop(list(tensors)))


def has_forward_tangent(tensor: tf.Tensor) -> bool:
    """Tell whether a tensor has a tangent of forward mode."""
    return accumulators([tensor]) > 0


def accumulators(tensors: Tensors) -> int:
    """Count the tangents that tensors have in the forward mode of accumulators that are at work."""
    return len(forwardprop_util.pack_tangents(list(tensors)).tangents)


def may_be_differentiated(tensor: tf.Tensor) -> bool:
    """Tell whether a finished graph may be differentiated with respect to a tensor: any but a constant."""
    return not tf.executing_eagerly() and not (tf.is_symbolic_tensor(tensor) and tensor.op.type == "Const")


def refuse_third(tensors: Tensors, others: Tensors) -> list[tf.Tensor | None]:
    """Refuse third derivatives with respect to tensors, which are linear in the other tensors.

    An error at once where TensorFlow is eager. In graphs the error is in operations, and in their derivative
    with respect to the others; of these only those that are needed run.
    """
    if tf.executing_eagerly():
        _refuse()
    wanted = [tensor for tensor in tensors if is_inexact(tensor)]
    outputs = [tensor.dtype.name for tensor in wanted], [tensor.shape for tensor in wanted]

    def again(inputs: Tensors, _: Tensors, cotangents: Tensors) -> list[tf.Tensor | None]:
        return refuse_third(inputs, cotangents)

    found = iter(operation("third", _refuse, others, outputs, again))
    return [next(found) if is_inexact(tensor) else None for tensor in tensors]


def _refuse(*_: Any) -> Any:
    raise third_derivatives("put tf.stop_gradient around")
