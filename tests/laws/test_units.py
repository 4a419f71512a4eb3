"""Changes of units: the answer, its derivative and what is said about it do not depend on them.

Rows, variables and the objective are multiplied by powers of ten drawn from 10^U(-k, k); rows by one number
for each cone that is not a half-line. Solutions and derivatives are compared with those of the program in its
own units.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.cones import ProductCone
from conediff.program import Point
from conediff.scaling import Equilibrator
from tests.programs import CONES, cotangent, distance, draw

SCALABLE = ["zero", "nonnegative", "box", "soc_3", "soc_mixed", "psd_3", "complex_psd_2", "linear"]


def in_units(program, rng, k):
    """The program with other units, and its factors: rows (m,), columns (n,), objective."""
    rows, columns = np.ones(program.m), 10 ** rng.uniform(-k / 2, k / 2, program.n)
    for _, at in ProductCone.from_dict(program.cones).groups:
        rows[at] = 10 ** rng.uniform(-k, k, (len(at), 1))
    size = 10 ** rng.uniform(-k, k)
    A, P = program.A.toarray(), program.P.toarray()
    other = cd.ConeProgram(
        rows[:, None] * A * columns,
        rows * program.b,
        size * columns * program.c,
        program.cones,
        size * columns[:, None] * P * columns,
    )
    return other, rows, columns, size


@pytest.mark.parametrize("k", [2, 4, 6])
@pytest.mark.parametrize("name", SCALABLE)
def test_units_do_not_matter(name, k):
    rng = np.random.default_rng(k)
    for _ in range(4):
        known = draw(rng, CONES[name])
        p, (gx, gy, gs) = known.program, cotangent(rng, known)
        other, rows, columns, size = in_units(p, rng, k)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one, two = cd.solve(p), cd.solve(other)
            g = one.derivative().vjp(gx, gy, gs)
            there = two.derivative()
            h = there.vjp(gx * columns, gy * rows / size, gs / rows)
        assert one.status == two.status == "solved"
        back = two.x * columns, two.y * rows / size, two.s / rows
        assert distance(back, (one.x, one.y, one.s)) < 1e-7
        cotangents = (h.db * rows, h.dc * columns * size, rows[:, None] * h.dA.toarray() * columns)
        assert distance(cotangents, (g.db, g.dc, g.dA.toarray())) < 1e-6
        assert there.diagnostics.differentiable[0] == one.derivative().diagnostics.differentiable[0]


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_projections_onto_polyhedra_in_mixed_units(k):
    """Rows of {x : G x <= h} times 10^U(-k, k): none wrong, none failed, no warning."""
    for seed in range(40):
        rng = np.random.default_rng([k, seed])
        n, m = int(rng.integers(2, 6)), int(rng.integers(2, 10))
        G, a = rng.standard_normal((m, n)), 3 * rng.standard_normal(n)
        h, d = G @ rng.standard_normal(n) + rng.uniform(0.1, 1, m), 10 ** rng.uniform(-k, k, m)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one, two = (
                cd.solve(cd.ConeProgram(e[:, None] * G, e * h, -a, {"l": m}, np.eye(n)))
                for e in (np.ones(m), d)
            )
            np.testing.assert_allclose(two.x, one.x, atol=1e-8)
            expected, found = (each.derivative().vjp(np.ones(n)) for each in (one, two))
        np.testing.assert_allclose(found.db * d, expected.db, atol=1e-8)


@pytest.mark.parametrize("method", ["auto", "direct", "lsqr", "dense"])
@pytest.mark.parametrize("size", [1e-8, 1e-3, 1e3, 1e5, 1e8])
def test_the_size_of_the_objective_does_not_matter(size, method):
    """A quadratic objective on the simplex, times a number."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 10))
        F, c, dc, g = rng.standard_normal((n, 3)), *rng.standard_normal((3, n))
        A, b = np.vstack([np.ones((1, n)), -np.eye(n)]), np.r_[1.0, np.zeros(n)]
        answers = []
        for K in (1.0, size):
            P = K * (F @ F.T + 0.1 * np.eye(n))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                D = cd.solve(cd.ConeProgram(A, b, K * c, {"z": 1, "l": n}, P)).derivative(method)
                answers.append((D.jvp(dc=K * dc)[0], K * D.vjp(g).dc))
        for one, two in zip(*answers, strict=True):
            np.testing.assert_allclose(two, one, atol=1e-7)


def test_a_residual_is_relative_to_the_terms_that_cancel():
    """minimise |x|^2 / 2 - a'x, sum(x) = 0: b is zero, and A x too."""
    for seed in range(300):
        a = np.round(1000 * np.random.default_rng(seed).standard_normal(3))
        solution = cd.solve(cd.ConeProgram(np.ones((1, 3)), [0.0], -a, {"z": 1}, np.eye(3)))
        np.testing.assert_allclose(solution.x, a - a.mean(), atol=1e-9)


