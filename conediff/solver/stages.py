"""The stages of a solve: a table for most programs, and two where a Newton step costs hundreds of SCS's.

In a stage SCS or Clarabel runs, from the best point so far, and Newton's method refines what it found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from conediff.cones import ProductCone
from conediff.kkt.matrix import KKTPattern
from conediff.program import ConeData
from conediff.solver.clarabel_cones import clarabel_work, psd_orders
from conediff.solver.constants import (
    CLARABEL_FACTORISATIONS,
    CLARABEL_WORK,
    LARGE_ITERATIONS,
    NEWTON_STEPS,
    SCS_EIG_WORK,
    SCS_STEP_WORK,
    WIDE_RATIO,
)
from conediff.solver.newton import (
    NewtonMethod,
    damped_newton,
    full_newton,
    inexact_newton,
    interior_newton,
    no_newton,
)
from conediff.solver.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule.

    Attributes
    ----------
    in_piles : bool
        Whether many programs go together; each goes alone otherwise.
    newton : callable, optional
        One of `newton`'s methods; None if the solver's point is accepted as it is.
    own : mapping
        The solver's settings.
    user_first : bool
        Whether settings of the user take precedence over these.
    is_cold : bool
        Whether SCS begins anew, not from the best point so far.
    solver : {"scs", "clarabel"}
        Clarabel takes each program alone, and begins anew.
    share : float, optional
        At most this many iterations for each that SCS has taken before, in place of ``max_iters``.
    """

    in_piles: bool
    newton: NewtonMethod | None
    own: Mapping[str, Any] = field(default_factory=dict)
    user_first: bool = True
    is_cold: bool = False
    solver: str = "scs"
    share: float | None = None

    def settings(self, of_user: Settings) -> dict[str, Any]:
        """Return the solver's settings for this stage."""
        if self.solver == "clarabel":
            # The user's `verbose` is for both solvers.
            given = {name: value for name, value in of_user.scs.items() if name == "verbose"}
            given.update(of_user.clarabel)
        else:
            given = dict(of_user.scs)
        return {**self.own, **given} if self.user_first else {**given, **self.own}


def _tolerance(eps: float) -> dict[str, float]:
    return {"eps_abs": eps, "eps_rel": eps}


def _clarabel_tolerance(eps: float) -> dict[str, float]:
    return {"tol_gap_abs": eps, "tol_gap_rel": eps, "tol_feas": eps}


# Clarabel's tolerance of certificates, tighter than CERTIFICATE, which all certificates have to meet.
_CLARABEL_CERTIFY = {"tol_infeas_rel": 1e-10}


_CERTIFY = {"eps_infeas": 1e-9}
# 25 iterations find the active constraints of most programs.
_FIRST = {**_tolerance(1e-2), "max_iters": 25, "acceleration_lookback": 0}
# Clarabel stops where it makes no more progress, and returns its best point. On 36 problems of Maros and
# Meszaros, netlib and SDPLIB, Newton's method solves 26, 30, 32 and 33 from its points at 1e-8, 1e-10, 1e-12
# and 1e-14, with half as many steps at 1e-14 as at 1e-8, for a third more iterations of Clarabel.
CLARABEL = Stage(
    False,
    interior_newton,
    {**_clarabel_tolerance(1e-14), **_CLARABEL_CERTIFY},
    user_first=False,
    solver="clarabel",
)
STAGES: tuple[Stage, ...] = (
    Stage(True, full_newton, _FIRST),
    Stage(True, full_newton, {**_tolerance(1e-3), "max_iters": 200}),
    Stage(True, full_newton, {**_tolerance(1e-5), "max_iters": 1000, "scale": 1.0}),
    # As the first stage, alone: a pile's iterations may have led this program astray.
    Stage(False, full_newton, _FIRST, is_cold=True),
    CLARABEL,
    Stage(False, damped_newton, {**_tolerance(1e-6), **_CERTIFY}),
    Stage(False, damped_newton, {**_tolerance(1e-9), **_CERTIFY, "max_iters": 10_000}, user_first=False),
    # Anderson acceleration now and then prevents convergence.
    Stage(
        False, damped_newton, {**_tolerance(1e-9), **_CERTIFY, "acceleration_lookback": 0}, user_first=False
    ),
    Stage(
        False,
        damped_newton,
        {**_tolerance(1e-9), **_CERTIFY, "max_iters": 10_000, "scale": 1.0},
        user_first=False,
    ),
)


