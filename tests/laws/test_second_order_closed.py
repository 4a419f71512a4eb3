"""Second derivatives in closed form: Hessians of solutions and optimal values that are known."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd

TIGHT = {"tol": 1e-13}


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
def test_softmax(size):
    """Maximise c'x + entropy over the simplex: x = softmax(c), with its second derivative."""
    n, rng = 4, np.random.default_rng(0)
    x, c = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    layer = cd.CvxpyLayer(problem, [c], [x, problem.objective], solver_args=TIGHT)
    scores, g = size * rng.standard_normal(n), rng.standard_normal(n)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    solution = layer.solve(scores)
    # The Hessian of g'p, from dp_i = p_i (dc_i - p'dc).
    mean = g @ p
    expected = np.diag(p * (g - mean)) - np.outer(p * (g - mean), p) - np.outer(p, p * (g - mean))
    assert relative(solution.hessian([g, None])[0][0], expected) < 1e-7
    # The value is log Σ exp(c), whose Hessian is the covariance.
    assert relative(solution.hessian([None, 1.0])[0][0], np.diag(p) - np.outer(p, p)) < 1e-9


def test_an_equality_constrained_quadratic_program_in_all_data():
    """z = (x, y) solves a linear system; z'' = -K^-1 (K' z'' ...), twice differentiated by hand."""
    rng = np.random.default_rng(1)
    n, m = 5, 2
    L = rng.standard_normal((n, n))
    P, A, b, c = (
        L @ L.T + np.eye(n),
        rng.standard_normal((m, n)),
        rng.standard_normal(m),
        rng.standard_normal(n),
    )
    solution = cd.solve(cd.ConeProgram(A, b, c, {"z": m}, P), tol=1e-13)
    dP, dA, db, dc = (
        rng.standard_normal((n, n)),
        rng.standard_normal((m, n)),
        rng.standard_normal(m),
        rng.standard_normal(n),
    )
    dP = dP + dP.T
    K = np.block([[P, A.T], [A, np.zeros((m, m))]])
    dK = np.block([[dP, dA.T], [dA, np.zeros((m, m))]])
    z = np.linalg.solve(K, np.concatenate([-c, b]))
    dz = np.linalg.solve(K, np.concatenate([-dc, db]) - dK @ z)
    g = rng.standard_normal(n + m)
    r = np.linalg.solve(K, g)
    dr = np.linalg.solve(K, -dK @ r)
    # The gradient is (-(r z' + z r')/2 of P and A, r): differentiate it.
    product = solution.derivative().hvp({"dx": g[:n], "dy": g[n:]}, (dP, dA, db, dc))
    np.testing.assert_allclose(product.dc, -dr[:n], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(product.db, dr[n:], rtol=1e-9, atol=1e-11)
    outer = np.outer(dr, z) + np.outer(r, dz)
    symmetric = -(outer + outer.T) / 2
    np.testing.assert_allclose(product.dP.toarray(), symmetric[:n, :n], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(product.dA.toarray(), 2 * symmetric[n:, :n], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("decades", [0, 3, 6])
def test_logarithmic_barriers_of_many_sizes(decades):
    """Minimise c'x - Σ log x: x = 1 / c, second derivative 2 / c³; c over several decades in one program."""
    c = 10.0 ** np.linspace(-decades / 2, decades / 2, 4)
    x, p = cp.Variable(4), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(p @ x - cp.sum(cp.log(x))))
    layer = cd.CvxpyLayer(problem, [p], [x, problem.objective], solver_args=TIGHT)
    solution = layer.solve(c)
    for k, g in enumerate(np.eye(4)):
        H = solution.hessian([g, None])[0][0]
        assert relative(H, np.diag(g * 2 / c**3)) < 1e-7, k
    assert relative(solution.hessian([None, 1.0])[0][0], np.diag(-1 / c**2)) < 1e-7


@pytest.mark.parametrize("r", [1e-6, 1e-2, 1.0, 1e4])
def test_a_linear_function_over_a_ball(r):
    """x = -r c / |c|, a second-order cone."""
    rng = np.random.default_rng(2)
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= r]), [c], [x], solver_args=TIGHT)
    at, g = rng.standard_normal(3), rng.standard_normal(3)
    size, u = np.linalg.norm(at), at / np.linalg.norm(at)
    gu = g @ u
    expected = r / size**2 * (np.outer(g, u) + np.outer(u, g) + gu * (np.eye(3) - 3 * np.outer(u, u)))
    assert relative(layer.solve(at).hessian([g])[0][0], expected) < 1e-7


