r"""Newton's method on the KKT residual: it computes the last digits, after SCS has found the first.

R (see `kkt.residual`) is semismooth, and with the reduced system K a Newton step is one factorisation,

.. math:: K (dx, t) = -(R_1, S R_2), \qquad dv = S t + A\,dx + R_2.

`full_newton` takes steps of length one, though the residual may rise on the way: on polyhedral cones they are
the steps of a primal-dual active set method, each of which guesses the active constraints anew.
`damped_newton` takes a step only as far as the residual decreases, and repeats it with more regularisation
where no length helps: it is for points far from the solution and for singular K. Both are `newton` with a
rule for the step. Sources: Ali, Wong, Kolter (2017), A semismooth Newton method for fast, generic convex
programming; Hintermüller, Ito, Kunisch (2002), The primal-dual active set strategy as a semismooth Newton
method.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.constants import REGULARISATION
from conediff.kkt.factor import KKTFactor
from conediff.kkt.residual import Evaluation, Residual
from conediff.kkt.system import KKTSystem
from conediff.program import Array, ConeData, Point
from conediff.solver.constants import (
    DAMPED_DECREASE,
    DAMPED_LENGTHS,
    DAMPED_MAX_REGULARISATION,
    DAMPED_MAX_STEPS,
    DAMPED_REGULARISATION_FACTOR,
    DIRECTION_REFINEMENTS,
    DIRECTION_RESIDUAL,
    FULL_MAX_STEPS,
    FULL_POOR_STEPS,
    FULL_REDUCTION,
)

# `full_newton` or `damped_newton`: of a system, data, a point to begin from, a tolerance and a deadline.
NewtonMethod = Callable[[KKTSystem, ConeData, Point, float, float], "NewtonResult"]


@dataclass
class NewtonResult:
    """Where Newton's method ended, for a stack of programs.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    residual : array, shape (B,)
        Relative KKT residual, see `kkt.residual.Evaluation.relative`.
    steps : int array, shape (B,)
        Steps taken.
    factor : KKTFactor, optional
        K at the points before the last steps, if not regularised more than usual: nearly K at the solutions.
    """

    x: Array
    y: Array
    s: Array
    residual: Array
    steps: NDArray[np.intp]
    factor: KKTFactor | None = None

    @classmethod
    def at(cls, here: Evaluation) -> NewtonResult:
        """Return the result of no steps."""
        steps = np.zeros(len(here.x), dtype=np.intp)
        return cls(here.x.copy(), here.y.copy(), here.s.copy(), here.relative.copy(), steps)

    def move(self, index: NDArray[np.intp], to: Evaluation, moved: NDArray[np.bool_]) -> None:
        """Store the new points of those programs at these positions that moved."""
        index = index[moved]
        self.x[index], self.y[index], self.s[index] = to.x[moved], to.y[moved], to.s[moved]
        self.residual[index] = to.relative[moved]

    def keep(self, index: NDArray[np.intp], factor: KKTFactor) -> None:
        """Store the factor of the programs at these positions."""
        if index.size == len(self.x):
            self.factor = factor
        elif self.factor is not None:
            self.factor = self.factor.with_rows_from(index, factor)


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


def newton(
    system: KKTSystem,
    data: ConeData,
    start: Point,
    tol: float,
    rule: StepRule,
    deadline: float = math.inf,
) -> NewtonResult:
    """Take Newton steps until the residual of every program is at most ``tol``, or the rule stops it.

    Parameters
    ----------
    system : KKTSystem
    data : ConeData
    start : Point
    tol : float
        Relative KKT residual.
    rule : StepRule
    deadline : float
        `time.time` after which no step begins.
    """
    # Where numbers overflow the residual is infinite, and the step is refused.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _iterate(system, data, start, tol, rule, deadline)


def _iterate(
    system: KKTSystem, data: ConeData, start: Point, tol: float, rule: StepRule, deadline: float
) -> NewtonResult:
    R = Residual(system.pattern.structure, data)
    here = R(start.x, start.y - start.s, start.y)
    result = NewtonResult.at(here)
    active, state = np.arange(len(start.x)), rule.begin(len(start.x))
    for _ in range(rule.max_steps):
        going = rule.may_continue(state) & (result.residual[active] > tol) & np.isfinite(here.relative)
        if not going.any() or time.time() >= deadline:
            break
        if not going.all():
            active, state = active[going], state[going]
            R = Residual(R.structure, R.data.take(np.flatnonzero(going)))
            here = R(here.x[going], here.v[going], here.y[going])
        regularisation = rule.regularisation(state)
        factor = system.factor(R.data, here.projection.derivative(), regularisation)
        step = rule.step(R, here, factor, result.residual[active], state)
        here, state = step.there, step.state
        result.move(active, here, step.kept)
        result.steps[active[step.counted]] += 1
        if np.all(regularisation == REGULARISATION):
            result.keep(active, factor)
    return result


def full_newton(
    system: KKTSystem,
    data: ConeData,
    start: Point,
    tol: float,
    deadline: float = math.inf,
    max_steps: int = FULL_MAX_STEPS,
) -> NewtonResult:
    """Take full Newton steps, and return the best point on the way; see `newton`."""
    return newton(system, data, start, tol, FullSteps(max_steps), deadline)


def damped_newton(
    system: KKTSystem,
    data: ConeData,
    start: Point,
    tol: float,
    deadline: float = math.inf,
    max_steps: int = DAMPED_MAX_STEPS,
) -> NewtonResult:
    """Take damped Newton steps, each of which decreases the residual; see `newton`."""
    return newton(system, data, start, tol, DampedSteps(max_steps), deadline)


@dataclass(frozen=True)
class FullSteps:
    """Steps of length one; the state is how many more steps may bring little."""

    max_steps: int

    def begin(self, count: int) -> Array:
        return np.full(count, float(FULL_POOR_STEPS))

    def may_continue(self, state: Array) -> NDArray[np.bool_]:
        return np.asarray(state > 0)

    def regularisation(self, state: Array) -> float:
        return REGULARISATION

    def step(self, R: Residual, here: Evaluation, factor: KKTFactor, best: Array, state: Array) -> Step:
        dx, dv = _direction(R, here, factor)
        there = R(here.x + dx, here.v + dv, here.y)
        state = np.where(there.relative < FULL_REDUCTION * best, state, state - 1)
        return Step(there, there.relative < best, np.ones(len(best), dtype=bool), state)


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
    R: Residual, here: Evaluation, factor: KKTFactor, regularisation: Array | float = REGULARISATION
) -> tuple[Array, Array]:
    """Return Newton's direction (dx, dv): of K at the least regularisation, of the regularised K above."""
    derivative = factor.operator.derivative
    rhs = np.hstack([-here.r1, -derivative.apply_root(here.r2)])
    z = factor.solve(rhs, tol=DIRECTION_RESIDUAL, steps=DIRECTION_REFINEMENTS)[0]
    cautious = np.broadcast_to(regularisation > REGULARISATION, len(z))
    if cautious.any():
        z[cautious] = factor.solve_regularised(rhs)[cautious]
    # Where K has no finite solution there is no direction, and the step is refused.
    z[~np.isfinite(z).all(axis=1)] = 0
    dx = z[:, : R.structure.n]
    return dx, derivative.apply_root(z[:, R.structure.n :]) + R.A(dx) + here.r2
