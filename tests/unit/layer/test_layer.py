"""The NumPy layer: calls, batches, options, and what a user gets for bad input."""

from __future__ import annotations

import copy
import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd

rng = np.random.default_rng(0)


def ridge(**solver_args):
    """Bounded ridge regression with matrix, vector and scalar parameters, and a dual variable."""
    x, A, b, lam = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + lam * cp.sum_squares(x)), [cp.sum(x) <= 0.1])
    dual = problem.constraints[0].dual_variables[0]
    return cd.CvxpyLayer(problem, [A, b, lam], [x, dual, problem.objective], solver_args=solver_args)


def values(*batch):
    return rng.standard_normal((*batch, 3, 2)), rng.standard_normal((*batch, 3)), rng.uniform(1, 2, batch)


def test_call_returns_a_tuple_of_arrays():
    x, dual, value = ridge()(*values())
    assert x.shape == (2,) and dual.shape == () and value.shape == ()


@pytest.mark.parametrize("batch", [(1,), (4,), (2, 3), (2, 1, 3)])
def test_any_number_of_leading_dimensions(batch):
    layer, (A, b, lam) = ridge(), values(*batch)
    solution = layer.solve(A, b, lam)
    gradients = solution.vjp(*(np.ones(v.shape) for v in solution.values))
    for index in np.ndindex(*batch):
        alone = layer.solve(A[index], b[index], lam[index])
        for batched, single in zip(solution.values, alone.values, strict=True):
            np.testing.assert_allclose(batched[index], single, rtol=1e-8, atol=1e-10)
        for batched, single in zip(
            gradients, alone.vjp(*(np.ones(v.shape) for v in alone.values)), strict=True
        ):
            np.testing.assert_allclose(batched[index], single, rtol=1e-7, atol=1e-9)
    assert layer.solve(A, b, lam).info["residual"].shape == batch


def test_parameters_broadcast_and_gradients_sum():
    layer, (A, _, lam) = ridge(), values()
    b = rng.standard_normal((2, 1, 3))
    lams = np.array([[lam, 2 * lam, 3 * lam]])
    solution = layer.solve(A, b, lams)
    assert solution.batch == (2, 3)
    full = layer.solve(*(np.broadcast_to(p, (2, 3, *s)) for p, s in ((A, (3, 2)), (b, (3,)), (lams, ()))))
    ones = [np.ones(v.shape) for v in solution.values]
    gA, gb, glam = solution.vjp(*ones)
    fA, fb, flam = full.vjp(*ones)
    np.testing.assert_allclose(gA, fA.sum(axis=(0, 1)), rtol=1e-9)
    np.testing.assert_allclose(gb, fb.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_allclose(glam, flam.sum(axis=0, keepdims=True), rtol=1e-9)


def test_adjoint_identity_and_finite_differences():
    layer, point = ridge(), values(3)
    solution = layer.solve(*point)
    tangents = [rng.standard_normal(p.shape) for p in point]
    cotangents = [rng.standard_normal(v.shape) for v in solution.values]
    pushed, pulled = solution.jvp(*tangents), solution.vjp(*cotangents)
    left = sum((g * d).sum() for g, d in zip(cotangents, pushed, strict=True))
    right = sum((g * d).sum() for g, d in zip(pulled, tangents, strict=True))
    assert left == pytest.approx(right, rel=1e-10)
    h = 1e-6
    ends = [layer(*(p + s * h * d for p, d in zip(point, tangents, strict=True))) for s in (1, -1)]
    for derivative, plus, minus in zip(pushed, *ends, strict=True):
        np.testing.assert_allclose(derivative, (plus - minus) / (2 * h), atol=1e-6)


def test_only_needed_cotangents():
    solution = ridge().solve(*values())
    gA, gb, glam = solution.vjp(np.ones(2), None, None, needed=[False, True, False])
    assert gA is None and glam is None and gb.shape == (3,)


def test_empty_batch():
    solution = ridge().solve(*values(0))
    assert [v.shape for v in solution.values] == [(0, 2), (0,), (0,)]
    assert [g.shape for g in solution.vjp(np.ones((0, 2)), None, None)] == [(0, 3, 2), (0, 3), (0,)]


def test_single_precision_in_single_precision_out():
    point = [p.astype(np.float32) for p in values(2)]
    solution = ridge().solve(*point)
    assert all(v.dtype == np.float32 for v in solution.values)
    assert all(g.dtype == np.float32 for g in solution.vjp(np.ones((2, 2)), None, None))
    exact = ridge()(*(p.astype(float) for p in point))
    np.testing.assert_allclose(solution.values[0], exact[0], rtol=1e-6)


def test_symmetric_parameters_have_symmetric_gradients():
    X, C = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3), symmetric=True)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), [C], [X])
    C_value = rng.standard_normal((3, 3))
    C_value = C_value + C_value.T
    (g,) = layer.solve(C_value).vjp(rng.standard_normal((3, 3)))
    np.testing.assert_allclose(g, g.T, atol=1e-12)