def test_projection_onto_a_ball():
    """p / |p| outside of the unit ball, p inside."""
    rng = np.random.default_rng(3)
    x, p = cp.Variable(3), cp.Parameter(3)
    layer = cd.CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.norm(x) <= 1]), [p], [x], solver_args=TIGHT
    )
    at, g = np.array([1.5, -0.7, 0.9]), rng.standard_normal(3)
    size, u = np.linalg.norm(at), at / np.linalg.norm(at)
    expected = -1 / size**2 * (np.outer(g, u) + np.outer(u, g) + (g @ u) * (np.eye(3) - 3 * np.outer(u, u)))
    H = layer.solve(np.array([at, 0.1 * at])).hessian([np.array([g, g])])[0][0]
    assert relative(H[0], expected) < 1e-8
    assert np.abs(H[1]).max() < 1e-8


def psd_projection(order):
    X, C = cp.Variable((order, order), symmetric=True), cp.Parameter((order, order), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0])
    return cd.CvxpyLayer(problem, [C], [X], solver_args=TIGHT)


def second_of_the_projection(values, Q, G, H, K):
    """<G, Π''[H, K]> by second divided differences of max(λ, 0), as defined."""

    def first(a, b):
        return (max(a, 0) - max(b, 0)) / (a - b) if abs(a - b) > 1e-12 else float(a > 0)

    def second(a, b, c):
        a, b, c = sorted((a, b, c))
        return (first(c, b) - first(b, a)) / (c - a) if c - a > 1e-12 else 0.0

    G, H, K = (Q.T @ M @ Q for M in (G, H, K))
    n = len(values)
    total = 0.0
    for i, j, k in np.ndindex(n, n, n):
        f = second(values[i], values[k], values[j])
        total += G[i, j] * f * (H[i, k] * K[k, j] + K[i, k] * H[k, j])
    return total


@pytest.mark.parametrize(
    "values",
    [[2.0, 1.0, -1.0, -3.0], [1.0, 1.0, -1.0, -1.0], [1.0, 1 + 1e-9, -1.0, -2.0], [0.1, 2.0, -0.1, -1.0]],
)
def test_the_nearest_psd_matrix(values):
    """With eigenvalues that are apart, equal, close, and opposite."""
    rng, n = np.random.default_rng(4), 4
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    C = (Q * np.array(values)) @ Q.T
    layer = psd_projection(n)
    G, H, K = (M + M.T for M in rng.standard_normal((3, n, n)))
    product = layer.solve((C + C.T) / 2).hvp([G], [H])[0]
    expected = second_of_the_projection(values, Q, G, H, K)
    assert abs((product * K).sum() - expected) < 1e-7 * (1 + abs(expected))


def test_the_largest_eigenvalue():
    """An optimal value: its Hessian is 2 Σ (q_i'H q_1)² / (λ_1 - λ_i)."""
    rng, n = np.random.default_rng(5), 4
    t, C = cp.Variable(), cp.Parameter((n, n), symmetric=True)
    problem = cp.Problem(cp.Minimize(t), [t * np.eye(n) - C >> 0])
    layer = cd.CvxpyLayer(problem, [C], [problem.objective], solver_args=TIGHT)
    M, H = rng.standard_normal((2, n, n))
    M, H = M + M.T, H + H.T
    w, Q = np.linalg.eigh(M)
    along = Q.T @ H @ Q[:, -1]
    expected = 2 * (along[:-1] ** 2 / (w[-1] - w[:-1])).sum()
    product = layer.solve(M).hvp([1.0], [H])[0]
    assert abs((product * H).sum() - expected) < 1e-7 * expected


