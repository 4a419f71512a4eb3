"""Certificates and units: feasible bounded programs never get one; infeasible and unbounded ones keep theirs.

Rows, and variables, are multiplied by 10^U(-k, k), which changes no status.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conediff as cd
from tests.benchmarks import judge

SEEDS, DECADES = st.integers(0, 2**32 - 1), st.floats(0, 8)


def bounded(rng, quadratic, n=4, m=6):
    """A program with a solution, in a bounded set: P, A, b, c; all rows are inequalities."""
    A, x = rng.standard_normal((m, n)), rng.standard_normal(n)
    s = np.abs(rng.standard_normal(m)) * (rng.random(m) < 0.6)
    y = np.abs(rng.standard_normal(m)) * (s == 0)
    A = np.vstack([A, np.eye(n), -np.eye(n)])
    s, y = np.r_[s, 1 + np.abs(rng.standard_normal(2 * n))], np.r_[y, np.zeros(2 * n)]
    root = rng.standard_normal((n, 2)) * quadratic
    P = root @ root.T
    return P, A, A @ x + s, -(P @ x + A.T @ y)


def infeasible(rng, quadratic):
    """The same with a'x <= -1 and -a'x <= -1."""
    P, A, b, c = bounded(rng, quadratic)
    a = rng.standard_normal(A.shape[1])
    return P, np.vstack([A, a, -a]), np.r_[b, -1, -1], c


def unbounded(rng, quadratic, n=4, m=6):
    """Along x all rows decrease, or stay, and so does the objective."""
    x, A = rng.standard_normal(n), rng.standard_normal((m, n))
    root = rng.standard_normal((n, 1)) * quadratic
    root -= np.outer(x, x @ root) / (x @ x)
    c = rng.standard_normal(n)
    return (
        root @ root.T,
        -A * np.sign(A @ x)[:, None],
        1 + np.abs(rng.standard_normal(m)),
        -c * np.sign(c @ x),
    )


def rescaled(rng, decades, P, A, b, c):
    rows = 10 ** rng.uniform(-decades, decades, len(b))
    columns = 10 ** (rng.uniform(-decades, decades, len(c)) / 2)
    P, A = P * columns * columns[:, None], A * rows[:, None] * columns
    return cd.ConeProgram(A, b * rows, c * columns, {"l": len(b)}, P)


@pytest.mark.parametrize(
    ("kind", "status"), [(bounded, "solved"), (infeasible, "infeasible"), (unbounded, "unbounded")]
)
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, decades=DECADES, quadratic=st.booleans())
def test_units_change_no_status(kind, status, seed, decades, quadratic):
    rng = np.random.default_rng(seed)
    program = rescaled(rng, decades, *kind(rng, quadratic))
    found = cd.solve(program, on_failure="nan")
    assert found.status == status
    if status != "solved":
        assert judge.certificate_residual(program, status, found.x, found.y, found.s) < 1e-5


@pytest.mark.parametrize("digits", range(4, 9))
def test_a_bound_that_is_far_away_is_a_bound(digits):
    """Minimise -x2 subject to x1 + 10^-digits x2 <= 1, x >= 0; and its mirror image, feasible far away."""
    tiny = 10.0**-digits
    found = cd.solve(cd.ConeProgram([[1, tiny], [-1, 0], [0, -1.0]], [1, 0, 0], [0, -1.0], {"l": 3}))
    assert found.x[1] == pytest.approx(1 / tiny, rel=1e-8)
    found = cd.solve(cd.ConeProgram([[-tiny, 1], [0, -1], [-1, 0.0]], [-1, 0, 0], [1.0, 1], {"l": 3}))
    assert found.x[0] == pytest.approx(1 / tiny, rel=1e-8)