def test_geometric_program():
    x, y = cp.Variable(pos=True), cp.Variable(pos=True)
    a, b = cp.Parameter(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(a / x + x / y + y), [x * y <= b])
    layer = cd.CvxpyLayer(problem, [a, b], [x, y, problem.objective], gp=True)
    point = np.array(2.0), np.array(3.0)
    solution = layer.solve(*point)
    for k in range(2):
        h = 1e-5
        ends = [layer(*(p + s * h * (j == k) for j, p in enumerate(point))) for s in (1, -1)]
        for out in range(3):
            cotangents = [1.0 if j == out else None for j in range(3)]
            expected = (ends[0][out] - ends[1][out]) / (2 * h)
            np.testing.assert_allclose(solution.vjp(*cotangents)[k], expected, atol=1e-7)


def test_no_parameters_scalars_and_idle_variables():
    x, idle = cp.Variable(), cp.Variable(2)
    problem = cp.Problem(cp.Minimize((x - 3) ** 2 + 5), [idle == 1])
    x_value, idle_value, value = cd.CvxpyLayer(problem, [], [x, idle, problem.objective])()
    np.testing.assert_allclose([x_value, *idle_value, value], [3, 1, 1, 5], atol=1e-9)


def test_maximisation_keeps_signs_and_offset():
    x, p = cp.Variable(), cp.Parameter()
    problem = cp.Problem(cp.Maximize(-((x - p) ** 2) + 7 - p), [x <= 1])
    layer = cd.CvxpyLayer(problem, [p], [problem.objective, problem.constraints[0].dual_variables[0]])
    solution = layer.solve(2.0)
    np.testing.assert_allclose(solution.values, [4, 2], atol=1e-9)
    np.testing.assert_allclose(solution.vjp(1.0, None)[0], -3, atol=1e-9)


def test_duals_of_every_constraint_come_with_the_solution():
    x, t, p = cp.Variable(2), cp.Variable(), cp.Parameter(2)
    constraints = [cp.sum(x) == 1, cp.SOC(t, x - p), cp.diag(x) + np.eye(2) >> 0]
    problem = cp.Problem(cp.Minimize(t + cp.norm1(x)), constraints)
    layer = cd.CvxpyLayer(problem, [p], [x])
    p.value = np.array([0.3, 2.0])
    problem.solve(solver=cp.CLARABEL)
    equality, soc, psd = layer.solve(p.value).duals
    np.testing.assert_allclose(equality, constraints[0].dual_value, atol=1e-4)
    for mine, theirs in zip(soc, constraints[1].dual_value, strict=True):
        np.testing.assert_allclose(np.ravel(mine), np.ravel(theirs), atol=1e-4)
    np.testing.assert_allclose(psd, constraints[2].dual_value, atol=1e-4)
    assert layer.solve(np.stack([p.value] * 3)).duals[2].shape == (3, 2, 2)


@pytest.mark.parametrize("given", ["last", "solution"])
def test_warm_start_skips_scs(given):
    layer, point = ridge(warm_start=True), values(8)
    first = layer.solve(*point)
    moved = [p * 1.0001 for p in point]
    args = {} if given == "last" else {"warm_start": first}
    warm = layer.solve(*moved, solver_args=args)
    assert (warm.info["iterations"] == 0).all() and (warm.info["status"] == "solved").all()
    cold = layer.solve(*moved, solver_args={"warm_start": None})
    np.testing.assert_allclose(warm.values[0], cold.values[0], rtol=1e-8)


