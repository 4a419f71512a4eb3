"""Random cone programs whose solution is known, and differentiable there, by construction.

Choose v, and with it y = Π(v) and s = y - v; choose x, A and P; then b = A x + s and c = -P x - A'y make
(x, y, s) the solution. The same, run along a line in (x, v, P, A), gives a curve of programs whose
solutions are known: what the derivative has to say about it needs no solver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

import conediff as cd
from conediff.cones import ProductCone

INF = np.inf

# Every kind alone, with several sizes, and mixtures.
CONES = {
    "zero": {"z": 4},
    "nonnegative": {"l": 7},
    "box": {"bl": [-1.0, -INF, 0.5, -2.0, 0.0], "bu": [1.0, 2.0, INF, -1.0, 0.0]},
    "soc_1": {"q": [1, 1, 1, 1]},
    "soc_2": {"q": [2, 2, 2]},
    "soc_3": {"q": [3, 3, 3]},
    "soc_8": {"q": [8, 8]},
    "soc_20": {"q": [20]},
    "soc_mixed": {"q": [3, 20, 1, 8, 3, 2]},
    "psd_1": {"s": [1, 1, 1, 1]},
    "psd_2": {"s": [2, 2]},
    "psd_3": {"s": [3, 3]},
    "psd_4": {"s": [4]},
    "psd_5": {"s": [5]},
    "complex_psd_1": {"cs": [1, 1, 1]},
    "complex_psd_2": {"cs": [2, 2]},
    "complex_psd_3": {"cs": [3]},
    "exponential": {"ep": 4},
    "dual_exponential": {"ed": 4},
    "power": {"p": [0.3, 0.5, 0.8]},
    "dual_power": {"p": [-0.3, -0.5, -0.8]},
    "linear": {"z": 2, "l": 4},
    "mixed": {"z": 2, "l": 3, "q": [3, 4], "s": [3], "ep": 2, "ed": 1, "p": [0.3, -0.6]},
    "everything": {
        "z": 1,
        "l": 2,
        "bl": [-1.0, -INF],
        "bu": [1.0, 0.5],
        "q": [3, 1, 5],
        "s": [2, 1, 3],
        "cs": [2],
        "ep": 1,
        "ed": 1,
        "p": [0.4, -0.7],
    },
}


@dataclass(frozen=True)
class Known:
    """A program and its solution."""

    program: cd.ConeProgram
    x: np.ndarray
    y: np.ndarray
    s: np.ndarray

    @property
    def v(self):
        return self.y - self.s

    @property
    def solution(self):
        return self.x, self.y, self.s

    def at_solution(self, **settings):
        """Let the library confirm the solution; SCS has nothing to do."""
        return cd.solve(self.program, warm_start=self.solution, **settings)


@dataclass(frozen=True)
class Curve:
    """A direction in the data of a program, and how the solution moves along it."""

    dP: np.ndarray
    dA: np.ndarray
    db: np.ndarray
    dc: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    ds: np.ndarray

    @property
    def data(self):
        return self.dP, self.dA, self.db, self.dc

    @property
    def solution(self):
        return self.dx, self.dy, self.ds


def slopes(cone, v):
    """D = DΠ(v) as a matrix, shape (m, m)."""
    return cone.project_dual(v).derivative().apply(np.eye(cone.dim))


def sizes(cone, v, rank_P):
    """Smallest and largest n for which the solution is unique, primal and dual, for generic A and P.

    A' has to be injective on the face that D leaves alone, and S A and P together on R^n.
    """
    values = np.linalg.eigvalsh(slopes(cone, v))
    return int((values > 1 - 1e-9).sum()), int((values > 1e-9).sum()) + rank_P


def quadratic(rng, n, rank, density=1.0):
    """A PSD matrix of this rank; sparse where asked for."""
    L = rng.standard_normal((n, rank)) * (rng.random((n, rank)) < density)
    if density < 1:
        L[rng.permutation(n)[:rank], np.arange(rank)] += 2
    return L @ L.T / max(1, rank)


def program(v, x, A, P, cones):
    """The program that (x, v) solves."""
    y = ProductCone.from_dict(cones).project_dual(v).point
    s = y - v
    Px = P @ x if P is not None else 0
    return Known(cd.ConeProgram(A, A @ x + s, -Px - A.T @ y, cones, P), x, y, s)


def draw(rng, cones, with_P=True, sparse=False, margin=1e-2, condition=1e5, tries=200):
    """Draw a well-conditioned program with these cones, away from every kink; sizes as they come."""
    cone = ProductCone.from_dict(cones)
    m = cone.dim
    for _ in range(tries):
        v = 2 * rng.standard_normal(m)
        if cone.project_dual(v).derivative().margin < margin:
            continue
        least, most = sizes(cone, v, 0)
        n = int(rng.integers(max(1, least), max(1, least, most) + (4 if with_P else 1)))
        rank = min(n, max(1, n - most + int(rng.integers(0, 3)))) if with_P else 0
        if most + rank < n:
            continue
        A = rng.standard_normal((m, n))
        if sparse:
            A *= rng.random((m, n)) < 0.5
        P = quadratic(rng, n, rank, 0.5 if sparse else 1.0) if with_P else None
        known = program(v, rng.standard_normal(n), A, P, cones)
        if sparse:
            known = Known(
                cd.ConeProgram(
                    sp.csc_array(A),
                    known.program.b,
                    known.program.c,
                    cones,
                    sp.csc_array(P) if with_P else None,
                ),
                *known.solution,
            )
        if conditioning(known, cone, A, P) < condition:
            return known
    raise AssertionError(f"no well-conditioned program found for {cones}")


def conditioning(known, cone, A, P):
    """Condition number of the Jacobian of the KKT residual, formed without the library's help."""
    J = jacobian(A, P, slopes(cone, known.v))
    return np.linalg.cond(J) if J.size else 1.0


