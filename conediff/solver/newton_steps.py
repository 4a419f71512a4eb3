"""How far Newton's method goes along its direction: rules for `newton`, full steps and damped ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.constants import REGULARISATION
from conediff.kkt.factor import KKTFactor
from conediff.kkt.residual import Evaluation, Residual
from conediff.program import Array
from conediff.solver.constants import (
    DAMPED_DECREASE,
    DAMPED_LENGTHS,
    DAMPED_MAX_REGULARISATION,
    DAMPED_REGULARISATION_FACTOR,
    DIRECTION_REFINEMENTS,
    DIRECTION_RESIDUAL,
    FULL_POOR_STEPS,
    FULL_REDUCTION,
)


@dataclass(frozen=True)
class Step:
    """What one step did to the active programs.

    Attributes
    ----------
    there : Evaluation
        The residual where the step ended.
    kept : bool array
        Programs for which the new point is stored.
    counted : bool array
        Programs that took a step.
    state : array
        The rule's state for the next step.
    """

    there: Evaluation
    kept: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    state: Array


class StepRule(Protocol):
    """How far to go along Newton's direction; its state is one number for every program."""

    @property
    def max_steps(self) -> int:
        """Steps at most."""

    def begin(self, count: int) -> Array:
        """Return the state before the first step, shape (count,)."""

    def may_continue(self, state: Array) -> NDArray[np.bool_]:
        """Return for which programs another step is allowed."""

    def regularisation(self, state: Array) -> Array | float:
        """Return the regularisation of K for the next step."""

    def step(self, R: Residual, here: Evaluation, factor: KKTFactor, best: Array, state: Array) -> Step:
        """Take one step; ``best`` is the least residual so far."""


@dataclass(frozen=True)
class FullSteps:
    """Steps of length one; the state is how many more steps may bring little.

    Parameters
    ----------
    max_steps : int
    poor_steps : int
        How many steps may bring little.
    lost : float
        A residual above which there are no further steps.
    accuracy : float
        Relative residual of directions.
    strength : float
        Regularisation of K; refinement removes it from the directions as far as K has one.
    """

    max_steps: int
    poor_steps: int = FULL_POOR_STEPS
    lost: float = np.inf
    accuracy: float = DIRECTION_RESIDUAL
    strength: float = REGULARISATION

    def begin(self, count: int) -> Array:
        return np.full(count, float(self.poor_steps))

    def may_continue(self, state: Array) -> NDArray[np.bool_]:
        return np.asarray(state > 0)

    def regularisation(self, state: Array) -> float:
        return self.strength

    def step(self, R: Residual, here: Evaluation, factor: KKTFactor, best: Array, state: Array) -> Step:
        dx, dv = _direction(R, here, factor, accuracy=self.accuracy)
        there = R(here.x + dx, here.v + dv, here.y)
        state = np.where(there.judged < FULL_REDUCTION * best, state, state - 1)
        state = np.where(there.relative > self.lost, 0, state)
        return Step(there, there.judged < best, np.ones(len(best), dtype=bool), state)


@dataclass(frozen=True)
class DampedSteps:
    """Steps as long as the residual decreases; the state is the regularisation of K."""

    max_steps: int

    def begin(self, count: int) -> Array:
        return np.full(count, REGULARISATION)

    def may_continue(self, state: Array) -> NDArray[np.bool_]:
        return np.asarray(state <= DAMPED_MAX_REGULARISATION)

    def regularisation(self, state: Array) -> Array:
        return state

    def step(self, R: Residual, here: Evaluation, factor: KKTFactor, best: Array, state: Array) -> Step:
        there, moved = self._decrease(R, here, _direction(R, here, factor, state))
        factors = np.where(moved, 1 / DAMPED_REGULARISATION_FACTOR, DAMPED_REGULARISATION_FACTOR)
        return Step(there, moved, moved, np.maximum(state * factors, REGULARISATION))

    def _decrease(
        self, R: Residual, here: Evaluation, direction: tuple[Array, Array]
    ) -> tuple[Evaluation, NDArray[np.bool_]]:
        """Go along the direction as far as the residual decreases; return the end and who moved."""
        dx, dv = direction
        merit = here.merit(here.scale1, here.scale2)
        length = np.ones(len(merit))
        for shorter in (*DAMPED_LENGTHS[1:], 0.0):
            there = R(here.x + length[:, None] * dx, here.v + length[:, None] * dv, here.y)
            decreased = there.merit(here.scale1, here.scale2) < (1 - DAMPED_DECREASE * length) * merit
            refused = ~decreased & (length > 0)
            if not refused.any():
                return there, length > 0
            length[refused] = shorter
        if not length.any():
            return here, length > 0
        return R(here.x + length[:, None] * dx, here.v + length[:, None] * dv, here.y), length > 0


def _direction(
    R: Residual,
    here: Evaluation,
    factor: KKTFactor,
    regularisation: Array | float = REGULARISATION,
    accuracy: float = DIRECTION_RESIDUAL,
) -> tuple[Array, Array]:
    """Return Newton's direction (dx, dv): of K at the least regularisation, of the regularised K above."""
    derivative = factor.operator.derivative
    rhs = np.hstack([-here.r1, -derivative.apply_root(here.r2)])
    z = factor.solve(rhs, tol=accuracy, steps=DIRECTION_REFINEMENTS)[0]
    cautious = np.broadcast_to(regularisation > REGULARISATION, len(z))
    if cautious.any():
        z[cautious] = factor.solve_regularised(rhs)[cautious]
    # Where K has no finite solution there is no direction, and the step is refused.
    z[~np.isfinite(z).all(axis=1)] = 0
    dx = z[:, : R.structure.n]
    return dx, derivative.apply_root(z[:, R.structure.n :]) + R.A(dx) + here.r2
