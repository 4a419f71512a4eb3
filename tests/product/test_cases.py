"""Lettered cases: problems on which other libraries failed their users, with answers known independently.

The letters come from threads in other libraries' issue trackers and from runs of their releases. Tests
elsewhere name them too ("case B"). ``contract.py`` and ``test_keras_training.py`` are in tests/adapters.

==== =============================== =============================== ======================================
case who meets it                    problem                         what is checked, and where
==== =============================== =============================== ======================================
A    models with power cones         maximise p'x over a power cone  x and dx/dp; here, unit/compat and peers
                                     and a budget                    (test_diffcp: a derivative that diffcp
                                                                     leaves out)
B    large penalised problems, where quadratic with box and norm-1   vjp is additive and equals the dense
     LSQR stops early                limits on v                     method's; here, test_derivative in laws,
                                                                     contract.py
C    losses on dual variables        least norm, A x = b             duals and their derivatives at default
                                                                     settings; here, contract.py
D    losses of tiny or huge size     squares plus a norm             the gradient is linear in the loss, down
                                                                     to 1e-300; here, test_derivative in
                                                                     laws, contract.py
E    sharp softmax                   linear plus 0.01 times entropy  dx/db where the entropy's weight is
                                     on the simplex                  small; here
F    barrier methods                 x plus log barriers of (-1, 1)  x and dx/dlam in closed form; here
G    (not used)
H    projections inside a model      nearest point of a polytope     x, its Jacobian, and the gradient of the
                                                                     optimal value; here, contract.py
I    batches with one bad element    minimise |x|^2, x >= p, a sum   the bad element is named or filled, the
                                     limit; a row that is infeasible others keep their gradients; a
                                                                     contradiction is never "solved"; here,
                                                                     laws/test_derivative_batch, contract.py
J    decisions from linear programs  best of three assets, sum w = 1 the vertex, with gradient zero; here.
                                                                     Smoothed, the gradient is not zero:
                                                                     contract.py
K    Keras models                    projection onto z >= 0 between  build, fit, a graph, save and load:
                                     Dense layers                    test_keras_training.py
L    PyTorch models                  layers inside modules           copies, pickles, averaged models, data
                                                                     parallel, torch.compile:
                                                                     test_torch_modules.py; vmap, jacrev and
                                                                     jvp: test_torch_transforms.py
M    a matrix parameter in the       quad_form(x, P) / 2 + q'x,      x and the gradients in P and q in closed
     objective                       x >= -1                         form; here
N    large matrix parameters         |Q x|^2 / 2 + sum(x), x >= -1   building a layer takes less than twice
                                                                     the memory of cvxpy's own; here
O    duals of several cones in one   a vector SOC and a vector       duals as cvxpy orders them, and their
     constraint                      exponential cone                derivatives; here
P    complex signals                 projection, complex z and c     values and complex gradients; here
==== =============================== =============================== ======================================
"""

from __future__ import annotations

import re
import tracemalloc
from string import ascii_uppercase

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd

pytestmark = pytest.mark.usefixtures("strict")


def jacobian(solution, output=0, parameter=0):
    """Rows of the Jacobian of one output with respect to one parameter, by reverse mode."""
    value = solution.values[output]
    rows = []
    for k in range(value.size):
        cotangents = [None] * len(solution.values)
        cotangents[output] = np.eye(value.size)[k].reshape(value.shape)
        rows.append(np.asarray(solution.vjp(*cotangents)[parameter]).ravel())
    return np.array(rows)


def central_difference(layer, values, k, direction, h=1e-5):
    """Derivative of the outputs along a direction of parameter k."""
    ends = []
    for sign in (1, -1):
        moved = [np.array(v, dtype=float) for v in values]
        moved[k] = moved[k] + sign * h * direction
        ends.append(layer(*moved, solver_args={"tol": 1e-13}))
    return [(a - b) / (2 * h) for a, b in zip(*ends, strict=True)]


def test_a_power_cone():
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Maximize(p @ x), [cp.PowCone3D(x[0], x[1], 1, 0.3), x[0] + x[1] <= 3])
    solution = cd.CvxpyLayer(problem, [p], [x]).solve(np.array([-1.0, -2.0]))
    np.testing.assert_allclose(solution.values[0], [0.89771, 1.04733], atol=1e-5)
    np.testing.assert_allclose(jacobian(solution), [[0.6284, -0.3142], [-0.3142, 0.1571]], atol=1e-4)


