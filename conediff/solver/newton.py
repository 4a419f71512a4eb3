r"""Newton's method on the KKT residual: it finishes what SCS begins.

SCS's first digits are cheap and its last ones dear, while gradients need the last ones. R (see `residual`)
is semismooth, and with the reduced system K a Newton step is one factorisation,

.. math:: K (dx, t) = -(R_1, S R_2), \qquad dv = S t + A\,dx + R_2.

Mostly a few full steps are enough, though the residual may rise on the way (`leap`): on polyhedral cones they
are those of a primal-dual active set method, each of which guesses the active constraints anew. Far from the
solution, or where K is singular, they may lead astray. Then a step is taken only as far as the residual
decreases, and where no length helps it is tried again with more regularisation (`refine`).
Sources: Ali, Wong, Kolter (2017), A semismooth Newton method for fast, generic convex programming;
Hintermüller, Ito, Kunisch (2002), The primal-dual active set strategy as a semismooth Newton method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.kkt.factor import KKTFactor
from conediff.kkt.residual import Evaluation, Residual
from conediff.kkt.system import REGULARISATION, KKTSystem
from conediff.program import Array, ConeData

# `refine` and `leap`: of a KKT, data, x, y, s and a tolerance.
Method = Callable[[KKTSystem, ConeData, Array, Array, Array, float], "Refined"]

# Lengths at which a step is tried, one after the other.
_STEP_LENGTHS = (1.0, 0.5, 0.2, 0.05)
# Of full steps, so many may leave more than this of the least residual so far.
_QUICK, _SPARE = 0.7, 3
# Decrease of the residual that a full step has to bring; of a shorter one, in proportion.
_DECREASE = 1e-2
# A refused step is tried again with so many times the regularisation, up to the most.
_MORE = 1e4
_MOST = 1e-1


@dataclass
class Refined:
    """Where Newton's method ended, for a stack of programs.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    residual : array, shape (B,)
        Relative KKT residual, see `residual.Evaluation.relative`.
    steps : int array, shape (B,)
        Steps taken.
    factor : KKTFactor, optional
        The systems of the last steps, if not regularised more than usual: nearly those of the solutions.
    """

    x: Array
    y: Array
    s: Array
    residual: Array
    steps: NDArray[np.intp]
    factor: KKTFactor | None = None

    @classmethod
    def at(cls, here: Evaluation) -> Refined:
        """Begin at this point."""
        steps = np.zeros(len(here.x), dtype=np.intp)
        return cls(here.x.copy(), here.y.copy(), here.s.copy(), here.relative.copy(), steps)

    def move(self, index: NDArray[np.intp], to: Evaluation, moved: NDArray[np.bool_]) -> None:
        """Let the programs at these positions, those of them that moved, be where they arrived."""
        index = index[moved]
        self.x[index], self.y[index], self.s[index] = to.x[moved], to.y[moved], to.s[moved]
        self.residual[index] = to.relative[moved]

    def keep(self, index: NDArray[np.intp], factor: KKTFactor) -> None:
        """Remember the system of the programs at these positions."""
        if index.size == len(self.x):
            self.factor = factor
        elif self.factor is not None:
            self.factor.patch(index, factor)


def leap(
    kkt: KKTSystem, data: ConeData, x: Array, y: Array, s: Array, tol: float, max_steps: int = 10
) -> Refined:
    """Take full Newton steps, and return the best point on the way.

    Stops for a program whose relative KKT residual is at most ``tol``, or fell too little too often.
    Parameters are those of `refine`.
    """
    R = Residual(kkt.pattern.structure, data)
    here = R(x, y - s, y)
    refined = Refined.at(here)
    active, spare = np.arange(len(x)), np.full(len(x), _SPARE)
    for _ in range(max_steps):
        going = (spare > 0) & (refined.residual[active] > tol) & np.isfinite(here.relative)
        if not going.any():
            break
        if not going.all():
            active, spare = active[going], spare[going]
            R, here = _only(R, here, going)
        factor = kkt.factor(R.data, here.projection.derivative())
        dx, dv = _direction(R, here, factor)
        here = R(here.x + dx, here.v + dv, here.y)
        least = refined.residual[active]
        spare = np.where(here.relative < _QUICK * least, spare, spare - 1)
        refined.move(active, here, here.relative < least)
        refined.steps[active] += 1
        refined.keep(active, factor)
    return refined


def refine(
    kkt: KKTSystem,
    data: ConeData,
    x: Array,
    y: Array,
    s: Array,
    tol: float,
    max_steps: int = 30,
) -> Refined:
    """Refine approximate solutions until their relative KKT residual is at most ``tol``.

    Stops early for a program whose residual no longer falls.

    Parameters
    ----------
    kkt : KKTSystem
    data : ConeData
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
        Where to begin.
    tol : float
    max_steps : int
    """
    R = Residual(kkt.pattern.structure, data)
    here = R(x, y - s, y)
    refined = Refined.at(here)
    active = np.arange(len(x))
    strength = np.full(len(x), REGULARISATION)
    for _ in range(max_steps):
        going = (here.relative > tol) & np.isfinite(here.relative) & (strength <= _MOST)
        if not going.any():
            break
        if not going.all():
            active, strength = active[going], strength[going]
            R, here = _only(R, here, going)
        factor = kkt.factor(R.data, here.projection.derivative(), strength)
        here, moved = _step(R, here, factor, strength)
        refined.move(active, here, moved)
        refined.steps[active[moved]] += 1
        if (strength == REGULARISATION).all():
            refined.keep(active, factor)
        # A step that was refused is tried again, more cautiously; one that was taken makes bold again.
        strength = np.maximum(strength * np.where(moved, 1 / _MORE, _MORE), REGULARISATION)
    return refined


def _only(R: Residual, here: Evaluation, going: NDArray[np.bool_]) -> tuple[Residual, Evaluation]:
    """Leave the others behind."""
    R = Residual(R.structure, R.data.take(np.flatnonzero(going)))
    return R, R(here.x[going], here.v[going], here.y[going])


def _step(
    R: Residual, here: Evaluation, factor: KKTFactor, strength: Array
) -> tuple[Evaluation, NDArray[np.bool_]]:
    """Take one damped Newton step of every program; say where it arrived and which moved."""
    dx, dv = _direction(R, here, factor, strength)
    merit = here.merit(here.scale1, here.scale2)
    length = np.ones(len(merit))
    for shorter in (*_STEP_LENGTHS[1:], 0.0):
        there = R(here.x + length[:, None] * dx, here.v + length[:, None] * dv, here.y)
        low = there.merit(here.scale1, here.scale2) < (1 - _DECREASE * length) * merit
        refused = ~low & (length > 0)
        if not refused.any():
            return there, length > 0
        length[refused] = shorter
    if not length.any():
        return here, length > 0
    return R(here.x + length[:, None] * dx, here.v + length[:, None] * dv, here.y), length > 0


def _direction(
    R: Residual, here: Evaluation, factor: KKTFactor, strength: Array | float = REGULARISATION
) -> tuple[Array, Array]:
    """Newton's direction (dx, dv): exact at the least regularisation, of the regularised K above it."""
    derivative = factor.operator.derivative
    rhs = np.hstack([-here.r1, -derivative.apply_root(here.r2)])
    z = factor.solve(rhs, tol=1e-10, steps=3)[0]
    cautious = np.broadcast_to(strength > REGULARISATION, len(z))
    if cautious.any():
        z[cautious] = factor.solve_regularised(rhs)[cautious]
    # Where K has no finite solution there is no direction, and the step is refused.
    z[~np.isfinite(z).all(axis=1)] = 0
    dx = z[:, : R.structure.n]
    return dx, derivative.apply_root(z[:, R.structure.n :]) + R.A(dx) + here.r2
