"""Promises that are easily broken: scale, needless warnings, convexity, unexplained settings."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd

SIMPLEX = np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize("method", ["auto", "direct", "dense", "lsqr", "lsmr"])
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4, 1e8])
def test_every_method_at_every_scale_of_the_data(strict, method, scale):
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == scale]), [c], [x])
    solution = layer.solve(np.array([1.0, 2.0]) * scale, solver_args={"method": method})
    np.testing.assert_allclose(solution.vjp(np.array([1.0, 0.0]))[0], [0.5, -0.5], atol=1e-8)
    np.testing.assert_allclose(solution.jvp(np.array([1.0, 0.0]))[0], [0.5, -0.5], atol=1e-8)


@pytest.mark.parametrize(
    "limit",
    [
        lambda x: cp.abs(x) <= 0.5,
        lambda x: cp.norm_inf(x) <= 0.5,
        lambda x: cp.norm1(x) <= 2,
        lambda x: cp.sum(cp.pos(x)) <= 2,
        lambda x: cp.sum_squares(x) <= 2,
        lambda x: [x <= 1, x <= 1, 2 * x <= 2],
    ],
)
def test_no_warning_where_only_what_nobody_sees_is_not_unique(strict, limit):
    x, c = cp.Variable(3), cp.Parameter(3)
    constraints = limit(x)
    constraints = constraints if isinstance(constraints, list) else [constraints]
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints), [c], [x])
    solution = layer.solve(np.array([[0.1, 0.2, 0.3], [0.3, -0.2, 0.1]]))
    g = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    np.testing.assert_allclose(solution.vjp(g)[0], g, atol=1e-7)
    np.testing.assert_allclose(solution.jvp(g)[0], g, atol=1e-7)


def hermitian(objective, *constraints):
    X, C = cp.Variable((2, 2), hermitian=True), cp.Parameter((2, 2), complex=True)
    problem = cp.Problem(
        cp.Minimize(objective(X, C)), [X >> 0, *(constraint(X) for constraint in constraints)]
    )
    return cd.CvxpyLayer(problem, [C], [X])


def test_complex_problems_are_differentiable_where_their_dual_is_not_unique(strict):
    """In the last element rows of the reduced system are nothing but rounding."""
    rng = np.random.default_rng(0)
    C = rng.standard_normal((4, 2, 2)) + 1j * rng.standard_normal((4, 2, 2))
    solution = hermitian(lambda X, C: cp.sum_squares(X - C)).solve(C)
    values, vectors = np.linalg.eigh((C + C.conj().swapaxes(1, 2)) / 2)
    expected = np.einsum("bij,bj,bkj->bik", vectors, np.maximum(values, 0), vectors.conj())
    np.testing.assert_allclose(solution.values[0], expected, atol=1e-8)
    # The projection is homogeneous: its derivative at C takes C to the projection.
    np.testing.assert_allclose(solution.jvp(C)[0], expected, atol=1e-7)
    g = rng.standard_normal((4, 2, 2)) + 1j * rng.standard_normal((4, 2, 2))
    pulled = np.real(np.sum(solution.vjp(g)[0].conj() * C, axis=(1, 2)))
    np.testing.assert_allclose(pulled, np.real(np.sum(g.conj() * expected, axis=(1, 2))), atol=1e-7)


def test_complex_problems_are_reported_where_their_solution_is_not_unique():
    layer = hermitian(lambda X, C: cp.real(cp.trace(C @ X)), lambda X: cp.real(cp.trace(X)) == 1)
    g = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.warns(cd.DegeneracyWarning, match="singular"):
        layer.solve(np.eye(2, dtype=complex)).vjp(g)  # a double eigenvalue
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.ConediffWarning)
        layer.solve(np.array([[1, 0.3j], [-0.3j, 2]])).vjp(g)


def test_redundant_equalities_leave_the_primal_differentiable(strict):
    x, b = cp.Variable(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == 1, 2 * cp.sum(x) == 2, x[0] >= b])
    solution = cd.CvxpyLayer(problem, [b], [x]).solve(0.7)
    np.testing.assert_allclose(solution.values[0], [0.7, 0.3], atol=1e-9)
    np.testing.assert_allclose(solution.jvp(1.0)[0], [1, -1], atol=1e-7)


@pytest.mark.parametrize("P", [-np.eye(2), np.diag([1.0, -1e-3]), np.array([[0.0, 1.0], [1.0, 0.0]])])
def test_an_objective_that_is_not_convex_is_refused(P):
    with pytest.raises(cd.ProblemError, match="not convex"):
        cd.solve(cd.ConeProgram(SIMPLEX, [1, 0, 0], [0.1, 0], {"z": 1, "l": 2}, P=P))


@pytest.mark.parametrize("P", [np.zeros((2, 2)), np.diag([1.0, 0.0]), np.ones((2, 2)), 1e-9 * np.eye(2)])
def test_a_singular_objective_is_fine(P):
    solution = cd.solve(cd.ConeProgram(SIMPLEX, [1, 0, 0], [0.1, 0], {"z": 1, "l": 2}, P=P))
    np.testing.assert_allclose(solution.x, [0, 1], atol=1e-8)


def test_stacked_objectives_are_checked():
    program = cd.ConeProgram(SIMPLEX, [1, 0, 0], [-1, -0.5], {"z": 1, "l": 2}, P=np.array([[2.0, 1], [1, 2]]))
    with pytest.raises(ValueError, match="two triangles"):
        cd.solve_batch(program, P=[[2, 1, 0, 2]])
    with pytest.raises(cd.ProblemError, match="element 1"):
        cd.solve_batch(program, P=[[2, 1, 1, 2], [1, 2, 2, 1]])
    np.testing.assert_allclose(cd.solve_batch(program, P=[[2, 1, 1, 2]]).x, [[0.75, 0.25]], atol=1e-9)


@pytest.mark.parametrize(
    "setting",
    [{"eps": -1}, {"alpha": 3}, {"max_iters": 1.5}, {"scale": 0}, {"eps_abs": np.nan}, {"rho_x": "small"}],
)
def test_settings_out_of_range_are_named(setting):
    program = cd.ConeProgram(SIMPLEX, [1, 0, 0], [0.1, 0], {"z": 1, "l": 2})
    with pytest.raises(ValueError, match="solver setting"):
        cd.solve(program, **setting)


def test_a_loose_solve_without_refinement_says_so():
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.norm(x) <= 0.5]), [c], [x])
    with pytest.warns(cd.AccuracyWarning, match="less accurate than tol"):
        layer(np.array([0.3, 0.9]), solver_args={"refine": False, "eps": 1e-2})


def test_a_program_is_a_program():
    with pytest.raises(TypeError, match="takes a ConeProgram"):
        cd.solve([1, 2])
    with pytest.raises(TypeError, match="cones must be a mapping"):
        cd.ConeProgram(SIMPLEX, [1, 0, 0], [0, 0], None)