# Programs with large PSD cones: a Newton step is GMRES on K, dearer than hundreds of SCS's iterations. From
# 1e-8 SCS reaches 1e-10 in half as many iterations as it took, if at all (Lovász theta functions); otherwise
# one or two Newton steps do (relaxations of max-cut).
_LARGE = Stage(False, no_newton, {**_tolerance(1e-8), **_CERTIFY, "scale": 1.0})
_LARGE_FINE = {**_tolerance(2e-11), **_CERTIFY}
_LARGE_STAGES: tuple[Stage, ...] = (
    Stage(False, inexact_newton, _LARGE_FINE, user_first=False, share=0.5),
    replace(CLARABEL, newton=inexact_newton),
    Stage(False, inexact_newton, _LARGE_FINE, user_first=False, share=1.0),
    Stage(False, inexact_newton, {**_LARGE_FINE, "acceleration_lookback": 0}, user_first=False, share=1.0),
)


# Cones with many columns: SCS runs once, because setting it up costs as much as a hundred iterations; one or
# two Newton steps remain.
_WIDE = replace(_LARGE, newton=full_newton)
_WIDE_STAGES = tuple(stage for stage in STAGES if not (stage.in_piles or stage.is_cold))


def stages_of(pattern: KKTPattern, data: ConeData) -> tuple[Sequence[Stage], bool]:
    """Return the table for programs of this structure, and whether Clarabel is to come last in it."""
    structure = pattern.structure
    work = clarabel_work(structure, data)
    step = SCS_STEP_WORK * float(structure.A.nnz + structure.P.nnz)
    step += SCS_EIG_WORK * sum(float(order) ** 3 for order in psd_orders(structure.cone))
    if newton_is_dear(structure.cone):
        # SCS may take about as long as Clarabel would.
        enough = CLARABEL_FACTORISATIONS * clarabel_work(structure, data, 0.0) / step
        first, rest = _LARGE, _LARGE_STAGES
    else:
        # SCS may take about as long as Newton's method does from its first point.
        ratio = pattern.elimination_work / max(step, 1.0)
        if ratio < WIDE_RATIO:
            return STAGES, work > CLARABEL_WORK
        enough, first, rest = NEWTON_STEPS * ratio, _WIDE, _WIDE_STAGES
    iterations = int(np.clip(enough, *LARGE_ITERATIONS))
    first = replace(first, own={**first.own, "max_iters": iterations})
    return (first, *rest), work > CLARABEL_WORK


@lru_cache(maxsize=32)
def newton_is_dear(cone: ProductCone) -> bool:
    """Whether a cone is large and its D has no low-rank part, so that GMRES solves with K."""
    return any(
        group.is_large and group.project_dual(np.zeros((1, *rows.shape))).derivative().low_rank is None
        for group, rows in cone.groups
    )


def stages_for(settings: Settings, stages: Sequence[Stage], clarabel_last: bool = False) -> Sequence[Stage]:
    """Return these stages as the user's settings change them.

    Without refinement there is one. If Clarabel is to come first, it takes the place of the piles, with the
    settings of the user; the stage with its own follows only where they differ. Otherwise it comes last if
    so told.
    """
    if not settings.refine:
        tolerance = _clarabel_tolerance if settings.solver == "clarabel" else _tolerance
        return [Stage(False, None, tolerance(settings.tol), solver=settings.solver)]
    if settings.solver == "scs" or not stages:
        return sorted(stages, key=lambda stage: stage.solver == "clarabel") if clarabel_last else stages
    own = next(stage for stage in stages if stage.solver == "clarabel")
    alone = [stage for stage in stages if not (stage.in_piles or stage.is_cold)]
    rest = [stage for stage in alone if stage is not own or settings.clarabel]
    return [replace(own, user_first=True), *rest]
