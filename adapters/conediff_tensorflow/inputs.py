"""Which problem parameters are passed to calls, and which are the layer's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from conediff.layer.maps import ParameterSpec

_PARTS = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}
# How TensorFlow's other tensors become dense ones.
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
            _check_distinct(specs)
        names = {spec.name: spec for spec in specs}
        own = {id(p): spec.name for p, spec in zip(parameters, specs, strict=True)}
        found = {}
        for key, value in weights.items():
            name = key if isinstance(key, str) else own.get(id(key))
            if name not in names:
                raise ValueError(f"weights: {key!r} is none of the parameters {', '.join(sorted(names))}")
            found[name] = _options(names[name], value)
        return cls(tuple(specs), found)

    @property
    def passed(self) -> list[str]:
        """Names of the parameters that calls pass, in order."""
        return [spec.name for spec in self.specs if spec.name not in self.weights]

    def merged(self, items: Sequence[Any], weights: Mapping[str, Any]) -> list[Any]:
        """Put what a call passed, and the weights, into the order of the problem's parameters."""
        if len(items) != len(self.passed):
            names = ", ".join(map(repr, self.passed)) or "none"
            raise ValueError(
                "a value must be provided for each parameter that is no weight: "
                f"expected {len(self.passed)} ({names}), got {len(items)}"
            )
        rest: Iterator[Any] = iter(items)
        return [weights[spec.name] if spec.name in weights else next(rest) for spec in self.specs]

    def listed(self, inputs: Sequence[Any]) -> list[Any]:
        """Bring ``layer(A, b)``, ``layer([A, b])`` and ``layer({"A": A, "b": b})`` into one form."""
        if len(inputs) != 1 or not isinstance(inputs[0], (list, tuple, Mapping)):
            return self._given(inputs)
        (inner,) = inputs
        return self._given(self._from_names(inner) if isinstance(inner, Mapping) else inner)

    def shapes(self, tree: Any) -> list[tuple[int | None, ...]]:
        """As `listed`, of shapes; a shape alone is that of the one parameter."""
        if tree is None or not (self.passed or keras.tree.flatten(tree)):
            return []
        if isinstance(tree, Mapping):
            return [tuple(shape) for shape in self._given(self._from_names(tree))]
        if _is_shape(tree):
            return [tuple(tree)]
        if len(tree) == 1 and not _is_shape(tree[0]):
            return self.shapes(tree[0])
        return [tuple(shape) for shape in self._given(tree)]

    def _given(self, items: Sequence[Any]) -> list[Any]:
        for name, item in zip(self.passed, items, strict=False):
            if item is None:
                raise ValueError(
                    f"a value must be provided for each parameter that is no weight: got None for {name!r}"
                )
            if type(item).__name__ in _DENSE:
                raise TypeError(
                    f"parameter {name!r} must be a dense tensor, but is a {type(item).__name__}: pass "
                    f"{_DENSE[type(item).__name__]}"
                )
        return list(items)

    def _from_names(self, items: Mapping[str, Any]) -> list[Any]:
        _check_distinct(self.specs)
        if set(items) != set(self.passed):
            raise ValueError(f"expected values by the names {self.passed}, got {list(items)}")
        return [items[name] for name in self.passed]

    def get_config(self) -> dict[str, Any]:
        """Return the options of the weights as what JSON can hold."""
        return {
            name: {
                key: _PARTS[key].serialize(value) if key in _PARTS and value is not None else value
                for key, value in options.items()
            }
            for name, options in self.weights.items()
        }


def _is_shape(tree: Any) -> bool:
    return all(size is None or isinstance(size, (int, np.integer)) for size in tree)


def _check_distinct(specs: Sequence[ParameterSpec]) -> None:
    """Raise where a name would not tell which parameter is meant."""
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"more than one parameter is named {name!r}: give each a name of its own to use weights, or "
                "calls by name"
            )


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
        raise ValueError(f"weights: what is said of {spec.name!r} is not understood: {error}") from error


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