@pytest.mark.parametrize("N, M", [(60, 30), pytest.param(200, 100, marks=pytest.mark.slow)])
def test_b_additive_where_lsqr_alone_stops_early(N, M):
    rng = np.random.default_rng(0)
    L, d = rng.standard_normal((N, M)), rng.random(N)
    d[: N // 2] *= 0.1
    d[N // 2 :] *= 10
    v, q, p = cp.Variable(N), cp.Parameter(N), cp.Parameter(N)
    objective = (
        0.5 * cp.sum_squares(L.T @ v)
        + 0.5 * cp.sum_squares(np.diag(d) @ v)
        + 50 * cp.sum_squares(v - q)
        - v @ p
    )
    problem = cp.Problem(cp.Minimize(objective), [cp.abs(v) <= 0.1, cp.norm1(v) <= 10])
    layer = cd.CvxpyLayer(problem, [q, p], [v])
    values = np.zeros(N), 5 * rng.standard_normal(N)
    solution, dense = layer.solve(*values), layer.solve(*values, solver_args={"method": "dense"})
    w1, w2 = rng.standard_normal((2, N))
    parts = [solution.vjp(w) for w in (w1, w2, w1 + w2)]
    for first, second, both, reference in zip(*parts, dense.vjp(w1 + w2), strict=True):
        scale = np.abs(both).max()
        np.testing.assert_allclose(first + second, both, atol=1e-12 * scale)
        np.testing.assert_allclose(both, reference, atol=1e-8 * scale)


def test_c_duals_at_default_settings():
    rng = np.random.default_rng(1)
    A_value, b_value = rng.standard_normal((2, 3)), rng.standard_normal(2)
    x, A, b = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x)), [A @ x == b])
    layer = cd.CvxpyLayer(problem, [A, b], [problem.constraints[0].dual_variables[0]])
    solution = layer.solve(A_value, b_value)
    inverse = np.linalg.inv(A_value @ A_value.T)
    nu = -inverse @ b_value
    np.testing.assert_allclose(solution.values[0], nu, rtol=1e-9)
    np.testing.assert_allclose(jacobian(solution, parameter=1), -inverse, rtol=1e-9)
    for k in range(2):
        # d nu = -inverse d(AA') nu, with d(AA') = dA A' + A dA'
        row = -(np.outer(inverse[k], A_value.T @ nu) + np.outer(nu, A_value.T @ inverse[k]))
        np.testing.assert_allclose(jacobian(solution)[k].reshape(2, 3), row, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-12, 1e-100, 1e-300, 1e200])
def test_d_gradient_is_linear_in_the_loss(scale):
    rng = np.random.default_rng(2)
    x, c = cp.Variable(5), cp.Parameter(5)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.norm1(x))), [c], [x])
    solution, w = layer.solve(rng.standard_normal(5)), rng.standard_normal(5)
    np.testing.assert_allclose(solution.vjp(scale * w)[0] / scale, solution.vjp(w)[0], rtol=1e-12, atol=1e-14)


def test_e_small_entropies():
    x, v, b = cp.Variable(2), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Maximize(v * x[0] + b * x[1] + 0.01 * cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    solution = cd.CvxpyLayer(problem, [v, b], [x]).solve(0.6, 0.58)
    p = 1 / (1 + np.exp(-(0.6 - 0.58) / 0.01))
    np.testing.assert_allclose(solution.values[0], [p, 1 - p], rtol=1e-9)
    np.testing.assert_allclose(solution.vjp(np.array([1.0, 0.0]))[1], -100 * p * (1 - p), rtol=1e-8)


def test_f_log_barrier():
    x, lam = cp.Variable(), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Maximize(x + lam * (cp.log(1 + x) + cp.log(1 - x))))
    lams = np.array([0.1, 0.5, 2.0])
    solution = cd.CvxpyLayer(problem, [lam], [x]).solve(lams)
    np.testing.assert_allclose(solution.values[0], -lams + np.sqrt(lams**2 + 1), rtol=1e-8)
    np.testing.assert_allclose(solution.vjp(np.ones(3))[0], -1 + lams / np.sqrt(lams**2 + 1), rtol=1e-7)


