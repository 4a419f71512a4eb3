"""Calls of layers inside torch.compile, by number: custom operators take tensors and plain values only.

The number of a call identifies the layer and the solver arguments, except for the values of those that are a
float or an int: these are arguments of the operator. torch.compile then needs no new graph for a new int; for
a new float it needs one, at least up to torch 2.13, because it turns floats into constants where a graph
begins.

torch.compile runs `register` while it traces, and takes its result for a constant. It guards the graph on the
arguments of `register`: the layer's identity, the names, strings, bools and None by equality, and executors
by identity. So a graph is used only for the call that it was traced for. Functions are refused, because
torch.compile guards them on their code alone: two closures with the same code would share a graph.
"""

from __future__ import annotations

import itertools
import secrets
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from conediff.layer.layer import CvxpyLayer

Names = tuple[str, ...]


class CompiledCall(NamedTuple):
    """A layer, and the solver arguments of a call of it.

    Attributes
    ----------
    layer : weak reference to conediff.CvxpyLayer
    names : three tuples of str
        Names of the arguments that are floats, ints, and constants.
    constants : tuple of (type, value)
        The types distinguish True from 1.0.
    """

    layer: weakref.ref[CvxpyLayer]
    names: tuple[Names, Names, Names]
    constants: tuple[tuple[type, Any], ...]

    def solver_args(self, floats: Sequence[float], ints: Sequence[int]) -> dict[str, Any]:
        """Return the solver arguments, given the values that the operator was passed."""
        values = (floats, ints, [value for _, value in self.constants])
        return {
            name: value
            for names, group in zip(self.names, values, strict=True)
            for name, value in zip(names, group, strict=True)
        }


_layers: weakref.WeakValueDictionary[int, CvxpyLayer] = weakref.WeakValueDictionary()
# Numbers begin at a random one, so that `lookup` refuses graphs that were exported by another process.
_numbers = itertools.count(secrets.randbits(30) << 30)
_calls: dict[int, CompiledCall] = {}
_number_of: dict[CompiledCall, int] = {}


def register_layer(layer: CvxpyLayer) -> None:
    """Make a layer known to `register` as long as it lives."""
    _layers[id(layer)] = layer


def split(solver_args: Mapping[str, Any]) -> tuple[tuple[Names, ...], list[float], list[int], list[Any]]:
    """Split solver arguments into floats, ints and constants, which torch.compile traces.

    Returns
    -------
    names : four tuples of str
        Of the three kinds, and of those that are refused.
    floats, ints, constants : lists
    """
    kinds: tuple[dict[str, Any], ...] = ({}, {}, {}, {})
    for name, value in solver_args.items():
        if type(value) is float:
            kinds[0][name] = value
        elif type(value) is int:
            kinds[1][name] = value
        else:
            kinds[2 if isinstance(value, (str, bool, type(None), Executor)) else 3][name] = value
    floats, ints, constants, _ = kinds
    return tuple(map(tuple, kinds)), list(floats.values()), list(ints.values()), list(constants.values())


def register(layer_id: int, names: tuple[Names, ...], *constants: Any) -> int:
    """Return the number of a call; ``names`` are those that `split` returns, ``layer_id`` is the layer's
    ``id``.

    Raises
    ------
    RuntimeError
        If no module wraps the layer.
    TypeError
        If a solver argument is of a kind that is refused.
    """
    floats, ints, others, refused = names
    layer = _layers.get(layer_id)
    for name in refused:
        raise TypeError(
            f"inside torch.compile the solver argument {name} must be a number, a string, a bool, None or an "
            "executor: pass anything else to the layer's constructor"
        )
    if layer is None:
        raise RuntimeError(
            "torch.compile met a layer that conediff.torch does not know: make it a conediff.torch.CvxpyLayer"
        )
    typed = tuple((type(value), value) for value in constants)
    call = CompiledCall(weakref.ref(layer), (floats, ints, others), typed)
    if call not in _number_of:
        number = next(_numbers)
        _calls[number], _number_of[call] = call, number
        weakref.finalize(layer, _forget, number)
    return _number_of[call]


# As torch.compiler.assume_constant_result does, which imports torch._dynamo: that takes seconds.
register._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _forget(number: int) -> None:
    del _number_of[_calls.pop(number)]


def lookup(number: int) -> tuple[CompiledCall, CvxpyLayer]:
    """Return a call and its layer.

    Raises
    ------
    RuntimeError
        If the layer no longer exists, or the number comes from another process.
    """
    call = _calls.get(number)
    layer = None if call is None else call.layer()
    if call is None or layer is None:
        raise RuntimeError(
            "the layer of this compiled or exported graph does not exist here: it was deleted, or made by "
            "another process. Build the layer again, and compile or export the function again"
        )
    return call, layer
