"""The derivative of a problem that holds values; calls by name, by object, and without values."""

from __future__ import annotations

import copy
import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd


@pytest.fixture
def stated():
    """Bounded ridge regression: matrix, vector and scalar parameters that hold values."""
    rng = np.random.default_rng(0)
    x = cp.Variable(2, name="x")
    A = cp.Parameter((3, 2), name="A", value=rng.standard_normal((3, 2)))
    b = cp.Parameter(3, name="b", value=rng.standard_normal(3))
    weight = cp.Parameter(nonneg=True, name="weight", value=1.5)
    objective = cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.sum_squares(x))
    return cp.Problem(objective, [cp.sum(x) <= 0.1, x >= -1]), x, A, b, weight


def outputs(problem, x):
    return [x, problem.objective, *(c.dual_variables[0] for c in problem.constraints)]


def test_values_are_cvxpys(stated):
    problem, x, *_ = stated
    D = cd.differentiate(problem)
    assert x.value is None and problem.value is None  # not changed
    problem.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(D.value(x), x.value, atol=1e-6)
    np.testing.assert_allclose(D.value(problem.objective), problem.value, atol=1e-6)
    for constraint in problem.constraints:
        np.testing.assert_allclose(D.value(constraint.dual_variables[0]), constraint.dual_value, atol=1e-5)
    assert D.solution.status == "solved" and "A[3, 2]" in repr(D) and "x[2]" in repr(D)


def test_jacobians_are_differences(stated):
    """Of every output in every parameter, and vjp and jvp are their products."""
    problem, x, *parameters = stated
    D, h = cd.differentiate(problem), 1e-6
    rng = np.random.default_rng(1)
    for p in parameters:
        value = p.value.copy() if np.ndim(p.value) else p.value
        ends = []
        for index in np.ndindex(*p.shape):
            for step in (h, -h):
                unit = np.zeros(p.shape)
                unit[index] = step
                p.value = value + unit
                other = cd.differentiate(problem)
                ends.append([other.value(item) for item in outputs(problem, x)])
        p.value = value
        for k, item in enumerate(outputs(problem, x)):
            columns = [(up[k] - down[k]) / (2 * h) for up, down in zip(ends[::2], ends[1::2], strict=True)]
            expected = np.stack(columns, axis=-1).reshape((*columns[0].shape, *p.shape))
            J = D.jacobian(item, of=p)
            np.testing.assert_allclose(J, expected, atol=1e-6)
            np.testing.assert_array_equal(D.jacobian(item, of=p.name()), J)
            g, t = rng.standard_normal(J.shape[: J.ndim - p.ndim]), rng.standard_normal(p.shape)
            np.testing.assert_allclose(D.vjp({item: g})[p], np.tensordot(g, J, np.ndim(g)), atol=1e-9)
            np.testing.assert_allclose(D.jvp({p: t}, of=[item])[item], np.tensordot(J, t, p.ndim), atol=1e-9)


def test_several_at_once(stated):
    problem, x, A, b, weight = stated
    D, dual = cd.differentiate(problem), problem.constraints[0].dual_variables[0]
    both = D.vjp({x: np.ones(2), dual: 2.0, problem.objective: -1.0})
    parts = [D.vjp({x: np.ones(2)}), D.vjp({dual: 2.0}), D.vjp({problem.objective: -1.0})]
    for p in (A, b, weight):
        np.testing.assert_allclose(both[p], sum(part[p] for part in parts), atol=1e-9)
    pushed = D.jvp({A: np.ones((3, 2)), "weight": 1.0})
    assert set(map(id, pushed)) == {id(x), id(problem.objective)}
    each = [D.jvp({A: np.ones((3, 2))})[x], D.jvp({weight: 1.0})[x]]
    np.testing.assert_allclose(pushed[x], each[0] + each[1], atol=1e-9)
    assert all((g == 0).all() for g in D.vjp({}).values())


