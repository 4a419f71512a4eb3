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

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.constants import REGULARISATION
from conediff.kkt.factor import KKTFactor
from conediff.kkt.residual import Evaluation, Residual
from conediff.kkt.system import KKTSystem
from conediff.program import Array, ConeData, Point
from conediff.solver.constants import (
    DAMPED_MAX_STEPS,
    FULL_MAX_STEPS,
    INEXACT_MAX_STEPS,
    INEXACT_RESIDUAL,
    INTERIOR_REGULARISATION,
    INTERIOR_TOLERANCE,
    LOST,
)
from conediff.solver.newton_steps import DampedSteps, FullSteps, StepRule

# `full_newton` and its kind: of a system, data, a point to begin from, a tolerance and a deadline.
NewtonMethod = Callable[[KKTSystem, ConeData, Point, float, float], "NewtonResult"]


@dataclass
class NewtonResult:
    """Where Newton's method ended, for a stack of programs.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    residual : array, shape (B,)
        Relative KKT residual, see `kkt.residual.Evaluation.judged`.
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
        return cls(here.x.copy(), here.y.copy(), here.s.copy(), here.judged.copy(), steps)

    def move(self, index: NDArray[np.intp], to: Evaluation, moved: NDArray[np.bool_]) -> None:
        """Store the new points of those programs at these positions that moved."""
        index = index[moved]
        self.x[index], self.y[index], self.s[index] = to.x[moved], to.y[moved], to.s[moved]
        self.residual[index] = to.judged[moved]

    def keep(self, index: NDArray[np.intp], factor: KKTFactor) -> None:
        """Store the factor of the programs at these positions."""
        if index.size == len(self.x):
            self.factor = factor
        elif self.factor is not None:
            self.factor = self.factor.with_rows_from(index, factor)


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
        going = rule.may_continue(state) & (result.residual[active] > tol) & np.isfinite(here.judged)
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


def no_newton(
    system: KKTSystem, data: ConeData, start: Point, tol: float, deadline: float = math.inf
) -> NewtonResult:
    """Take no step: return the start with its residual."""
    return newton(system, data, start, tol, FullSteps(0), deadline)


def confirming_newton(
    system: KKTSystem, data: ConeData, start: Point, tol: float, deadline: float = math.inf
) -> NewtonResult:
    """Take full steps from what is a solution already, as long as none loses it; see `newton`."""
    return newton(system, data, start, tol, FullSteps(FULL_MAX_STEPS, lost=LOST), deadline)


def interior_newton(
    system: KKTSystem, data: ConeData, start: Point, tol: float, deadline: float = math.inf
) -> NewtonResult:
    """Take full steps of a strongly regularised K, then damped ones where those fall short; see `newton`.

    An interior point lies in the middle of the faces of solutions, where K is singular, and some of its
    active constraints are wrong. K's direction then hardly exists; with the regularisation the step is one
    of the proximal point method (Rockafellar 1976), which changes the active constraints first.
    """
    rule = FullSteps(FULL_MAX_STEPS, strength=INTERIOR_REGULARISATION)
    found = newton(system, data, start, INTERIOR_TOLERANCE * tol, rule, deadline)
    left = np.flatnonzero(~(found.residual <= tol))
    if left.size:
        best = Point(found.x, found.y, found.s).take(left)
        again = damped_newton(system, data.repeated(len(found.x)).take(left), best, tol, deadline)
        found.x[left], found.y[left], found.s[left] = again.x, again.y, again.s
        found.residual[left] = again.residual
        found.steps[left] += again.steps
        found.factor = again.factor if left.size == len(found.x) else None
    return found


def inexact_newton(
    system: KKTSystem, data: ConeData, start: Point, tol: float, deadline: float = math.inf
) -> NewtonResult:
    """Take full steps with directions of a few digits, until one brings little; see `newton`.

    For programs whose K is solved with by GMRES, from points near a solution (Dembo, Eisenstat, Steihaug
    1982).
    """
    return newton(
        system, data, start, tol, FullSteps(INEXACT_MAX_STEPS, 1, accuracy=INEXACT_RESIDUAL), deadline
    )
