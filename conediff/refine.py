r"""Newton's method on the KKT residual: it finishes what SCS begins.

SCS's first digits are cheap and its last ones dear, while gradients need the last ones. R (see `residual`)
is semismooth, and with the reduced system K a Newton step is one factorisation,

.. math:: K (dx, t) = -(R_1, S R_2), \qquad dv = S t + A\,dx + R_2.

Far from the solution, or where K is singular, a plain step may lead astray: it is taken only as far as
the residual decreases, and where no length helps it is tried again with more regularisation.
Source: Ali, Wong, Kolter (2017), A semismooth Newton method for fast, generic convex programming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.factor import KKTFactor
from conediff.kkt import KKT, REGULARISATION
from conediff.residual import Evaluation, Residual
from conediff.structure import Array, ConeData

# Lengths at which a step is tried, one after the other.
_STEP_LENGTHS = (1.0, 0.5, 0.2, 0.05)
# Where SCS may still help, shorter ones are not worth trying, nor going on after a step that left more of
# the residual than this.
_LONG, _QUICK = 0.5, 0.7
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
        The system of the last step that all programs took together: nearly that of the solutions.
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
        self.steps[index] += 1


def refine(
    kkt: KKT,
    data: ConeData,
    x: Array,
    y: Array,
    s: Array,
    tol: float,
    max_steps: int = 30,
    patient: bool = True,
) -> Refined:
    """Refine approximate solutions until their relative KKT residual is at most ``tol``.

    Stops early for a program whose residual no longer falls.

    Parameters
    ----------
    kkt : KKT
    data : ConeData
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
        Where to begin.
    tol : float
    max_steps : int
    patient : bool
        Whether to go on where steps are short, are refused, or bring little.
    """
    structure = kkt.pattern.structure
    R = Residual(structure, data)
    here = R(x, y - s, y)
    refined = Refined.at(here)
    active = np.arange(len(x))
    strength = np.full(len(x), REGULARISATION)
    promising = np.ones(len(x), dtype=bool)
    lengths = _STEP_LENGTHS if patient else [length for length in _STEP_LENGTHS if length >= _LONG]
    for _ in range(max_steps):
        going = promising & (here.relative > tol) & np.isfinite(here.relative) & (strength <= _MOST)
        if not going.any():
            break
        if not going.all():
            active, strength, promising = active[going], strength[going], promising[going]
            R = Residual(structure, data.take(active))
            here = R(here.x[going], here.v[going], here.y[going])
        before = here.relative
        factor = kkt.factor(R.data, here.projection.derivative(), strength)
        here, moved = _step(R, here, factor, strength, lengths)
        refined.move(active, here, moved)
        if len(active) == len(x) and (strength == REGULARISATION).all():
            refined.factor = factor
        if not patient:
            promising = moved & (here.relative < _QUICK * before)
        # A step that was refused is tried again, more cautiously; one that was taken makes bold again.
        strength = np.maximum(strength * np.where(moved, 1 / _MORE, _MORE), REGULARISATION)
    return refined


def _step(
    R: Residual, here: Evaluation, factor: KKTFactor, strength: Array, lengths: Sequence[float]
) -> tuple[Evaluation, NDArray[np.bool_]]:
    """Take one damped Newton step of every program; say where it arrived and which moved."""
    dx, dv = _direction(R, here, factor, strength)
    merit = here.merit(here.scale1, here.scale2)
    length = np.ones(len(merit))
    for shorter in (*lengths[1:], 0.0):
        there = R(here.x + length[:, None] * dx, here.v + length[:, None] * dv, here.y)
        low = there.merit(here.scale1, here.scale2) < (1 - _DECREASE * length) * merit
        refused = ~low & (length > 0)
        if not refused.any():
            return there, length > 0
        length[refused] = shorter
    if not length.any():
        return here, length > 0
    return R(here.x + length[:, None] * dx, here.v + length[:, None] * dv, here.y), length > 0


def _direction(R: Residual, here: Evaluation, factor: KKTFactor, strength: Array) -> tuple[Array, Array]:
    """Newton's direction (dx, dv): exact at the least regularisation, of the regularised K above it."""
    derivative = factor.operator.derivative
    rhs = np.hstack([-here.r1, -derivative.apply_root(here.r2)])
    z = factor.solve(rhs, tol=1e-10, steps=3)[0]
    cautious = strength > REGULARISATION
    if cautious.any():
        z[cautious] = factor.solve_regularised(rhs)[cautious]
    # Where K has no finite solution there is no direction, and the step is refused.
    z[~np.isfinite(z).all(axis=1)] = 0
    dx = z[:, : R.structure.n]
    return dx, derivative.apply_root(z[:, R.structure.n :]) + R.A(dx) + here.r2