def test_a_poor_warm_start_costs_hardly_more_of_scs_than_none():
    """Its y and s differ by so much that a scaling is made, which the solution must not be seen in."""
    x, q, bound = cp.Variable(6), cp.Parameter(6), cp.Parameter()
    objective = cp.Minimize(-q @ x - cp.sum(cp.entr(x)))
    layer = cd.CvxpyLayer(cp.Problem(objective, [cp.sum(x) == 1, x[0] <= bound]), [q, bound], [x])
    rng = np.random.default_rng(7)
    given, bounds = rng.standard_normal((40, 6)), rng.uniform(0.05, 0.3, 40)
    cold = layer.solve(given, bounds)
    poor = layer.solve(10 * given[::-1], bounds)
    warm = layer.solve(given, bounds, solver_args={"warm_start": poor})
    assert warm.info["iterations"].sum() < 1.5 * cold.info["iterations"].sum()
    np.testing.assert_allclose(warm.values[0], cold.values[0], rtol=1e-9, atol=1e-12)


def test_info_describes_the_last_call():
    layer = ridge()
    layer(*values(3))
    assert layer.info["status"].tolist() == ["solved"] * 3
    assert (layer.info["residual"] <= 1e-10).all()


def test_pickle_and_deepcopy():
    layer, point = ridge(warm_start=True), values(2)
    expected = layer(*point)
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        for a, b in zip(twin(*point), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


def test_inputs_stay_as_they_were():
    point = values(2)
    before = [p.tobytes() for p in point]
    for p in point:
        p.setflags(write=False)
    solution = ridge().solve(*point)
    cotangents = [np.ones(v.shape) for v in solution.values]
    solution.vjp(*cotangents)
    assert [p.tobytes() for p in point] == before
    assert all((g == 1).all() for g in cotangents)


def test_results_do_not_depend_on_threads():
    point = values(100)
    one, two = (ridge(threads=t).solve(*point) for t in (1, 2))
    for a, b in zip(one.values, two.values, strict=True):
        np.testing.assert_array_equal(a, b)
    ones = [np.ones(v.shape) for v in one.values]
    for a, b in zip(one.vjp(*ones), two.vjp(*ones), strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------- bad input


def test_not_dpp_names_the_expression():
    x, p, q = cp.Variable(), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(p * q * x), [x >= 1])
    with pytest.raises(cd.DPPError, match="Problem must be DPP"):
        cd.CvxpyLayer(problem, [p, q], [x])


def test_parameters_and_variables_must_be_the_problems():
    x, p, q = cp.Variable(), cp.Parameter(), cp.Parameter(name="stranger")
    problem = cp.Problem(cp.Minimize((x - p) ** 2))
    with pytest.raises(ValueError, match=r"must exactly match problem\.parameters"):
        cd.CvxpyLayer(problem, [q], [x])
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables"):
        cd.CvxpyLayer(problem, [p], [cp.Variable()])
    with pytest.raises(ValueError, match="must be provided as a list or tuple"):
        cd.CvxpyLayer(problem, p, [x])


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda A, b, c: (A, b), ValueError, "for each parameter"),
        (lambda A, b, c: (A[0], b, c), ValueError, "Invalid parameter dimensionality"),
        (lambda A, b, c: (A.T, b, c), ValueError, "Invalid parameter shape"),
        (lambda A, b, c: (np.stack([A] * 2), np.stack([b] * 3), c), ValueError, "Inconsistent batch sizes"),
        (lambda A, b, c: (A, np.where(np.arange(3) == 1, np.nan, b), c), cd.ParameterError, r"\[1\] is nan"),
        (lambda A, b, c: (A, b, np.inf), cd.ParameterError, "is inf"),
        (lambda A, b, c: (A, b, -1.0), cd.ParameterError, "declared nonneg"),
        (lambda A, b, c: (A, None, c), TypeError, "is None"),
        (lambda A, b, c: (A, np.array(["a"] * 3), c), TypeError, "array of numbers"),
        (lambda A, b, c: (A, b + 1j, c), TypeError, "complex"),
    ],
)
def test_bad_values(change, error, message):
    with pytest.raises(error, match=message):
        ridge()(*change(*values()))


