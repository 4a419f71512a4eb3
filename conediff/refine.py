r"""Newton's method on the KKT residual: it finishes what SCS begins.

SCS's first digits are cheap and its last ones dear, while gradients need the last ones. R (see `residual`)
is semismooth, and with the reduced system K a Newton step is one factorisation,

.. math:: K (dx, t) = -(R_1, S R_2), \qquad dv = S t + A\,dx + R_2.

Far from the solution, or where K is singular, a plain step may lead astray: it is taken only as far as
the residual decreases, and where no length helps it is tried again with more regularisation.
Source: Ali, Wong, Kolter (2017), A semismooth Newton method for fast, generic convex programming.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.kkt import KKT, REGULARISATION
from conediff.residual import Evaluation, Residual
from conediff.structure import Array, ConeData
from conediff.threads import Mapper

_STEP_LENGTHS = (1.0, 0.5, 0.2, 0.05)
_MORE = 100.0
_MOST = 1e-3
_DECREASE = 1e-2


@dataclass(frozen=True)
class Refined:
    """Where Newton's method ended, for a stack of programs.

    Attributes
    ----------
    x, v : arrays, shape (B, n), (B, m)
    residual : array, shape (B,)
        Relative KKT residual, see `residual.Evaluation.relative`.
    steps : int array, shape (B,)
        Steps taken.
    """

    x: Array
    v: Array
    residual: Array
    steps: NDArray[np.intp]


def refine(
    kkt: KKT, data: ConeData, x: Array, v: Array, tol: float, max_steps: int = 30, mapper: Mapper = map
) -> Refined:
    """Refine approximate solutions until their relative KKT residual is at most ``tol``.

    Never worsens a residual. Stops early for a program whose residual no longer falls.

    Parameters
    ----------
    kkt : KKT
    data : ConeData
    x, v : arrays, shape (B, n), (B, m)
        Where to begin; v = y - s.
    tol : float
    max_steps : int
    mapper : callable
        Like the built-in ``map``; may run in threads.
    """
    structure = kkt.pattern.structure
    here = Residual(structure, data)(x, v)
    x, v, residual = x.copy(), v.copy(), here.relative.copy()
    steps = np.zeros(len(x), dtype=np.intp)
    active = np.flatnonzero((residual > tol) & np.isfinite(residual))
    strength = np.full(len(x), REGULARISATION)
    for _ in range(max_steps):
        if active.size == 0:
            break
        R = Residual(structure, data.take(active))
        new, moved = _step(kkt, R, x[active], v[active], strength[active], mapper)
        x[active], v[active], residual[active] = new.x, new.v, new.relative
        steps[active] += moved
        # A step that was refused is tried again, more cautiously; one that was taken makes bold again.
        change = np.where(moved, 1 / _MORE, _MORE)
        strength[active] = np.maximum(strength[active] * change, REGULARISATION)
        active = active[(new.relative > tol) & (strength[active] <= _MOST)]
    return Refined(x, v, residual, steps)


def _step(
    kkt: KKT, R: Residual, x: Array, v: Array, strength: Array, mapper: Mapper
) -> tuple[Evaluation, NDArray[np.bool_]]:
    """Take one damped Newton step of every program; say where it arrived and which moved."""
    here = R(x, v)
    dx, dv = _direction(kkt, R, here, strength, mapper)
    merit = here.merit(here.scale1, here.scale2)
    moved = np.zeros(len(x), dtype=bool)
    best = here
    for length in _STEP_LENGTHS:
        trial = R(np.where(moved[:, None], best.x, x + length * dx), np.where(moved[:, None], best.v, v + length * dv))
        lower = trial.merit(here.scale1, here.scale2) < (1 - _DECREASE * length) * merit
        moved |= lower
        best = trial
        if moved.all():
            return best, moved
    return R(np.where(moved[:, None], best.x, x), np.where(moved[:, None], best.v, v)), moved


def _direction(
    kkt: KKT, R: Residual, here: Evaluation, strength: Array, mapper: Mapper
) -> tuple[Array, Array]:
    """Newton's direction (dx, dv): exact at the least regularisation, of the regularised K above it."""
    derivative = here.projection.derivative()
    factor = kkt.factor(R.data, derivative, strength, mapper)
    rhs = np.hstack([-here.r1, -derivative.apply_root(here.r2)])
    z = factor.solve(rhs, tol=1e-10, steps=3)[0]
    cautious = strength > REGULARISATION
    if cautious.any():
        z[cautious] = factor.solve_regularised(rhs)[cautious]
    n = R.structure.n
    dx = z[:, :n]
    return dx, derivative.apply_root(z[:, n:]) + R.A(dx) + here.r2