def test_a_dual_that_is_not_unique_concerns_those_who_ask():
    x, p = cp.Variable(), cp.Parameter(value=1.0)
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= p, 2 * x >= 2 * p])
    D = cd.differentiate(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert D.jacobian(x, of=p) == pytest.approx(1)
    with pytest.warns(cd.DegeneracyWarning):
        D.jacobian(problem.constraints[0].dual_variables[0], of=p)


def test_kinds_of_problems():
    y, a = cp.Variable(pos=True), cp.Parameter(pos=True, value=2.0)
    D = cd.differentiate(cp.Problem(cp.Minimize(y + a / y)), gp=True)
    assert D.jacobian(y, of=a) == pytest.approx(0.5 / np.sqrt(2))
    Z, C = cp.Variable((2, 2), hermitian=True), cp.Parameter((2, 2), complex=True, value=np.eye(2) * 1j)
    D = cd.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(Z - C)), [Z >> 0]))
    with pytest.raises(ValueError, match="complex"):
        D.jacobian(Z, of=C)
    sparse = cp.Parameter((2, 2), sparsity=[(0, 1), (1, 1)])
    sparse.value_sparse = sp.coo_array(([1.0, 2.0], ((0, 1), (1, 1))))
    V = cp.Variable((2, 2))
    D = cd.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(V - sparse))))
    np.testing.assert_allclose(D.value(V), [[0, 1], [0, 2]], atol=1e-9)


def test_what_is_refused(stated):
    problem, x, A, *_ = stated
    with pytest.raises(TypeError, match="cvxpy Problem"):
        cd.differentiate(problem.objective)
    D = cd.differentiate(problem)
    with pytest.raises(ValueError, match="is not an output of the problem: these are x"):
        D.value(cp.Variable(name="y"))
    with pytest.raises(ValueError, match="is none of them"):
        D.jvp({cp.Parameter(name="q"): 1.0})
    with pytest.raises(ValueError, match="must have shape"):
        D.vjp({x: np.ones(3)})
    A.value = None
    with pytest.raises(ValueError, match="'A' holds no value"):
        cd.differentiate(problem)
    z, p = cp.Variable(), cp.Parameter(value=1.0)
    with pytest.raises(cd.SolverError, match="infeasible"):
        cd.differentiate(cp.Problem(cp.Minimize(z), [z >= p, z <= p - 1]))


# ---------------------------------------------------------------------- calls of a layer


def test_calls_by_name_by_object_and_without_values(stated):
    problem, x, A, b, weight = stated
    layer = cd.CvxpyLayer(problem, [A, b, weight], [x])
    values = A.value, b.value, weight.value
    (expected,) = layer(*values)
    by_name = dict(zip(("weight", "b", "A"), values[::-1], strict=True))
    by_object = {weight: values[2], A: values[0], "b": values[1]}
    for found in (layer(by_name), layer(**by_name), layer(by_object), layer(), layer.solve().values):
        np.testing.assert_array_equal(found[0], expected)
    doubled = {**by_name, "b": np.stack([b.value] * 2)}
    assert layer.solve(**doubled, solver_args={"tol": 1e-9}).batch == (2,)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin(by_object)[0], expected)
        with pytest.raises(ValueError, match="copied or loaded"):
            twin()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda layer, p: layer({"A": 1.0}),
            ValueError,
            r"expected values by the names \['A', 'b', 'weight'\]",
        ),
        (lambda layer, p: layer(A=1.0, c=2.0), ValueError, "'c', which is none of them"),
        (lambda layer, p: layer({cp.Parameter(name="q"): 1.0}), ValueError, "'q', which is none"),
        (lambda layer, p: layer(1.0, b=2.0), TypeError, "by position or by name, not both"),
        (lambda layer, p: layer({p: 1.0, "A": 2.0, "b": 1.0}), ValueError, r"got \['A', 'A', 'b'\]"),
    ],
)
def test_calls_that_are_refused(stated, call, error, match):
    problem, x, A, b, weight = stated
    with pytest.raises(error, match=match):
        call(cd.CvxpyLayer(problem, [A, b, weight], [x]), A)


def test_two_parameters_of_one_name():
    x, p, q = cp.Variable(), cp.Parameter(name="p"), cp.Parameter(name="p")
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - p) + cp.square(x - 2 * q))), [p, q], [x])
    np.testing.assert_allclose(layer({p: 1.0, q: 2.0})[0], 2.5, atol=1e-9)
    with pytest.raises(ValueError, match="more than one parameter is named 'p'"):
        layer({"p": 1.0})
    with pytest.raises(ValueError, match="'p' holds no value"):
        layer()


def test_single_output(stated):
    problem, x, A, b, weight = stated
    layer = cd.CvxpyLayer(problem, [A, b, weight], [x], single_output=True)
    np.testing.assert_array_equal(layer(), layer.solve().values[0])
    np.testing.assert_array_equal(copy.deepcopy(layer)(A.value, b.value, 1.5), layer())
    with pytest.raises(ValueError, match="single_output: the layer returns 2"):
        cd.CvxpyLayer(problem, [A, b, weight], [x, problem.objective], single_output=True)
