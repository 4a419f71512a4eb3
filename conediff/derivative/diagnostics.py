"""How well a derivative is defined at a solution, and what of the cone program a user can observe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.least_squares import LinearSolution
from conediff.program import Array, ConeData, Point
from conediff.scaling import ComposedScaling


@dataclass(frozen=True)
class Diagnostics:
    """How well the derivative is defined, and how it was computed, per program.

    Attributes
    ----------
    condition : array, shape (B,)
        Estimated condition number of the reduced system with scaled rows.
    strict_complementarity : array, shape (B,)
        Distance of the solution to the nearest kink of the projection: the smallest of all cones', with y and
        s each over its norm in the cone; of half-lines, v = y - s over the largest one. Zero where the
        errors of the solution leave open on which side of a kink it is.
    primal_unique, dual_unique : bool arrays, shape (B,)
        False where the reduced system has a null vector that moves x, or y and s.
    differentiable : bool array, shape (B,)
        Whether none of the above stands in the way.
    degenerate : bool array, shape (B,)
        Whether a derivative that was asked for so far does not exist: the elements that a
        ``DegeneracyWarning`` is about. False where what is not unique does not reach the parameters or
        outputs of a layer.
    reports : dict of int to LinearSolution
        Stop reason, iterations and residual of each program that went to an iterative or dense method.
    """

    condition: Array
    strict_complementarity: Array
    primal_unique: NDArray[np.bool_]
    dual_unique: NDArray[np.bool_]
    differentiable: NDArray[np.bool_]
    degenerate: NDArray[np.bool_]
    reports: dict[int, LinearSolution]

    @classmethod
    def joined(
        cls,
        parts: Sequence[Diagnostics],
        degenerate: NDArray[np.bool_],
        reports: dict[int, LinearSolution],
    ) -> Diagnostics:
        """Join the diagnostics of the parts of a stack, with what the derivatives' calls found."""

        def join(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            condition=join("condition"),
            strict_complementarity=join("strict_complementarity"),
            primal_unique=join("primal_unique"),
            dual_unique=join("dual_unique"),
            differentiable=join("differentiable"),
            degenerate=degenerate,
            reports=reports,
        )


class Observability(Protocol):
    """What is observed of a cone program by somebody who knows it through maps only, such as a layer's user.

    A cone program may have auxiliary variables, or duals, that are not unique while all that the user
    observes is. Then K is singular, and yet the derivative that the user asks for is well defined.

    What is asked about is null vectors, and differences of two answers. Of a difference the errors are
    relative to the answers: ``answer`` is one of them.
    """

    def of_data(self, g: ConeData, answer: ConeData | None = None) -> NDArray[np.bool_]:
        """Return whether a cotangent of the data reaches the user's parameters, shape (B,)."""

    def of_solution(
        self, dx: Array, dy: Array, answer: tuple[Array, Array] | None = None
    ) -> NDArray[np.bool_]:
        """Return whether a change of the solution reaches the user's outputs, shape (B,)."""

    def take(self, index: NDArray[np.intp] | slice) -> Observability:
        """Return what is observed of the programs at these positions."""


@dataclass(frozen=True)
class ScaledObservability:
    """What is observed of programs in a cone scaling by somebody who knows them without it."""

    unscaled: Observability
    scaling: ComposedScaling

    def of_data(self, g: ConeData, answer: ConeData | None = None) -> NDArray[np.bool_]:
        unscale = self.scaling.unscale_data_cotangent
        return self.unscaled.of_data(unscale(g), None if answer is None else unscale(answer))

    def of_solution(
        self, dx: Array, dy: Array, answer: tuple[Array, Array] | None = None
    ) -> NDArray[np.bool_]:
        return self.unscaled.of_solution(
            *self._unscaled(dx, dy), None if answer is None else self._unscaled(*answer)
        )

    def _unscaled(self, dx: Array, dy: Array) -> tuple[Array, Array]:
        x, y, _ = self.scaling.unscale_point(Point(dx, dy, np.zeros_like(dy)))
        return x, y

    def take(self, index: NDArray[np.intp] | slice) -> Observability:
        return ScaledObservability(self.unscaled.take(index), self.scaling.take(index))


def peak(stack: Array) -> Array:
    """Return the largest magnitude of every vector of a stack, shape (B,)."""
    largest: Array = np.abs(stack).max(axis=1, initial=0.0)
    return largest