def test_h_projection_onto_a_polytope():
    x, c = cp.Variable(2), cp.Parameter(2)
    constraints = [x[0] - 2 * x[1] + 2 >= 0, -x[0] - 2 * x[1] + 6 >= 0, -x[0] + 2 * x[1] + 2 >= 0]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints)
    solution = cd.CvxpyLayer(problem, [c], [x, problem.objective]).solve(np.array([1.0, 2.5]))
    np.testing.assert_allclose(solution.values[0], [1.4, 1.7], rtol=1e-10)
    np.testing.assert_allclose(jacobian(solution), [[0.8, 0.4], [0.4, 0.2]], rtol=1e-9)
    np.testing.assert_allclose(solution.values[1], 0.8, rtol=1e-9)
    np.testing.assert_allclose(solution.vjp(None, 1.0)[0], 2 * (np.array([1, 2.5]) - [1.4, 1.7]), rtol=1e-8)


def bad_batch():
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    return cd.CvxpyLayer(problem, [p], [x]), np.array([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]])


def test_i_one_bad_element_raises_by_default():
    layer, p = bad_batch()
    with pytest.raises(cd.SolverError, match="1 of 3 elements") as caught:
        layer(p)
    assert caught.value.indices == ((1,),)
    assert caught.value.statuses == ("infeasible",)
    certificate = caught.value.solutions.cones.y[1]
    assert (certificate >= -1e-9).all() and certificate.any()


@pytest.mark.parametrize("answer, gradient", [("nan", np.nan), ("zero_grad", 0.0)])
def test_i_one_bad_element_spoils_nothing(answer, gradient):
    layer, p = bad_batch()
    solution = layer.solve(p, solver_args={"on_failure": answer})
    np.testing.assert_allclose(solution.values[0], [[0.1, 0.2], [np.nan, np.nan], [0.3, 0.1]], rtol=1e-9)
    np.testing.assert_allclose(solution.vjp(np.ones((3, 2)))[0], [[1, 1], [gradient] * 2, [1, 1]], rtol=1e-9)
    assert list(solution.status) == ["solved", "infeasible", "solved"]


def test_i_a_loss_that_leaves_a_bad_element_out_is_right_for_shared_parameters():
    x, c, a = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x <= c, x >= 0])
    layer = cd.CvxpyLayer(problem, [c, a], [x, problem.objective], solver_args={"on_failure": "nan"})
    solution = layer.solve(np.array([[1.0, 1.0], [-1.0, 1.0]]), np.array([0.3, 0.4]))
    mask = np.array([[1.0, 1.0], [0.0, 0.0]])
    gc, ga = solution.vjp(mask, None)
    np.testing.assert_allclose(ga, [1, 1], atol=1e-9)
    np.testing.assert_allclose(gc, 0, atol=1e-9)
    assert np.isfinite(solution.vjp(None, np.array([1.0, 0.0]))[1]).all()
    assert np.isnan(solution.vjp(np.ones((2, 2)), None)[1]).all()


def test_i_callable_decides():
    layer, p = bad_batch()
    seen = []
    solution = layer.solve(p, solver_args={"on_failure": lambda s: seen.append(s.status[1]) or "zero_grad"})
    assert seen == ["infeasible"]
    assert (solution.vjp(np.ones((3, 2)))[0][1] == 0).all()


def test_i_contradiction_is_never_solved():
    program = cd.ConeProgram(np.array([[1.0], [-1.0]]), [-1.0, -1.0], [1.0], {"l": 2})
    with pytest.raises(cd.SolverError, match="infeasible"):
        cd.solve(program)