@pytest.mark.parametrize(
    "attributes, value, word",
    [
        ({"PSD": True}, -np.eye(2), "PSD"),
        ({"NSD": True}, np.eye(2), "NSD"),
        ({"symmetric": True}, np.array([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        ({"diag": True}, np.ones((2, 2)), "diag"),
        ({"nonpos": True}, np.ones((2, 2)), "nonpos"),
        ({"pos": True}, -1e-3 * np.eye(2), "pos"),
        ({"neg": True}, np.eye(2), "neg"),
        ({"symmetric": True}, np.array([[1.0, 2.0], [1.99, 1.0]]), "symmetric"),
        ({"PSD": True}, np.array([[1.0, 0.0], [0.0, -1e-4]]), "eigenvalue"),
        ({"PSD": True}, np.array([[1.0, 0.0], [0.5, 1.0]]), "symmetric"),
        ({"NSD": True}, np.array([[-1.0, 1.1], [1.1, -1.0]]), "eigenvalue"),
        ({"diag": True}, np.array([[1.0, 0.01], [0.0, 1.0]]), "diag"),
        ({"integer": True}, np.full((2, 2), 0.01), "integer"),
        ({"boolean": True}, 2 * np.eye(2), "boolean"),
    ],
)
def test_declared_attributes_hold(attributes, value, word):
    X, C = cp.Variable((2, 2)), cp.Parameter((2, 2), **attributes)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), [C], [X])
    with pytest.raises(cd.ParameterError, match=word):
        layer(value)
    layer(value, solver_args={"validate": False})


def test_zero_is_accepted_where_cvxpy_accepts_it():
    for attributes in ({"pos": True}, {"neg": True}, {"nonneg": True}, {"nonpos": True}):
        X, C = cp.Variable((2, 2)), cp.Parameter((2, 2), **attributes)
        C.value = np.zeros((2, 2))
        layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), [C], [X])
        np.testing.assert_allclose(layer(C.value)[0], 0, atol=1e-12)
    x, p = cp.Variable(pos=True), cp.Parameter(pos=True)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(x + p / x)), [p], [x], gp=True)
    with pytest.raises(cd.ParameterError, match="must be positive in a geometric program"):
        layer(0.0)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("attribute", ["symmetric", "PSD"])
def test_the_symmetric_part_is_read(attribute, size):
    """A small antisymmetric part changes nothing, and the gradient is the one of the symmetric part."""
    X, C = cp.Variable((2, 2)), cp.Parameter((2, 2), **{attribute: True})
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), [C], [X])
    S, off = size * np.array([[2.0, 1.0], [1.0, 3.0]]), 5e-4 * size * np.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(layer(S + off)[0], S, rtol=1e-9)
    (g,) = layer.solve(S + off).vjp(np.array([[0.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(g, [[0, 0.5], [0.5, 0]], atol=1e-9)
    with pytest.raises(cd.ParameterError, match="symmetric"):
        layer(S + 5 * off)


def test_unknown_solver_argument_lists_the_known():
    with pytest.raises(TypeError, match="max_iter'.*known ones are.*max_iters"):
        ridge(max_iter=10)
    with pytest.raises(TypeError, match="known ones are"):
        ridge()(*values(), solver_args={"tolerance": 1})
    for bad in ({"tol": 0}, {"method": "magic"}, {"threads": 0}, {"on_failure": "ignore"}):
        with pytest.raises(ValueError):
            ridge(**bad)


def test_integer_and_nonconvex_problems_are_refused():
    n, x, p = cp.Variable(integer=True), cp.Variable(), cp.Parameter()
    with pytest.raises(cd.ProblemError, match="integer"):
        cd.CvxpyLayer(cp.Problem(cp.Minimize((n - p) ** 2)), [p], [n])
    with pytest.raises(cd.ProblemError):
        cd.CvxpyLayer(cp.Problem(cp.Minimize(-(x**2) + p)), [p], [x])


def test_a_factor_of_unknown_sign_is_named():
    x, lam = cp.Variable(3), cp.Parameter(name="lam")
    with pytest.raises(cd.ProblemError, match="sign of lam is not known: declare the parameter nonneg=True"):
        cd.CvxpyLayer(cp.Problem(cp.Minimize(lam * cp.norm1(x))), [lam], [x])


def test_unbounded_problem_has_a_certificate():
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(p @ x), [x[0] >= 0]), [p], [x])
    with pytest.raises(cd.SolverError, match="unbounded") as caught:
        layer(np.array([1.0, 1.0]))
    assert caught.value.solutions.cones.x[0] @ [1.0, 1.0] == pytest.approx(-1)


def test_never_a_silent_inaccurate_result():
    layer, point = ridge(refine=False, max_iters=2), values(2)
    with pytest.raises(cd.SolverError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer(*point)


def test_degenerate_points_warn_and_answer():
    x, p = cp.Variable(), cp.Parameter()
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize((x - p) ** 2), [x >= 0]), [p], [x])
    solution = layer.solve(0.0)
    with pytest.warns(cd.DegeneracyWarning, match="not differentiable"):
        (g,) = solution.vjp(1.0)
    assert 0 <= g <= 1
    assert not solution.diagnostics.differentiable[0]


def test_cotangents_and_tangents_are_checked():
    solution = ridge().solve(*values())
    with pytest.raises(ValueError, match="one per variable"):
        solution.vjp(np.ones(2))
    with pytest.raises(ValueError, match="must have shape"):
        solution.vjp(np.ones(3), None, None)
    with pytest.raises(ValueError, match="one per parameter"):
        solution.jvp(np.ones((3, 2)))
    with pytest.raises(ValueError, match="needed must say"):
        solution.vjp(np.ones(2), None, None, needed=[True])
    with pytest.raises(ValueError, match="must have shape"):
        solution.jvp(np.ones((2, 3)), None, None)


def test_warm_start_must_fit():
    layer = ridge()
    first = layer.solve(*values(2))
    with pytest.raises(ValueError, match="batch shape"):
        layer.solve(*values(3), solver_args={"warm_start": first})
    with pytest.raises(TypeError, match="warm_start"):
        layer.solve(*values(), solver_args={"warm_start": "yes"})


# ----------------------------------------------------------------------------- OptLayer


def test_opt_layer_states_its_problem_by_functions():
    n = 4
    z, q, G, h, A, b = cp.Variable(n), *(cp.Parameter(s) for s in ((n,), (2, n), (2,), (1, n), (1,)))
    layer = cd.OptLayer(
        [z],
        [q, G, h, A, b],
        lambda z, q, G, h, A, b: 0.5 * cp.sum_squares(z) + q @ z,
        [lambda z, q, G, h, A, b: G @ z - h],
        [lambda z, q, G, h, A, b: A @ z - b],
        tol=1e-12,
    )
    x, p = cp.Variable(n), [cp.Parameter(s) for s in ((n,), (2, n), (2,), (1, n), (1,))]
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(x) + p[0] @ x), [p[1] @ x - p[2] <= 0, p[3] @ x - p[4] == 0]
    )
    plain = cd.CvxpyLayer(problem, p, [x])
    point = [rng.standard_normal(v.shape) for v in p]
    np.testing.assert_allclose(layer(*point), plain(*point)[0], atol=1e-9)
    assert layer.settings.tol == 1e-12


