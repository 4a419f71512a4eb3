"""The wiring of the derivatives of a solution map.

The derivatives are the core's: the adjoint ``pull``, the derivative ``push``, and second derivatives, ``hvp``
in reverse and ``turn`` in forward mode. All are linear in the cotangents and tangents that they take, and
each is the gradient of another one there. With respect to the parameters, the gradient of pull and push is
hvp; that of hvp and turn would be a third derivative, and is refused. TensorFlow's forward mode transposes
the gradients, and so finds the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

import conediff
from conediff.layer.dtypes import cast, widen

from . import modes

Tensors = Sequence[tf.Tensor]
Arrays = Sequence[Any]
GroupGradient = Callable[[Sequence[Tensors], Tensors, Tensors, bool], Sequence["tf.Tensor | None"]]
_Item = TypeVar("_Item")


def _where_it_runs(method: Callable[..., list[_Item]]) -> Callable[..., list[_Item]]:
    """Let a method run with the derivative for the graph that is being built, which then owns the solution.

    TensorFlow never releases the gradients of operations in graphs, so these must not own it.
    """

    @wraps(method)
    def call(self: Derivative, *arguments: Any) -> list[_Item]:
        if self.solution is not None and not tf.executing_eagerly():
            self = replace(self, solution=None, find=modes.keep_alive(self.solution))
        return method(self, *arguments)

    return call


@dataclass(frozen=True)
class Derivative:
    """The derivative of a solution map and its adjoint, each the other's gradient.

    Attributes
    ----------
    dtypes, shapes : tuples
        Of the outputs.
    needed : tuple of bool
        Which parameters' cotangents are needed.
    find : callable
        Takes the parameters and the state, as arrays; returns the solution.
    solution : conediff.LayerSolution, optional
        The solution, if it exists already.
    """

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    needed: tuple[bool, ...]
    find: Callable[[Sequence[Any]], conediff.LayerSolution]
    solution: conediff.LayerSolution | None = None

    def gradients(self) -> tuple[modes.Gradient | None, modes.Gradient | None]:
        """Return the solution's gradient for backward passes, and for forward mode, which transposes it."""
        if not any(self.needed):
            return None, None

        def pull(inputs: Tensors, outputs: Tensors, cotangents: Tensors) -> list[tf.Tensor | None]:
            return self._pull(cotangents[:count], [*inputs, *outputs[count:]], None)

        def transposed(inputs: Tensors, outputs: Tensors, cotangents: Tensors) -> list[tf.Tensor | None]:
            return self._pull(cotangents[:count], [*inputs, *outputs[count:]], 0)

        count = len(self.dtypes)
        return pull, transposed

    @_where_it_runs
    def _pull(self, g: Tensors, at: Tensors, only: int | None) -> list[tf.Tensor | None]:
        """Pull cotangents of the outputs back to those parameters that need it.

        ``at`` are the parameters and the state; for ``only`` see `_operation`.
        """
        gradients = (
            lambda groups, at, others, forward: self._push(others, at, 0 if forward else None),
            lambda groups, at, others, forward: self._hvp(groups[0], others, at, 1 if forward else None),
        )
        return self._of_parameters(
            "vjp", lambda solution, g: solution.vjp(*g, needed=self.needed), [g], at, gradients, only
        )

    @_where_it_runs
    def _push(self, w: Tensors, at: Tensors, only: int | None) -> list[tf.Tensor]:
        """Push tangents of those parameters forward to the outputs."""
        gradients = (
            lambda groups, at, others, forward: self._wanted(self._pull(others, at, 0 if forward else None)),
            lambda groups, at, others, forward: self._hvp(others, groups[0], at, 0 if forward else None),
        )

        def compute(solution: conediff.LayerSolution, w: Arrays) -> Sequence[Any]:
            return solution.jvp(*self._spread(w))

        return self._operation("jvp", compute, [w], at, (self.dtypes, self.shapes), gradients, only)

    @_where_it_runs
    def _hvp(self, g: Tensors, w: Tensors, at: Tensors, only: int | None) -> list[tf.Tensor | None]:
        """Return the gradient of <push(w), g> in those parameters that need one; symmetric in the tangents
        w and those with which it is multiplied.
        """
        gradients = (
            lambda groups, at, others, forward: self._turn(groups[1], others, at, 1 if forward else None),
            lambda groups, at, others, forward: self._wanted(
                self._hvp(groups[0], others, at, 1 if forward else None)
            ),
            lambda groups, at, others, forward: modes.refuse_third(at[: len(self.needed)], others),
        )

        def compute(solution: conediff.LayerSolution, g: Arrays, w: Arrays) -> Sequence[Any]:
            return solution.hvp(g, self._spread(w), needed=self.needed)

        return self._of_parameters("hvp", compute, [g, w], at, gradients, only)

    @_where_it_runs
    def _turn(self, v: Tensors, w: Tensors, at: Tensors, only: int | None) -> list[tf.Tensor]:
        """Return the change of push(w) along v: <turn, g> = <v, hvp(g, w)>."""
        gradients = (
            lambda groups, at, others, forward: self._wanted(
                self._hvp(others, groups[1], at, 0 if forward else None)
            ),
            lambda groups, at, others, forward: self._wanted(
                self._hvp(others, groups[0], at, 0 if forward else None)
            ),
            lambda groups, at, others, forward: modes.refuse_third(at[: len(self.needed)], others),
        )

        def compute(solution: conediff.LayerSolution, v: Arrays, w: Arrays) -> Sequence[Any]:
            return solution.derivative.turn(self._spread(v), self._spread(w))

        return self._operation("turn", compute, [v, w], at, (self.dtypes, self.shapes), gradients, only)

    def _of_parameters(
        self,
        name: str,
        compute: Callable[..., Sequence[Any]],
        groups: Sequence[Tensors],
        at: Tensors,
        gradients: Sequence[GroupGradient],
        only: int | None,
    ) -> list[tf.Tensor | None]:
        """Apply an operation that returns cotangents; None for parameters that need none."""
        wanted = self._wanted(at[: len(self.needed)])
        outputs = [p.dtype.name for p in wanted], [p.shape for p in wanted]

        def some(*arguments: Any) -> Sequence[Any]:
            return self._wanted(compute(*arguments))

        return self._spread(self._operation(name, some, groups, at, outputs, gradients, only))

    def _operation(
        self,
        name: str,
        compute: Callable[..., Sequence[Any]],
        groups: Sequence[Tensors],
        at: Tensors,
        outputs: tuple[Sequence[str], Sequence[Any]],
        gradients: Sequence[GroupGradient],
        only: int | None,
    ) -> list[tf.Tensor]:
        """Apply a function of the solution and of groups of tensors, in each of which it is linear.

        Parameters
        ----------
        name : str
        compute : callable
            Takes the solution and a list of arrays for each group.
        groups : sequence of sequences of tensors
        at : sequence of tensors
            The parameters and the state.
        outputs : pair of sequences
            Dtypes and shapes.
        gradients : sequence of callables
            One for each group, and one for the parameters: from the groups, ``at``, the cotangents of the
            outputs, and whether forward mode asks, to cotangents.
        only : int, optional
            The group in which forward mode transposes the operation, where it does so: on a tape that does
            not show.
        """
        count, every = len(self.needed), [*groups, at[: len(self.needed)]]
        ends = np.cumsum([0] + [len(group) for group in groups]).tolist()

        def split(items: Sequence[Any]) -> list[Sequence[Any]]:
            return [items[start:end] for start, end in pairwise(ends)]

        def run(*arrays: Any) -> list[Any]:
            given = split([widen(array) for array in arrays[: ends[-1]]])
            return typed(compute(self._solution(arrays[ends[-1] :]), *given), outputs[0])

        def gradient(
            inputs: Tensors, others: Tensors, asked: Sequence[bool], forward: bool
        ) -> list[tf.Tensor | None]:
            own, at = split(inputs), inputs[ends[-1] :]
            sizes, graph = [*map(len, own), count], not tf.executing_eagerly()
            found = [
                function(own, at, others, forward) if ask or graph else [None] * size
                for function, ask, size in zip(gradients, asked, sizes, strict=True)
            ]
            return [*chain.from_iterable(found), *(None for _ in at[count:])]

        def backward(inputs: Tensors, _: Tensors, others: Tensors) -> list[tf.Tensor | None]:
            return gradient(inputs, others, watched, False)

        def transposed(inputs: Tensors, _: Tensors, others: Tensors) -> list[tf.Tensor | None]:
            # While an accumulator differentiates the operation itself, it does not count.
            own = only is not None and modes.accumulators(every[-1]) == accumulators
            asked = [k == only for k in range(len(every))] if own else pushed
            return gradient(inputs, others, asked, True)

        watched = [modes.watched(group) for group in every]
        pushed = [modes.accumulators(group) > 0 for group in every]
        accumulators = modes.accumulators(every[-1])
        inputs = [*chain.from_iterable(groups), *at]
        return modes.operation(name, run, inputs, outputs, backward, transposed)

    def _solution(self, arrays: Sequence[Any]) -> conediff.LayerSolution:
        return self.find(arrays) if self.solution is None else self.solution

    def _wanted(self, items: Sequence[Any]) -> list[Any]:
        return [item for item, need in zip(items, self.needed, strict=True) if need]

    def _spread(self, wanted: Sequence[Any]) -> list[Any]:
        """Undo `_wanted`, with None for the parameters that are left out."""
        rest = iter(wanted)
        return [next(rest) if need else None for need in self.needed]


def typed(arrays: Sequence[Any], dtypes: Sequence[str]) -> list[Any]:
    """Cast arrays to dtypes of TensorFlow."""
    pairs = zip(arrays, dtypes, strict=True)
    return [cast(array, tf.as_dtype(dtype).as_numpy_dtype) for array, dtype in pairs]