def test_j_linear_program():
    w, e = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Maximize(e @ w), [cp.sum(w) == 1, w >= 0])
    solution = cd.CvxpyLayer(problem, [e], [w]).solve(np.array([0.1, 0.2, -0.1]))
    np.testing.assert_allclose(solution.values[0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(solution.vjp(np.array([1.0, 2.0, 3.0]))[0], 0, atol=1e-12)


def test_m_quad_form_of_a_parameter():
    rng = np.random.default_rng(3)
    x, P, q = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [x >= -1])
    layer = cd.CvxpyLayer(problem, [P, q], [x])
    R = rng.standard_normal((4, 3, 3))
    P_value, q_value = R @ R.swapaxes(1, 2) + np.eye(3), 0.1 * rng.standard_normal((4, 3))
    solution = layer.solve(P_value, q_value)
    x_value = -np.linalg.solve(P_value, q_value[..., None])[..., 0]
    np.testing.assert_allclose(solution.values[0], x_value, rtol=1e-9, atol=1e-12)
    g = rng.standard_normal((4, 3))
    r = -np.linalg.solve(P_value, g[..., None])[..., 0]
    gP, gq = solution.vjp(g)
    outer = r[:, :, None] * x_value[:, None, :]
    np.testing.assert_allclose(gP, (outer + outer.swapaxes(1, 2)) / 2, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(gq, r, rtol=1e-9)


def test_n_canonicalisation_stays_small():
    n = 300
    x, Q = cp.Variable(n), cp.Parameter((n, n))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + cp.sum(x)), [x >= -1])
    peaks = []
    # The same problem anew each time, for cvxpy remembers what it has canonicalised.
    for build in (lambda: problem.get_problem_data(cp.SCS), lambda: cd.CvxpyLayer(problem, [Q], [x])):
        Q.value = np.ones((n, n)) if not peaks else None
        tracemalloc.start()
        build()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
    layer = cd.CvxpyLayer(problem, [Q], [x])
    Q_value = np.eye(n) + 0.1 * np.random.default_rng(0).standard_normal((n, n)) / np.sqrt(n)
    (x_value,) = layer(10 * Q_value)
    np.testing.assert_allclose(x_value, -np.linalg.solve(100 * Q_value.T @ Q_value, np.ones(n)), rtol=1e-7)


def test_o_duals_of_several_cones_in_one_constraint():
    rng = np.random.default_rng(4)
    X, t, a = cp.Variable((3, 2)), cp.Variable(2), cp.Parameter((3, 2))
    cone = cp.SOC(t, X)
    problem = cp.Problem(cp.Minimize(cp.sum(t) + cp.sum_squares(X - a)), [cone])
    u, b = cp.Variable(3), cp.Parameter(3)
    exponential = cp.ExpCone(u, np.ones(3), b)
    other = cp.Problem(cp.Maximize(cp.sum(u)), [exponential])
    a.value, b.value = rng.standard_normal((3, 2)), rng.uniform(1, 2, 3)
    for prob, constraint, parameter in ((problem, cone, a), (other, exponential, b)):
        layer = cd.CvxpyLayer(prob, [parameter], list(constraint.dual_variables))
        prob.solve(solver=cp.CLARABEL)
        values = layer(parameter.value)
        for mine, theirs in zip(values, constraint.dual_variables, strict=True):
            np.testing.assert_allclose(mine, theirs.value, atol=1e-5)
        direction = rng.standard_normal(parameter.shape)
        pushed = layer.solve(parameter.value).jvp(direction)
        for mine, difference in zip(
            pushed, central_difference(layer, [parameter.value], 0, direction), strict=True
        ):
            np.testing.assert_allclose(mine, difference, atol=1e-5)


def test_p_complex_variables_and_parameters():
    rng = np.random.default_rng(5)
    z, c = cp.Variable(3, complex=True), cp.Parameter(3, complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [cp.real(z) >= 0])
    c_value = np.array([1 + 2j, -1 + 1j, 0.5 - 3j])
    solution = cd.CvxpyLayer(problem, [c], [z]).solve(c_value)
    np.testing.assert_allclose(solution.values[0], np.maximum(c_value.real, 0) + 1j * c_value.imag, atol=1e-9)
    g = rng.standard_normal(3) + 1j * rng.standard_normal(3)
    np.testing.assert_allclose(solution.vjp(g)[0], g.real * (c_value.real > 0) + 1j * g.imag, atol=1e-9)


def test_the_key_above_says_which_cases_are_tested_here():
    rows = re.split(r"^(?=[A-Z] {4})", __doc__.split("\n====")[2], flags=re.MULTILINE)[1:]
    assert "".join(row[0] for row in rows) == ascii_uppercase[:16]
    here = {row[0].lower() for row in rows if re.search(r"\bhere\b", row)}
    assert here == {name.split("_")[1] for name in globals() if re.match(r"test_[a-z]_", name)}
