r"""diffcp's lpgd modes: derivatives as differences between the solutions of perturbed programs.

Lagrangian proximal gradient descent: Paulus, Martius, Musil (2024), arXiv:2407.05920. As the perturbation tau
tends to zero, the differences tend to the exact derivative. The weight rho adds proximal terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp

from conediff.compat.solving import raise_failures, solve_programs
from conediff.program import Array, ConeProgram, Point

# The two perturbations, in units of tau, between which each mode takes the difference; 0 means the solution
# of the given program.
SIDES = {"lpgd": (1, -1), "lpgd_right": (1, 0), "lpgd_left": (0, -1)}
# A perturbed program, and the function that returns y from its solution.
_Perturbed = tuple[ConeProgram, Callable[[Any], Array]]


@dataclass(frozen=True)
class LPGD:
    """One lpgd mode with its parameters.

    Parameters
    ----------
    mode : {"lpgd", "lpgd_right", "lpgd_left"}
    tau : float
        Perturbation; positive.
    rho : float
        Weight of the proximal terms; not negative.
    settings : mapping
        Arguments of `solve_batch` for the perturbed programs.
    solver : {"SCS", "ECOS", "Clarabel"}
        Named in errors.
    """

    mode: str
    tau: float
    rho: float
    settings: Mapping[str, Any]
    solver: str

    @classmethod
    def from_parameters(
        cls, mode: str, parameters: Mapping[str, Any], settings: Mapping[str, Any], solver: str
    ) -> LPGD:
        """Read tau and rho from diffcp's ``derivative_kwargs``; raise ValueError if they cannot be used."""
        known = {"tau": 0.0, "rho": 0.0, **parameters}
        tau, rho = known["tau"], known["rho"]
        if len(known) > 2 or not (tau > 0 and rho >= 0):
            raise ValueError(f"the lpgd modes need derivative_kwargs of tau > 0 and rho >= 0, got {known}")
        return cls(mode, tau, rho, settings, solver)

    @property
    def width(self) -> float:
        """Distance between the two perturbations."""
        return self.tau * (SIDES[self.mode][0] - SIDES[self.mode][1])

    def solve(
        self,
        perturb: Callable[..., _Perturbed],
        programs: Sequence[ConeProgram],
        points: Sequence[Point],
        inputs: Sequence[Any],
    ) -> list[tuple[Point, Point]]:
        """Return the two points between which the difference is taken, per program.

        Parameters
        ----------
        perturb : callable
            `perturb_data` or `perturb_objective`.
        programs, points : sequences of ConeProgram, Point
            The programs and their solutions.
        inputs : sequence
            Tangents or cotangents, one per program.

        Raises
        ------
        SolverError
            If a perturbed program has no solution.
        """
        ends: list[Sequence[Point]] = []
        for side in SIDES[self.mode]:
            if side == 0:
                ends.append(points)
                continue
            given = zip(programs, points, inputs, strict=True)
            perturbed = [perturb(*one, side * self.tau, self.rho) for one in given]
            found = solve_programs([program for program, _ in perturbed], points, self.settings)[1]
            where = f"perturbed by {side * self.tau:+g} (try a smaller tau or the other side): "
            raise_failures(found, self.solver, where)
            ends.append([Point(r.x, y_of(r), r.s) for r, (_, y_of) in zip(found, perturbed, strict=True)])
        return list(zip(*ends, strict=True))


def perturb_data(program: ConeProgram, at: Point, tangent: Any, step: float, rho: float) -> _Perturbed:
    """Add step times the tangent to the data, and rho/2 |x - x*|^2 to the objective."""
    dA, db, dc, dP = tangent
    P = program.P + step * dP + rho * sp.eye_array(program.n)
    A, b, c = program.A + step * dA, program.b + step * db, program.c + step * dc - rho * at.x
    return ConeProgram(A, b, c, program.cones, P), lambda found: found.y


def perturb_objective(program: ConeProgram, at: Point, cotangent: Any, step: float, rho: float) -> _Perturbed:
    """Subtract step dy from b, and add terms in x and s to the objective.

    The terms are step (dx'x + ds's) + rho/2 |x - x*|^2 + w/2 |s - s*|^2, where w = rho, but 0 if ds = 0. The
    substitution s = b - Ax eliminates the slack from the objective; the terms in s must then
    be added to y, the multiplier of Ax + s = b.
    """
    dx, dy, ds = cotangent
    A, b, weight = program.A, program.b - step * dy, rho * ds.any()
    P = program.P + rho * sp.eye_array(program.n) + weight * (A.T @ A)
    c = program.c + step * (dx - A.T @ ds) - rho * at.x - weight * (A.T @ (b - at.s))
    perturbed = ConeProgram(A, b, c, program.cones, P)
    return perturbed, lambda found: found.y - step * ds - weight * (found.s - at.s)