@pytest.mark.parametrize("answer", ["nan", "zero_grad", lambda solution: "zero_grad", lambda solution: None])
def test_cones_and_layer_agree_about_failed_elements(answer):
    """Cotangents of failed elements are decided once, also where a callable decides."""
    x, p = cp.Variable(), cp.Parameter()
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x)), [x >= p, x <= 1]), [p], [x])
    values = np.array([0.5, 2.0, 0.2])
    solution = layer.solve(values, solver_args={"on_failure": answer})
    (pulled,) = solution.vjp(np.ones(3))
    cones = solution.cones.derivative().vjp(dx=np.ones((3, solution.cones.x.shape[1])))
    fill = 0.0 if answer == "zero_grad" or (callable(answer) and answer(None)) else np.nan
    np.testing.assert_array_equal(pulled[1], fill)
    np.testing.assert_array_equal(cones.db[1], np.full(cones.db.shape[1], fill))
    again = layer.resume([values], solution.state)
    np.testing.assert_array_equal(again.vjp(np.ones(3))[0], pulled)


def test_solutions_are_pickled_with_and_without_a_derivative():
    layer = ridge()
    solution = layer.solve(*values())
    before = pickle.loads(pickle.dumps(solution))
    g = [np.ones(value.shape) for value in solution.values]
    expected = solution.vjp(*g)
    for again in (before, pickle.loads(pickle.dumps(solution))):
        for one, other in zip(again.vjp(*g), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)
    cones = pickle.loads(pickle.dumps(solution.cones.derivative()))
    assert np.isfinite(cones.vjp(dx=np.ones((1, solution.cones.x.shape[1]))).db).all()


def test_what_a_user_changes_in_a_solution_changes_no_derivative():
    layer = ridge()
    given = values()
    solution, untouched = layer.solve(*given), layer.solve(*given)
    solution.info["status"][...] = "failed"
    solution.status[...] = "failed"
    solution.info["residual"][...] = np.nan
    g = [np.ones(value.shape) for value in solution.values]
    for one, other in zip(solution.vjp(*g), untouched.vjp(*g), strict=True):
        np.testing.assert_array_equal(one, other)
