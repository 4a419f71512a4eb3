"""Atoms that cvxpy canonicalises by an inner problem, or by the values of variables."""

from __future__ import annotations

import threading

import cvxpy as cp
import numpy as np
import pytest
from cvxpy.reductions.solvers import defines

import conediff as cd

PERSPECTIVES = {
    "exp": lambda v: cp.sum(cp.exp(v)),
    "entropy": lambda v: -cp.sum(cp.entr(v)),
    "logarithm": lambda v: -cp.sum(cp.log(v)),
    "squares": cp.sum_squares,
    "each square": lambda v: cp.sum(cp.square(v)),
    "Huber": lambda v: cp.sum(cp.huber(v)),
    "norm": cp.norm,
    "largest": cp.max,
    "affine": lambda v: cp.sum(v) + 1,
    "constant": lambda v: 0 * cp.sum(v) + 3,
    "eigenvalue": lambda v: cp.lambda_max(cp.bmat([[v[0], 1], [1, v[1]]])),
    "matrix fraction": lambda v: cp.matrix_frac(v, cp.bmat([[v[0] + 1, 0.1], [0.1, v[1] + 2]])),
    "geometric mean": lambda v: -cp.geo_mean(v),
}


def with_perspective(f):
    """Minimise s f(x / s) + |x - p|^2 + (s - 1)^2."""
    x, s, p = cp.Variable(2), cp.Variable(nonneg=True), cp.Parameter(2)
    rest = cp.sum_squares(x - p) + cp.square(s - 1)
    problem = cp.Problem(cp.Minimize(cp.perspective(f(x), s) + rest), [s >= 0.2, x >= 0.1])
    return problem, p, x, s


@pytest.mark.parametrize("name", PERSPECTIVES)
def test_the_value_is_that_of_the_definition(name):
    f = PERSPECTIVES[name]
    problem, p, x, s = with_perspective(f)
    layer = cd.CvxpyLayer(problem, [p], [x, s, problem.objective])
    for target in ([1.0, -2.0], [3.0, 2.0]):
        x_value, s_value, value = layer(np.array(target))
        at = cp.Variable(2, value=x_value / s_value)
        rest = np.sum((x_value - target) ** 2) + (s_value - 1) ** 2
        assert value == pytest.approx(float(s_value * f(at).value + rest), abs=1e-7)


def test_the_gradient_of_a_perspective():
    """x's square over s: x = p / (1 + 1 / s), in closed form where s is fixed."""
    x, s, p = cp.Variable(2), cp.Variable(nonneg=True), cp.Parameter(2)
    objective = cp.perspective(cp.sum_squares(x), s) + cp.sum_squares(x - p)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(objective), [s == 4]), [p], [x])
    solution = layer.solve(np.array([1.0, -2.0]))
    np.testing.assert_allclose(solution.values[0], [0.8, -1.6], atol=1e-8)
    np.testing.assert_allclose(solution.vjp(np.array([1.0, 0.0]))[0], [0.8, 0], atol=1e-7)


@pytest.mark.parametrize(
    "f", [lambda v: cp.pnorm(v, 3), lambda v: cp.sum(cp.inv_pos(v)), lambda v: cp.sum(cp.power(v, 1.5))]
)
def test_perspectives_that_cvxpy_gets_wrong_are_refused(f):
    problem, p, x, _ = with_perspective(f)
    with pytest.raises(cd.ProblemError, match="perspective of .* wrongly"):
        cd.CvxpyLayer(problem, [p], [x])
    assert x.value is None


def test_cvxpys_solvers_are_as_before():
    before = dict(defines.SOLVER_MAP_CONIC)
    problems = [with_perspective(cp.norm) for _ in range(4)]
    threads = [threading.Thread(target=cd.CvxpyLayer, args=(q, [p], [x])) for q, p, x, _ in problems]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == defines.SOLVER_MAP_CONIC


@pytest.mark.parametrize("fraction", [0.6, 0.5, 0.95])
def test_a_variable_that_holds_a_value_changes_nothing(fraction):
    """After a trial solve, or any other: cvxpy's sum_largest fails for values and a fractional count."""
    y, q = cp.Variable(7), cp.Parameter(7)
    problem = cp.Problem(cp.Minimize(cp.cvar(y - q, fraction) + cp.sum_squares(y)), [cp.abs(y) <= 2])
    (expected,) = cd.CvxpyLayer(problem, [q], [y])(np.arange(7.0))
    q.value = np.arange(7.0)
    problem.solve(solver=cp.CLARABEL)
    solved = y.value.copy()
    for value in (solved, np.ones(7), 1e6 * np.arange(7.0)):
        y.value = value
        np.testing.assert_array_equal(cd.CvxpyLayer(problem, [q], [y])(q.value)[0], expected)
        np.testing.assert_array_equal(y.value, value)
