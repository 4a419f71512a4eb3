"""The parameters of a Keras layer: some are passed to calls, others are weights of the layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from conediff.layer.calls import EACH, by_name, check_count, check_distinct
from conediff.layer.maps import ParameterSpec

_PARTS = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}
_WHOSE = "each parameter that is not a weight"
# How to make TensorFlow's other tensors dense.
_DENSE = {
    "RaggedTensor": "tensor.to_tensor(), and leave padded elements out of the loss",
    "SparseTensor": "tf.sparse.to_dense(tensor)",
}


@dataclass(frozen=True)
class Inputs:
    """The parameters of a layer, in order, and the options of those that are weights.

    Parameters
    ----------
    specs : tuple of ParameterSpec
    weights : mapping
        From names to the keyword arguments of ``add_weight``.
    """

    specs: tuple[ParameterSpec, ...]
    weights: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls, specs: Sequence[ParameterSpec], parameters: Sequence[Any], weights: Mapping[Any, Any]
    ) -> Inputs:
        """Read ``weights={parameter: initializer, ...}``; keys are the problem's parameters, or names."""
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights must be a mapping from parameters to initializers, got {weights!r}")
        if weights:
            check_distinct(specs)
        names = {spec.name: spec for spec in specs}
        own = {id(p): spec.name for p, spec in zip(parameters, specs, strict=True)}
        found = {}
        for key, value in weights.items():
            name = key if isinstance(key, str) else own.get(id(key))
            if name not in names:
                raise ValueError(f"weights: {key!r} is not one of the parameters {', '.join(sorted(names))}")
            found[name] = _options(names[name], value)
        return cls(tuple(specs), found)

    @property
    def passed(self) -> list[str]:
        """Names of the parameters that calls pass, in order."""
        return [spec.name for spec in self.specs if spec.name not in self.weights]

    def merged(self, items: Sequence[Any], weights: Mapping[str, Any]) -> list[Any]:
        """Return one item for each parameter of the problem: passed to the call, or a weight."""
        check_count(self.passed, items, _WHOSE)
        rest: Iterator[Any] = iter(items)
        return [weights[spec.name] if spec.name in weights else next(rest) for spec in self.specs]

    def listed(self, inputs: Sequence[Any]) -> list[Any]:
        """Return what ``layer(A, b)``, ``layer([A, b])`` or ``layer({"A": A, "b": b})`` passed, as a list."""
        if len(inputs) != 1 or not isinstance(inputs[0], (list, tuple, Mapping)):
            return self._given(inputs)
        (inner,) = inputs
        return self._given(inner)

    def shapes(self, tree: Any) -> list[tuple[int | None, ...]]:
        """Do as `listed`, with shapes; a single shape is that of the only parameter."""
        if tree is None or not (self.passed or keras.tree.flatten(tree)):
            return []
        if not isinstance(tree, Mapping):
            if _is_shape(tree):
                return [tuple(tree)]
            if len(tree) == 1 and not _is_shape(tree[0]):
                return self.shapes(tree[0])
        return [tuple(shape) for shape in self._given(tree)]

    def _given(self, items: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        if isinstance(items, Mapping):
            items = by_name(self.specs, self.passed, items)
        for name, item in zip(self.passed, items, strict=False):
            if item is None:
                raise ValueError(f"{EACH}: got None for {name!r}")
            if type(item).__name__ in _DENSE:
                raise TypeError(
                    f"parameter {name!r} must be a dense tensor, but is a {type(item).__name__}: pass "
                    f"{_DENSE[type(item).__name__]}"
                )
        return list(items)

    def get_config(self) -> dict[str, Any]:
        """Return the options of the weights in a form that JSON can hold."""
        return {
            name: {
                key: _PARTS[key].serialize(value) if key in _PARTS and value is not None else value
                for key, value in options.items()
            }
            for name, options in self.weights.items()
        }


def _is_shape(tree: Any) -> bool:
    return all(size is None or isinstance(size, (int, np.integer)) for size in tree)


def _options(spec: ParameterSpec, value: Any) -> dict[str, Any]:
    """Read an initializer, an array, or the keyword arguments of ``add_weight``."""
    if spec.complex:
        raise ValueError(
            f"weights: {spec.name!r} is complex, but Keras's weights are real: pass its values to calls"
        )
    serialized = isinstance(value, Mapping) and "class_name" in value
    options = dict(value) if isinstance(value, Mapping) and not serialized else {"initializer": value}
    start = options.get("initializer")
    if start is not None and not isinstance(start, (str, Mapping)) and not callable(start):
        options["initializer"] = keras.initializers.Constant(_initial(spec, start))
    try:
        return {key: _PARTS[key].get(item) if key in _PARTS else item for key, item in options.items()}
    except ValueError as error:
        raise ValueError(f"weights: the options of {spec.name!r} are invalid: {error}") from error


def _initial(spec: ParameterSpec, value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(
            f"weights: the initial value of {spec.name!r} must hold real numbers, but has dtype {array.dtype}"
        )
    if array.shape not in ((), spec.shape):
        raise ValueError(
            f"weights: the initial value of {spec.name!r} must have shape {spec.shape}, but has {array.shape}"
        )
    return array.tolist()