@pytest.mark.parametrize("form", ["equalities", "orthogonal", "both sides"])
def test_a_solution_of_zero_beside_large_multipliers_is_not_failed(form):
    """x = 0 is all rounding of the gradient, and so is every row."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 5))
        F, a, A = (
            rng.standard_normal((n, n)),
            np.round(1000 * rng.standard_normal(n)),
            rng.standard_normal((n, n)),
        )
        P, cones = F @ F.T + np.eye(n), {"z": n}
        if form == "orthogonal":
            A, P = np.linalg.qr(A)[0], np.eye(n)
        elif form == "both sides":
            A, cones = np.vstack([np.eye(n), -np.eye(n)]), {"l": 2 * n}
        found = cd.solve(cd.ConeProgram(A, np.zeros(len(A)), -a, cones, P))
        assert found.status == "solved" and np.abs(found.x).max() <= 1e-9


def test_a_gradient_of_zero_beside_large_variables_is_not_failed():
    """minimise w^2 subject to w = x - p, x >= 0: where x = p all of the gradient is rounding."""
    x, p = cp.Variable(), cp.Parameter()
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - p)), [x >= 0]), [p], [x])
    for size in (1e-6, 1.0, 1e6):
        values = size * np.linspace(-1, 1, 401)
        np.testing.assert_allclose(layer(values)[0], np.maximum(values, 0), atol=1e-9 * size)


@pytest.mark.parametrize("seed", range(8))
def test_nearly_exact_is_not_failed(seed):
    """Entries of the dual of size 1e-12 beside others of size one."""
    rng = np.random.default_rng(seed)
    G, p = rng.standard_normal((6, 4)), 10 * rng.standard_normal((12, 4))
    w, P = cp.Variable(4), cp.Parameter(4)
    layer = cd.CvxpyLayer(
        cp.Problem(cp.Minimize(cp.log_sum_exp(G @ w) + 0.1 * cp.sum_squares(w - P))), [P], [w]
    )
    (found,) = layer(p)
    z = found @ G.T
    soft = np.exp(z - z.max(axis=1, keepdims=True))
    gradient = soft / soft.sum(axis=1, keepdims=True) @ G + 0.2 * (found - p)
    assert np.abs(gradient).max() < 1e-7


@pytest.mark.parametrize(
    ("m", "n", "lam"), [(400, 10, 1e-3), (600, 15, 1e-3), (600, 15, 1.0), (600, 15, 1e3)]
)
def test_logistic_regression_as_everybody_writes_it(m, n, lam):
    """A sum of m losses and lam |w|^2, at the solution of which the gradient vanishes."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((m, n)) * np.sign(rng.standard_normal((m, 1)))
    w, weight = cp.Variable(n), cp.Parameter(nonneg=True)
    loss = cp.sum(cp.logistic(-X @ w)) + weight * cp.sum_squares(w)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(loss)), [weight], [w])
    solution = layer.solve(lam)
    found = solution.values[0]
    p = 1 / (1 + np.exp(X @ found))
    assert np.abs(X.T @ p - 2 * lam * found).max() < 1e-7 * m
    H = X.T @ (X * (p * (1 - p))[:, None]) + 2 * lam * np.eye(n)
    g = rng.standard_normal(n)
    expected = -g @ np.linalg.solve(H, 2 * found)
    assert abs(solution.vjp(g)[0] - expected) < 1e-6 * abs(expected)


@pytest.mark.parametrize("name", CONES)
def test_an_equilibration_is_undone_exactly(name):
    """Factors are powers of two: points come back to the last bit, and products agree."""
    rng = np.random.default_rng(3)
    p = draw(rng, CONES[name]).program
    other = in_units(p, rng, 6)[0]
    equilibration = Equilibrator(other.structure).equilibration(other.data)
    assert not equilibration.is_identity
    point = Point(*(rng.standard_normal((1, k)) for k in (p.n, p.m, p.m)))
    for one, two in zip(equilibration.unscale_point(equilibration.scale_point(point)), point, strict=True):
        np.testing.assert_array_equal(one, two)
    data = equilibration.scale_data(other.data)
    A = np.abs(other.structure.A.matrix(data.A[0]).toarray())
    assert (A.max(axis=0) < 8).all() and (A.max(axis=1) < 8).all()


def test_programs_that_share_their_matrices_share_the_equilibration():
    """Otherwise every program of a batch would have an A of its own."""
    rng = np.random.default_rng(0)
    n, m = 6, 9
    A, P = np.diag(10 ** rng.uniform(-4, 4, m)) @ rng.standard_normal((m, n)), np.diag([1.0, 2, 1, 0, 0, 0])
    program = cd.ConeProgram(A, np.ones(m), np.ones(n), {"l": m}, P)
    data = replace(program.data, c=np.ones(n) * 10 ** rng.uniform(-1.3, 1.3, (32, 1)))
    equilibration = Equilibrator(program.structure).equilibration(data)
    assert not equilibration.is_identity
    assert len(equilibration.columns) == len(equilibration.rows) == 1
    assert len(equilibration.scale_data(data).A) == 1