def jacobian(A, P, D):
    """J = [[P, A'D], [A, D - I]] of section 3 of the mathematics."""
    m, n = A.shape
    P = np.zeros((n, n)) if P is None else P
    return np.block([[P, A.T @ D], [A, D - np.eye(m)]])


def curve(rng, known, P=True, A=True):
    """A random line in (x, v, P, A), and the tangents of data and solution along it.

    The slope of Π is a central difference of fourth order.
    """
    p = known.program
    cone, n, m = p.structure.cone, p.n, p.m
    dx, dv = rng.standard_normal(n), rng.standard_normal(m)
    dP, dA = np.zeros((n, n)), np.zeros((m, n))
    if P:
        dP = rng.standard_normal((n, n))
        dP = (dP + dP.T) / 2
    if A:
        dA = rng.standard_normal((m, n))
    dy = slope(lambda t: cone.project_dual(known.v + t * dv).point)
    ds = dy - dv
    db = dA @ known.x + p.A @ dx + ds
    dc = -dP @ known.x - p.P @ dx - dA.T @ known.y - p.A.T @ dy
    return Curve(dP, dA, db, dc, dx, dy, ds)


def slope(function, h=2e-4):
    """Derivative of a function of one real number at zero, to fourth order."""
    f = {k: function(k * h) for k in (-2, -1, 1, 2)}
    return (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)


def cotangent(rng, known):
    """Random gx, gy, gs."""
    p = known.program
    return rng.standard_normal(p.n), rng.standard_normal(p.m), rng.standard_normal(p.m)


def largest(*arrays):
    return max((np.abs(dense(a)).max(initial=0) for a in arrays), default=0.0)


def dense(array):
    return array.toarray() if sp.issparse(array) else np.asarray(array)


def distance(left, right):
    """Largest difference of two tuples of arrays, relative to the largest entry of the second."""
    left, right = [dense(a) for a in left], [dense(a) for a in right]
    return largest(*(a - b for a, b in zip(left, right, strict=True))) / max(largest(*right), 1e-300)


def random_cones(rng):
    """A mixture of cones, as SCS's dictionary."""
    cones = {}
    for key, most in (("z", 3), ("l", 5), ("ep", 3), ("ed", 3)):
        if rng.random() < 0.5:
            cones[key] = int(rng.integers(1, most + 1))
    if rng.random() < 0.3:
        lower = np.where(rng.random(3) < 0.3, -INF, -rng.random(3))
        cones["bl"], cones["bu"] = list(lower), list(np.where(rng.random(3) < 0.3, INF, rng.random(3)))
    for key, choices, most in (("q", (1, 2, 3, 5, 8, 13), 4), ("s", (1, 2, 3, 4), 3), ("cs", (1, 2, 3), 2)):
        if rng.random() < 0.4:
            cones[key] = [int(k) for k in rng.choice(choices, rng.integers(1, most))]
    if rng.random() < 0.4:
        cones["p"] = list(rng.uniform(0.1, 0.9, rng.integers(1, 4)) * rng.choice([-1, 1]))
    return cones or {"l": 4}
