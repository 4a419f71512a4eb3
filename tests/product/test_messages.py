"""What a stranger reads: what happened, where, and what to do."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd

x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
P, a = cp.Parameter((2, 2), PSD=True, name="P"), cp.Parameter(name="a")
projection = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0])
SIMPLEX = np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
PROGRAM = cd.ConeProgram(SIMPLEX, [1, 0, 0], [1, 2], {"z": 1, "l": 2})


def minimised(objective, *constraints, parameters=(c,)):
    return lambda: cd.CvxpyLayer(cp.Problem(cp.Minimize(objective), list(constraints)), list(parameters), [x])


def outputs(*variables):
    return lambda: cd.CvxpyLayer(projection, [c], list(variables))


def call(*values, **solver_args):
    return lambda: cd.CvxpyLayer(projection, [c], [x])(*values, solver_args=solver_args)


def quadratic(value):
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, P) - cp.sum(x))), [P], [x])
    return lambda: layer(value)


def program(cones):
    return lambda: cd.ConeProgram(SIMPLEX, [1, 0, 0], [1, 2], cones)


def opt(*functions):
    return lambda: cd.OptLayer([x], [c], *functions)


def failing(constraints, value):
    problem = cp.Problem(
        cp.Minimize(c @ x if not constraints else cp.sum_squares(x)), constraints or [x >= 0]
    )
    return lambda: cd.CvxpyLayer(problem, [c], [x])(np.array(value))


CASES = {
    "an expression as an output": (outputs(x + 1), ValueError, "introduce a variable"),
    "a constraint as an output": (outputs(projection.constraints[0]), ValueError, r"dual_variables\[0\]"),
    "a variable of elsewhere": (
        outputs(cp.Variable(name="y")),
        ValueError,
        r"y\. The problem's variables are x",
    ),
    "minimising what is concave": (
        minimised(-cp.sum_squares(x - c)),
        cd.ProblemError,
        "minimised must be convex",
    ),
    "a norm that is large": (
        minimised(cp.sum(x), cp.norm(x - c) >= 1),
        cd.ProblemError,
        "smaller side must be convex, and the larger concave",
    ),
    "a curved equality": (minimised(cp.sum(x), cp.square(x) == c), cd.ProblemError, "must be affine"),
    "an exponent that is a parameter": (
        minimised(cp.sum(cp.power(x, a)), parameters=[a]),
        cd.ProblemError,
        "exponent a is a parameter; it must be a constant",
    ),
    "a misspelt setting": (call([1, 2], refin=True), TypeError, "'refin'; did you mean 'refine'"),
    "a setting that is no bool": (call([1, 2], refine="no"), ValueError, "refine must be True or False"),
    "another that is none": (call([1, 2], validate=0), ValueError, "validate must be True or False"),
    "a warm start that is none": (call([1, 2], warm_start=3), TypeError, "solve returned, got 3"),
    "lists of unequal lengths": (
        call([[1, 2], [3]]),
        ValueError,
        r"'c' must be an array.*different shapes: expected \(\.\.\., 2\)",
    ),
    "NaN in a batch": (
        call([[1, 2], [3, np.nan]]),
        cd.ParameterError,
        r"'c' is not finite: c\[1, 1\] is nan",
    ),
    "a negative eigenvalue": (
        quadratic(np.array([np.eye(2), np.diag([1, -0.5])])),
        cd.ParameterError,
        r"smallest eigenvalue of P\[1\] is -0\.5 .*'validate': False",
    ),
    "a matrix that is not symmetric": (
        quadratic([[1.0, 0.5], [0.25, 1.0]]),
        cd.ParameterError,
        r"hence symmetric .*, but P\[0, 1\] is 0\.5 and P\[1, 0\] is 0\.25",
    ),
    "an infeasible problem": (
        failing([x >= c, cp.sum(x) <= 1], [2.0, 2.0]),
        cd.SolverError,
        "infeasible: with these data no point .*on_failure='nan'.* NaN in its place",
    ),
    "an infeasible element": (
        failing([x >= c, cp.sum(x) <= 1], [[0.1, 0.2], [2.0, 2.0]]),
        cd.SolverError,
        r"1 of 2 elements have no solution: 1 \(infeasible\).* NaN in their place",
    ),
    "an unbounded problem": (
        failing([], [-1.0, 1.0]),
        cd.SolverError,
        "unbounded: .* improves without limit",
    ),
    "functions that are no list": (
        opt(lambda z, p: cp.sum_squares(z - p), lambda z, p: -z),
        TypeError,
        "inequalities must be a list of functions",
    ),
    "an objective that is no function": (
        opt(1.0),
        TypeError,
        "must be functions of the variables and the parameters, but got 1.0",
    ),
    "a function of too little": (
        opt(lambda z: cp.sum_squares(z)),
        TypeError,
        r"all variables, then all parameters \(x, c\), but one takes \(z\)",
    ),
    "a function that returns a constraint": (
        opt(lambda z, p: cp.sum_squares(z - p), [lambda z, p: z >= 0]),
        TypeError,
        "must return an expression.*returned the constraint",
    ),
    "an unknown cone": (
        program({"f": 1, "l": 2}),
        cd.ConeError,
        "unknown cone 'f'; .* z, .*zero, nonnegative",
    ),
    "a cone with a text": (program({"q": "3"}), cd.ConeError, "cone 'q': expected a list"),
    "cones that do not fit": (program({"s": [3]}), ValueError, r"6 rows .*A has 3.*k \(k \+ 1\) / 2"),
    "a vector that is missing": (
        lambda: cd.ConeProgram(SIMPLEX, None, [1, 2], {"l": 3}),
        TypeError,
        "b must be an array of numbers.*None",
    ),
    "programs that are none": (lambda: cd.solve_batch([PROGRAM, 1]), TypeError, "element 1 is a int"),
    "a start of wrong shape": (
        lambda: cd.solve(PROGRAM, warm_start=([1], [1, 2, 3], [1, 2, 3])),
        ValueError,
        r"x must have shape \(2,\)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_say_what_where_and_what_to_do(case):
    wrong, error, said = CASES[case]
    with pytest.raises(error, match=said):
        wrong()


def test_a_warm_start_of_another_batch_tells_of_the_layers_own():
    layer = cd.CvxpyLayer(projection, [c], [x])
    with pytest.raises(ValueError, match=r"batch shape \(\), but this call has \(3,\); with warm_start=True"):
        layer(np.ones((3, 2)), solver_args={"warm_start": layer.solve(np.ones(2))})


def test_bools_of_numpy_are_bools():
    layer = cd.CvxpyLayer(projection, [c], [x], solver_args={"refine": np.True_, "validate": np.False_})
    np.testing.assert_allclose(layer(np.array([1.0, -1.0]))[0], [1, 0], atol=1e-9)


def test_a_cotangent_that_is_not_finite_is_lost_alone_and_without_a_word():
    solution = cd.CvxpyLayer(projection, [c], [x]).solve(np.array([[1.0, -1.0], [2.0, 3.0], [1.0, 1.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.ConediffWarning)
        (g,) = solution.vjp(np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0]]))
        (d,) = solution.jvp(np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0]]))
    for found in (g, d):
        np.testing.assert_allclose(found[0], [1, 0], atol=1e-9)
        assert np.isnan(found[1:]).any(axis=1).all()


def test_degeneracy_is_told_once_with_its_reason():
    solution = cd.CvxpyLayer(projection, [c], [x]).solve(np.zeros((7, 2)))
    with pytest.warns(
        cd.DegeneracyWarning, match="zero multiplier.*diagnostics.*Where there is no"
    ) as caught:
        solution.vjp(np.ones((7, 2)))
    assert len(caught) == 1
    tied = cd.CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1]), [c], [x])
    with pytest.warns(cd.DegeneracyWarning, match="singular: the solution, or its dual, is not unique"):
        tied.solve(np.ones(2)).vjp(np.ones(2))


def test_inaccurate_derivatives_of_a_batch_are_one_warning(monkeypatch):
    from conediff.kkt import embedding
    from conediff.kkt.least_squares import LinearSolution

    def short(operator, rhs, method):
        return LinearSolution(np.zeros(rhs.size), False, 1, 0.5, "iteration limit reached")

    monkeypatch.setattr(embedding, "iterative", short)
    solution = cd.CvxpyLayer(projection, [c], [x], solver_args={"method": "lsqr"}).solve(np.ones((3, 2)))
    with pytest.warns(cd.AccuracyWarning, match=r"elements 0, 1, 2 .* 5\.0e-01 \(iteration limit") as caught:
        solution.vjp(np.ones((3, 2)))
    assert len(caught) == 1
