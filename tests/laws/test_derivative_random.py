"""Random mixtures of all cones: solving, both modes and all methods, on programs with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import conediff as cd
from tests.programs import cotangent, curve, dense, distance, draw, largest, random_cones

SEEDS = st.integers(0, 2**32 - 1)
KINDS = {"with_P": st.booleans(), "sparse": st.booleans()}
# A seed does not shrink.
RELAXED = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "phases": (Phase.explicit, Phase.generate),
}


def check(seed, with_P, sparse):
    """The laws, for one random program."""
    rng = np.random.default_rng(seed)
    try:
        known = draw(rng, random_cones(rng), with_P, sparse, condition=1e4, tries=50)
    except AssertionError:
        return
    p = known.program
    note(repr(p))
    solution = cd.solve(p)
    assert solution.status == "solved" and solution.info["residual"] <= 1e-10
    assert distance((solution.x, solution.y, solution.s), known.solution) < 1e-5

    here = known.at_solution(tol=1e-11)
    assert here.info["iterations"] == 0
    tangent, g = curve(rng, known), cotangent(rng, known)
    derivative = here.derivative()
    moved, pulled = derivative.jvp(*tangent.data), derivative.vjp(*g)
    assert distance(moved, tangent.solution) < 1e-4  # of a difference, where Π may curve strongly

    dP, dA = tangent.dP * (p.P.toarray() != 0), tangent.dA * (p.A.toarray() != 0)
    inside = derivative.jvp(dP, dA, tangent.db, tangent.dc)
    left = sum(a @ b for a, b in zip(inside, g, strict=True))
    right = sum((dense(a) * b).sum() for a, b in zip(pulled, (dP, dA, tangent.db, tangent.dc), strict=True))
    assert abs(left - right) < 1e-10 * largest(*inside) * largest(*g) * (p.n + p.m)

    # Of the iterative methods the residual is small; what that says of the answer, the condition decides.
    for method, tolerance in {"direct": 1e-8, "dense": 1e-8, "lsqr": 1e-6, "lsmr": 1e-6}.items():
        other = here.derivative(method)
        assert distance(other.jvp(*tangent.data), moved) < tolerance
        assert distance(other.vjp(*g), pulled) < tolerance
    diagnostics = derivative.diagnostics
    assert diagnostics.differentiable[0] and diagnostics.primal_unique[0] and diagnostics.dual_unique[0]


@settings(max_examples=50, **RELAXED)
@given(seed=SEEDS, **KINDS)
def test_random_programs(seed, with_P, sparse):
    check(seed, with_P, sparse)


@pytest.mark.slow
@settings(max_examples=2000, **RELAXED)
@given(seed=SEEDS, **KINDS)
def test_two_thousand_random_programs(seed, with_P, sparse):
    check(seed, with_P, sparse)


@pytest.mark.slow
@settings(max_examples=150, **RELAXED)
@given(seed=SEEDS, count=st.integers(2, 9), with_P=st.booleans())
def test_random_batches(seed, count, with_P):
    """The same matrices, other right-hand sides and costs: the batch is its elements."""
    rng = np.random.default_rng(seed)
    known = draw(rng, random_cones(rng), with_P, condition=1e3)
    p = known.program
    b = p.b + 1e-3 * rng.standard_normal((count, p.m))
    c = p.c + 1e-3 * rng.standard_normal((count, p.n))
    try:
        batch = cd.solve_batch(p, b=b, c=c)
    except cd.SolverError:
        return
    gx, gy = rng.standard_normal((count, p.n)), rng.standard_normal((count, p.m))
    pulled = batch.derivative().vjp(dx=gx, dy=gy)
    for i, solution in enumerate(batch):
        alone = cd.solve(cd.ConeProgram(p.A, b[i], c[i], p.cones, p.P))
        assert distance([batch.x[i], batch.y[i]], [alone.x, alone.y]) < 1e-5
        mine = solution.derivative().vjp(dx=gx[i], dy=gy[i])
        assert distance([pulled.db[i], pulled.dc[i]], [mine.db, mine.dc]) < 1e-9