def test_the_derivative_uses_the_equilibration_of_the_solve(monkeypatch):
    """It depends on the data alone, so that a derivative that computes it anew is the same."""
    rng = np.random.default_rng(1)
    A, n = np.diag(10 ** rng.uniform(-4, 4, 9)) @ rng.standard_normal((9, 5)), 5
    program = cd.ConeProgram(A, np.ones(9), rng.standard_normal(n), {"l": 9}, np.eye(n))
    solution = cd.solve(program)
    anew = pickle.loads(pickle.dumps(solution)).derivative().vjp(np.ones(n))
    calls = []
    monkeypatch.setattr(Equilibrator, "equilibration", lambda *_: calls.append("again"))
    for one, two in zip(solution.derivative().vjp(np.ones(n)), anew, strict=True):
        one, two = (g.toarray() if hasattr(g, "toarray") else g for g in (one, two))
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14)
    assert not calls


def row_violation(program, x, y, s):
    """Largest violation of a row relative to its own terms, or to 1e-8 of the largest row's; dense.

    An entry of y or s counts as the largest of its cone.
    """
    P, A = program.P.toarray(), program.A.toarray()
    of_y, of_s = abs(y), abs(s)
    for _, rows in ProductCone.from_dict(program.cones).groups:
        of_y[rows], of_s[rows] = (part[rows].max(axis=1, keepdims=True) for part in (of_y, of_s))
    parts = []
    for left, terms in (
        (P @ x + A.T @ y + program.c, abs(P) @ abs(x) + abs(A).T @ of_y + abs(program.c)),
        (A @ x + s - program.b, abs(A) @ abs(x) + of_s + abs(program.b)),
    ):
        parts.append((abs(left) / np.maximum(terms, max(1e-8 * terms.max(), 1e-300))).max())
    return max(parts)


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("size", [1e3, 1e6, 1e9])
def test_a_decoupled_row_hides_nothing(name, size):
    """Beside x0 = size, or with a multiplier of that size, a program has the solution that it has alone.

    Beside 1e9 there may be none, or an inaccurate one, and then that is said.
    """
    for seed in range(3):
        known = draw(np.random.default_rng(seed), CONES[name], condition=1e3)
        p = known.program
        for b0, c0 in ((size, 0.5), (1.0, size), (size, size)):
            beside = cd.ConeProgram(
                sp.block_diag([[[1.0]], p.A]),
                np.r_[b0, p.b],
                np.r_[c0, p.c],
                {**p.cones, "z": p.cones.get("z", 0) + 1},
                sp.block_diag([[[0.0]], p.P]),
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore" if size == 1e9 else "error", cd.AccuracyWarning)
                found = cd.solve(beside, on_failure="nan")
            if size == 1e9 and found.status != "solved":
                continue
            assert found.status == "solved", (seed, b0, c0)
            assert row_violation(beside, found.x, found.y, found.s) <= 2e-7, (seed, b0, c0)
            for right, part in zip(known.solution, (found.x, found.y, found.s), strict=True):
                assert abs(part[1:] - right).max() <= 1e-4 * max(1, abs(right).max()), (seed, b0, c0)


@pytest.mark.parametrize("seed", range(40))
def test_a_steep_row_is_satisfied_relative_to_its_own_terms(seed):
    """Subject to a x1 >= 1 + x2 with a small a, and x1 >= 0."""
    rng = np.random.default_rng(seed)
    a = 10 ** rng.uniform(-12, -3)
    program = cd.ConeProgram(
        np.array([[-a, 1.0], [-1, 0]]),
        [-1.0, 0],
        [a * rng.random(), rng.standard_normal()],
        {"l": 2},
        np.diag([0.0, rng.uniform(0.1, 2)]),
    )
    found = cd.solve(program)
    assert found.status == "solved" and row_violation(program, found.x, found.y, found.s) <= 2e-7


@pytest.mark.parametrize("seed", range(40))
def test_entries_over_many_orders_of_magnitude(seed):
    """What is called solved satisfies every row relative to its own terms."""
    rng = np.random.default_rng(seed)
    n, m = 4, 8
    A = rng.standard_normal((m, n)) * 10 ** rng.uniform(-6, 6, n) * (rng.random((m, n)) < 0.6)
    x, active = rng.standard_normal(n) * 10 ** rng.uniform(-6, 6, n), rng.random(m) < 0.5
    s = np.where(active, 0, rng.uniform(0.1, 1, m) * (abs(A) @ abs(x)))
    y = np.where(s > 0, 0, rng.uniform(0.1, 1, m) * 10 ** rng.uniform(-4, 4, m))
    P = np.diag(10 ** rng.uniform(-3, 3, n))
    program = cd.ConeProgram(A, A @ x + s, -P @ x - A.T @ y, {"l": m}, P)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cd.AccuracyWarning)
        found = cd.solve(program, on_failure="nan")
    assert found.status in ("solved", "inaccurate")
    assert found.status == "inaccurate" or row_violation(program, found.x, found.y, found.s) <= 2e-7