def test_cobb_douglas():
    """Minimise p x + q y with x^a y^(1-a) >= u: demand and cost in closed form, by a power cone."""
    a, u = 0.3, 1.7
    x, p = cp.Variable(3), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(p @ x[:2]), [cp.PowCone3D(x[0], x[1], x[2], a), x[2] == u])
    layer = cd.CvxpyLayer(problem, [p], [x, problem.objective], solver_args=TIGHT)
    at = np.array([0.8, 2.1])
    k = (1 - a) / a
    demand = u * (a / (1 - a) * at[1] / at[0]) ** (1 - a)  # of x[0]
    solution = layer.solve(at)
    assert abs(solution.values[0][0] - demand) < 1e-9
    b, (s, t) = 1 - a, at
    expected = demand * np.array(
        [[b * (b + 1) / s**2, -b * b / (s * t)], [-b * b / (s * t), b * (b - 1) / t**2]]
    )
    assert relative(solution.hessian([np.array([1.0, 0, 0]), None])[0][0], expected) < 1e-7
    cost = at[0] * demand * (1 + k)
    expected = cost * np.array([[a * (a - 1) / s**2, a * b / (s * t)], [a * b / (s * t), b * (b - 1) / t**2]])
    assert relative(solution.hessian([None, 1.0])[0][0], expected) < 1e-7


def test_a_linear_program_at_a_vertex():
    """x = B^-1 b: second derivatives in B, and in B with b, are not zero though D is constant."""
    rng = np.random.default_rng(6)
    B = rng.standard_normal((3, 3))
    y = np.array([1.0, 2.0, 0.5])
    x = rng.standard_normal(3)
    A = np.vstack([B, rng.standard_normal((2, 3))])
    b = A @ x + np.array([0, 0, 0, 1.0, 2.0])
    solution = cd.solve(cd.ConeProgram(A, b, -B.T @ y, {"l": 5}), tol=1e-13)
    dA, db, g = rng.standard_normal((5, 3)), rng.standard_normal(5), rng.standard_normal(3)
    inverse = np.linalg.inv(B)
    dx = inverse @ (db[:3] - dA[:3] @ x)
    r = inverse.T @ g
    dr = -inverse.T @ dA[:3].T @ r
    product = solution.derivative().hvp({"dx": g}, {"dA": dA, "db": db})
    np.testing.assert_allclose(product.db, [*dr, 0, 0], atol=1e-9)
    expected = np.zeros((5, 3))
    expected[:3] = -(np.outer(dr, x) + np.outer(r, dx))
    np.testing.assert_allclose(product.dA.toarray(), expected, atol=1e-9)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("objective", [1e-5, 1.0, 1e5])
def test_units_of_the_data(unit, objective):
    """Rows, columns and objective in other units: the Hessian is that in ordinary units, transformed."""
    rng = np.random.default_rng(7)
    n, cones = 4, {"l": 3, "q": [4]}
    A, b = rng.standard_normal((7, n)), np.concatenate([np.full(3, 0.3), [1.0, 0, 0, 0]])
    c = 3 * rng.standard_normal(n)
    E, R = (
        unit ** rng.uniform(-1, 1, n),
        np.concatenate([unit ** rng.uniform(-1, 1, 3), np.full(4, unit**0.5)]),
    )
    g, dc, db = rng.standard_normal(n), rng.standard_normal(n), rng.standard_normal(7)
    plain = cd.solve(cd.ConeProgram(A, b, c, cones, np.eye(n)), tol=1e-12).derivative()
    scaled = cd.solve(
        cd.ConeProgram(R[:, None] * A * E, R * b, objective * E * c, cones, np.diag(objective * E**2)),
        tol=1e-12,
    ).derivative()
    expected = plain.hvp({"dx": g}, {"dc": dc, "db": db})
    found = scaled.hvp({"dx": E * g}, {"dc": objective * E * dc, "db": R * db})
    np.testing.assert_allclose(objective * found.dc * E, expected.dc, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.db * R, expected.db, rtol=1e-6, atol=1e-7)


def test_tiny_and_huge_directions():
    """The product is bilinear at any size: nothing underflows on the way."""
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= 1]), [c], [x])
    solution = layer.solve(np.array([1.0, 2.0, -1.0]))
    g, w = np.array([0.3, -1.0, 0.2]), np.array([1.0, 0.5, 0.1])
    (expected,) = solution.hvp([g], [w])
    for of_g, of_w in ((1e-200, 1e150), (1e150, 1e-200), (1e-100, 1e-100), (1e100, 1e100)):
        (found,) = solution.hvp([of_g * g], [of_w * w])
        np.testing.assert_allclose(found, (of_g * of_w) * expected, rtol=1e-9)
