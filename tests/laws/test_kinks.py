"""Kinks of the projection are found, and only they, whatever the size of the cone and of others."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.cones import ProductCone


def on_cone(dim, sign):
    """A point of the boundary of the second-order cone, or of minus it."""
    u = np.random.default_rng(dim).standard_normal(dim - 1)
    return sign * np.r_[1.0, u / np.linalg.norm(u)]


# For each kind of cone: v at kinks, and v off them.
POINTS = {
    "nonnegative": ({"l": 1}, [[0.0]], [[1.0], [-1.0]]),
    "several": ({"l": 3}, [[0.0, 1.0, -1.0]], [[1.0, -2.0, 3.0]]),
    "second-order": (
        {"q": [3]},
        [on_cone(3, 1), on_cone(3, -1), np.zeros(3)],
        [[0.2, 1.0, 1.0], [2.0, 0.5, 0.5], [-2.0, 0.5, 0.5]],
    ),
    "long second-order": ({"q": [8]}, [on_cone(8, 1), on_cone(8, -1), np.zeros(8)], [np.r_[0.2, np.ones(7)]]),
    "PSD": ({"s": [2]}, [[1.0, 0, 0], [-1.0, 0, 0], [0, 0, 0]], [[1, 0.3, -1], [2, 0.1, 1], [-2, 0.1, -1]]),
    "PSD of order 3": (
        {"s": [3]},
        [[1.0, 0, 0, -1, 0, 0], [1.0, 0, 0, 0, 0, 0]],
        [[1, 0.3, -1, 2, 0.3, 0.4]],
    ),
    "complex PSD": ({"cs": [2]}, [[1.0, 0, 0, 0], [-1.0, 0, 0, 0]], [[1, 0.3, 0.2, -1]]),
    "exponential": (
        {"ep": 1},
        [[-1, -1, -np.e], [-1, 0, np.exp(-1)], [0, 0, 0], [1, 0, -1], [1, 1, 0]],
        [[1, -0.5, 0.3], [1, 1, -1], [1, 1, 1]],
    ),
    "dual exponential": (
        {"ed": 1},
        [[1, 1, np.e], [1, 0, -np.exp(-1)], [0, 0, 0], [-1, -1, 0]],
        [[-1, 0.5, -0.3], [-1, -1, 1]],
    ),
    "power": (
        {"p": [0.3]},
        [[-1.0, -2.0, -(2**0.7)], [0.3, 0.7, 1.0], [0, 0, 0]],
        [[0.2, -0.4, 1.0], [-1, 1, 2], [-1, -1, 0.5]],
    ),
    "dual power": ({"p": [-0.3]}, [[1.0, 2.0, 2**0.7], [0, 0, 0]], [[-0.2, 0.4, -1.0], [1, -1, -2]]),
    "box": ({"bl": [-1.0, -2.0], "bu": [1.0, 3.0]}, [[-1.0, -1.0, -0.5], [0, 0, 0]], [[-1.0, -0.2, -0.5]]),
}
CASES = [
    pytest.param(cones, np.asarray(v, float), at_kink, id=f"{name}-{'kink' if at_kink else 'smooth'}-{i}")
    for name, (cones, kinks, smooth) in POINTS.items()
    for at_kink, points in ((True, kinks), (False, smooth))
    for i, v in enumerate(points)
]


def program(cones, v, size, of_x, beside, seed=0):
    """A program whose solution has v times ``size`` in the cone, next to a row of the size ``beside``."""
    rng, m = np.random.default_rng(seed), len(v)
    y = ProductCone.from_dict(cones).project_dual(v).point
    y, s = y * size, (y - v) * size
    x, A = rng.standard_normal(m) * of_x, rng.standard_normal((m, m))
    b, c = A @ x + s, -x - A.T @ y
    if beside:
        A = sp.block_diag([[[1.0]], A])
        b, c = np.r_[beside, b], np.r_[beside, c]
        x, y, s = np.r_[beside, x], np.r_[-2 * beside, y], np.r_[0, s]
        cones = {"z": 1, **cones}
    return cd.ConeProgram(A, b, c, cones, P=np.eye(len(x))), (x, y, s)


@pytest.mark.parametrize(("cones", "v", "at_kink"), CASES)
@pytest.mark.parametrize("beside", [0, 1.0, 1e9])
def test_the_decision_does_not_depend_on_the_size_of_the_cone(cones, v, at_kink, beside):
    for exponent in (-12, -9, -3, 0, 3, 9):
        size = 10.0**exponent
        # With x of the cone's size its digits are the cone's; with x of size one small y and s lose some.
        for of_x in (size,) if exponent < -9 else (size, 1.0):
            given, solution = program(cones, v, size, of_x, beside)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cd.AccuracyWarning)
                d = cd.solve(given, warm_start=solution).derivative().diagnostics
            assert (d.strict_complementarity[0] == 0) == at_kink, (exponent, of_x)
            assert not (at_kink and d.differentiable[0])


@pytest.mark.parametrize("depth", [5, 24, 28, 40, 90])
def test_a_softmax_has_no_kink(depth, strict):
    x, s = cp.Variable(3), cp.Parameter(3)
    objective = cp.Maximize(s @ x + cp.sum(cp.entr(x)))
    solution = cd.CvxpyLayer(cp.Problem(objective, [cp.sum(x) == 1]), [s], [x]).solve(
        np.array([0, 0.5, -depth])
    )
    p = np.exp([0, 0.5, -depth])
    p /= p.sum()
    slopes = np.diag(p) - np.outer(p, p)
    g = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(solution.vjp(g)[0], slopes @ g, atol=1e-13)
    np.testing.assert_allclose(solution.jvp(g)[0], slopes @ g, atol=1e-13)
    assert solution.diagnostics.differentiable.all() and solution.info["degenerate"] == 0


@pytest.mark.parametrize("size", [1.0, 8.0, 40.0])
def test_entropic_transport_has_no_kink(size, strict):
    X, C = cp.Variable((3, 3)), cp.Parameter((3, 3))
    objective = cp.Minimize(cp.sum(cp.multiply(C, X)) - cp.sum(cp.entr(X)))
    layer = cd.CvxpyLayer(cp.Problem(objective, [cp.sum(X, 0) == 1, cp.sum(X, 1) == 1]), [C], [X])
    rng = np.random.default_rng(0)
    solution = layer.solve(size * rng.standard_normal((3, 3)))
    solution.vjp(rng.standard_normal((3, 3)))
    assert solution.diagnostics.strict_complementarity[0] > 0


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6, 1e9])
def test_second_order_cones_of_different_size_beside_each_other(ratio, strict):
    x, p = [cp.Variable(3) for _ in range(2)], [cp.Parameter(3) for _ in range(2)]
    objective = cp.Minimize(sum(cp.sum_squares(a - b) for a, b in zip(x, p, strict=True)))
    layer = cd.CvxpyLayer(cp.Problem(objective, [cp.SOC(2 * a[0], a) for a in x]), p, x)
    solution = layer.solve(np.array([1.0, 3.0, 3.0]) / ratio, np.array([1.0, 2.0, -3.0]) * ratio)
    solution.vjp(np.ones(3), np.ones(3))
    assert solution.diagnostics.differentiable.all()


@pytest.mark.parametrize("beside", [1.0, 1e3, 1e6])
def test_a_kink_beside_large_numbers_is_told(beside):
    x, p = cp.Variable(3), cp.Parameter(3)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0]), [p], [x])
    solution = layer.solve(np.array([0.0, beside, -beside]))
    with pytest.warns(cd.DegeneracyWarning):
        solution.vjp(np.ones(3))
    clear = layer.solve(np.array([1e-9, beside, -beside]))
    np.testing.assert_allclose(clear.vjp(np.ones(3))[0], [1, 1, 0], atol=1e-9)
    assert clear.diagnostics.differentiable.all()


def test_a_lasso_at_its_kink_is_told():
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((8, 4)), rng.standard_normal(8)
    x, weight = cp.Variable(4), cp.Parameter(nonneg=True)
    layer = cd.CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x))), [weight], [x]
    )
    largest = np.abs(2 * A.T @ b).max()
    with pytest.warns(cd.DegeneracyWarning):
        layer.solve(largest).vjp(np.ones(4))
    assert layer.solve(largest * (1 - 1e-6)).diagnostics.differentiable.all()


def simple(cones, v, kind, size):
    """A program of simple numbers whose solution is at the kink v times ``size``."""
    m, rng = len(v), np.random.default_rng(1)
    A, x, P = {
        "unit": (np.eye(m), np.ones(m), 1.0),
        "minus": (-np.eye(m), np.arange(1.0, m + 1), 1.0),
        "origin": (np.eye(m), np.zeros(m), 1.0),
        "sums": (np.tril(np.ones((m, m))), np.zeros(m), 2.0),
        "thirds": (np.eye(m) / 3, np.ones(m) / 7, 1 / 11),
        "integers": (
            np.round(3 * rng.standard_normal((m, m))) + 4 * np.eye(m),
            np.round(2 * rng.standard_normal(m)),
            1.0,
        ),
    }[kind]
    y = ProductCone.from_dict(cones).project_dual(v).point * size
    s = y - v * size
    return cd.ConeProgram(A, A @ x + s, -P * x - A.T @ y, cones, P=P * np.eye(m)), (x, y, s)


@pytest.mark.parametrize("kind", ["unit", "minus", "origin", "sums", "thirds", "integers"])
@pytest.mark.parametrize(("cones", "v", "at_kink"), [case for case in CASES if case.values[2]])
def test_a_kink_of_simple_numbers_is_found_and_told(cones, v, at_kink, kind):
    """Rounding errors cancel there now and then; with and without a start."""
    g = np.random.default_rng(5).standard_normal(len(v))
    for size in (1e-3, 1.0, 1e3):
        given, solution = simple(cones, v, kind, size)
        for start in (solution, None):
            found = cd.solve(given, warm_start=start).derivative()
            assert not found.diagnostics.differentiable[0], (size, start is None)
            with pytest.warns(cd.DegeneracyWarning):
                found.vjp(g)


@pytest.mark.parametrize(("cones", "v", "at_kink"), [case for case in CASES if case.values[2]])
def test_a_kink_is_found_at_every_position_of_a_batch(cones, v, at_kink):
    given, _ = simple(cones, v, "unit", 1.0)
    rng = np.random.default_rng(0)
    for position in range(5):
        b = given.b + rng.standard_normal((5, len(v))) * (np.arange(5) != position)[:, None]
        d = cd.solve_batch(given, b=b, on_failure="nan").derivative().diagnostics
        assert not d.differentiable[position]


@pytest.mark.parametrize("slope", [1.0, 2.0, 0.1, 1 / 3, 7.0, 1e3, 1e-3])
@pytest.mark.parametrize("bound", [1.0, 0.3, 5.0, 0.0])
def test_a_bound_at_its_kink_is_told(slope, bound):
    """minimise (x - u)^2 / 2 subject to a x <= a u, active with multiplier zero."""
    found = cd.solve(cd.ConeProgram([[slope]], [slope * bound], [-bound], {"l": 1}, P=[[1.0]])).derivative()
    assert found.diagnostics.strict_complementarity[0] == 0
    with pytest.warns(cd.DegeneracyWarning):
        found.vjp([1.0])


BALLS = {
    "norm": lambda z: cp.norm(z) <= 1,
    "sum of squares": lambda z: cp.sum_squares(z) <= 1,
    "largest": lambda z: cp.norm_inf(z) <= 1,
    "sum": lambda z: cp.norm1(z) <= 1,
    "power": lambda z: cp.sum(cp.power(z, 4)) <= 1,
    "p-norm": lambda z: cp.pnorm(z, 3) <= 1,
    "fraction": lambda z: cp.quad_over_lin(z, 2.0) <= 0.5,
    "log-sum-exp": lambda z: cp.log_sum_exp(z) <= 3,
}


@pytest.mark.parametrize("name", BALLS)
def test_inside_a_ball_nothing_is_told(name, strict):
    """The projection is the identity there; the epigraph variable is at any place, at a kink now and then."""
    z, u = cp.Variable(6), cp.Parameter(6)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - u)), [BALLS[name](z)]), [u], [z])
    rng = np.random.default_rng(0)
    inside = rng.standard_normal((500, 6))
    inside *= rng.uniform(0.3, 0.95, (500, 1)) / np.abs(inside).sum(axis=1, keepdims=True)
    if name in ("norm", "sum of squares"):
        inside *= (np.abs(inside).sum(axis=1) / np.linalg.norm(inside, axis=1))[:, None]
    solution, g = layer.solve(inside), rng.standard_normal((500, 6))
    np.testing.assert_allclose(solution.vjp(g)[0], g, atol=1e-7)
    np.testing.assert_allclose(solution.jvp(g)[0], g, atol=1e-7)
    assert not solution.diagnostics.degenerate.any()


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
@pytest.mark.parametrize("name", ["norm", "sum of squares", "largest", "sum"])
def test_on_the_sphere_the_kink_is_told(name, mode):
    """The limit on the epigraph variable and the cone of the norm become active together."""
    z, u = cp.Variable(3), cp.Parameter(3)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - u)), [BALLS[name](z)]), [u], [z])
    on = {"largest": [1.0, 0.5, -0.25], "sum": [0.5, -0.25, 0.25]}.get(name, [2 / 3, -1 / 3, 2 / 3])
    solution = layer.solve(np.array(on))
    with pytest.warns(cd.DegeneracyWarning):
        getattr(solution, mode)(np.array([1.0, 2.0, 3.0]))
