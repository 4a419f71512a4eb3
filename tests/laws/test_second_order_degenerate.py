"""Second derivatives at kinks and where the solution is not unique: what is returned, and what is said."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.programs import CONES, dense, distance, draw

RNG = np.random.default_rng(0)


def test_at_a_kink_it_is_that_of_the_piece_whose_first_derivative_is_returned():
    """x = max(p, 0)² in effect: 2 x dx² on one side, 0 on the other, and a warning at the kink."""
    x, p = cp.Variable(), cp.Parameter()
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize((x - p) ** 2), [x >= 0]), [p], [x])
    values = {}
    for at in (-1.0, 0.0, 1.0):
        solution = layer.solve(at)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            slope = solution.jvp(1.0)[0]
            # Of the loss x²: 2 (dx/dp)².
            values[at] = slope, solution.hvp([2 * solution.values[0]], [1.0], lambda dx: [2 * dx])[0]
        assert any(issubclass(w.category, cd.DegeneracyWarning) for w in said) == (at == 0.0)
    assert abs(values[1.0][1] - 2) < 1e-9 and abs(values[-1.0][1]) < 1e-9
    assert abs(values[0.0][1] - 2 * values[0.0][0] ** 2) < 1e-9


@pytest.mark.parametrize("name", ["soc_3", "psd_3", "exponential", "mixed"])
def test_constraints_that_are_stated_twice_change_nothing(name):
    """K is singular; the Hessian in b and c of a loss of x is that of the program without them."""
    k = draw(np.random.default_rng(2), CONES[name], condition=100)
    p, n = k.program, k.program.n
    a = np.random.default_rng(3).standard_normal((1, n))
    key = {"z": p.cones.get("z", 0)}
    A, b = dense(p.A), p.b

    def with_rows(rows, values):
        cones = {**p.cones, "z": key["z"] + len(rows)}
        return cd.ConeProgram(np.vstack([rows, A]), np.concatenate([values, b]), p.c, cones, np.eye(n))

    value = a @ k.x
    once = cd.solve(with_rows(a, value))
    twice = cd.solve(with_rows(np.vstack([a, 2 * a]), np.concatenate([value, 2 * value])))
    g, dc, db = RNG.standard_normal(n), RNG.standard_normal(n), RNG.standard_normal(p.m)
    expected = once.derivative().hvp({"dx": g}, {"dc": dc, "db": np.concatenate([[0.3], db])})
    with pytest.warns(cd.DegeneracyWarning):
        found = twice.derivative().hvp({"dx": g}, {"dc": dc, "db": np.concatenate([[0.3, 0.6], db])})
    assert distance([found.dc, found.db[2:]], [expected.dc, expected.db[1:]]) < 1e-6


def test_where_the_solution_is_not_unique_it_is_finite_and_symmetric():
    x, total = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize((x[0] + x[1] - total[0]) ** 2 + cp.exp(total[1] - x[0] - x[1])))
    layer = cd.CvxpyLayer(problem, [total], [x])
    solution = layer.solve(np.array([1.0, 0.2]))
    with pytest.warns(cd.DegeneracyWarning):
        H = solution.hessian([np.array([0.3, -1.0])], lambda dx: [dx])[0][0]
    assert np.isfinite(H).all()
    np.testing.assert_allclose(H, H.T, atol=1e-7 * np.abs(H).max())


def test_duals_that_nobody_sees_are_silent():
    w, e = cp.Variable(3), cp.Parameter(3)
    objective = cp.Maximize(e @ w + cp.sum(cp.entr(w)))
    products = []
    for constraints in ([cp.sum(w) == 1], [cp.sum(w) == 1, 2 * cp.sum(w) == 2]):
        layer = cd.CvxpyLayer(cp.Problem(objective, constraints), [e], [w])
        solution = layer.solve(np.array([0.1, 0.2, -0.1]))
        products.append(solution.hvp([np.array([1.0, 2.0, 3.0])], [np.array([1.0, 0.5, 0.0])])[0])
    np.testing.assert_allclose(products[0], products[1], atol=1e-7)


@pytest.mark.parametrize("name", [name for name in CONES if name != "zero"])
def test_finite_at_the_apex_of_every_cone(name):
    """v = 0: x solves a program in which nothing is active and nothing is slack."""
    cones = CONES[name]
    m = cd.cones.ProductCone.from_dict(cones).dim
    A = np.random.default_rng(4).standard_normal((m, 3))
    x = np.ones(3)
    solution = cd.solve(cd.ConeProgram(A, A @ x, -x, cones, np.eye(3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cd.ConediffWarning)
        product = solution.derivative().hvp({"dx": x}, {"dc": x, "db": A @ x}, lambda *dz: {"dx": dz[0]})
    assert all(np.isfinite(dense(part)).all() for part in product)
