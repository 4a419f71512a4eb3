"""What `canonicalise` finds is what cvxpy itself computes: data, variables, duals, optimal value."""

from __future__ import annotations

import json
import time
import warnings
from types import SimpleNamespace

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import scs

from conediff.errors import DPPError, ProblemError
from conediff.layer.canonical import _probe, canonicalise
from conediff.layer.canonical._chain import reduce_problem
from conediff.layer.canonical._data import _build_sparse_map, build_data_maps
from conediff.layer.canonical._probe import find_linear_maps
from conediff.layer.maps import ProblemMaps
from conediff.program import ConeData

N = 3


class Case:
    """A problem, its parameters, the outputs wanted of it, and whether it is geometric."""

    def __init__(self, objective, constraints, parameters, variables=None, gp=False):
        self.problem = cp.Problem(objective, constraints)
        self.parameters = parameters
        duals = [dual for c in constraints for dual in c.dual_variables]
        self.variables = (self.problem.variables() if variables is None else variables) + duals
        self.gp = gp


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def parameter(*args, **kwargs):
    return cp.Parameter(*args, **kwargs)


@case
def lp():
    x, A, b, c = cp.Variable(N), parameter((2, N)), parameter(2, pos=True), parameter(N)
    return Case(cp.Minimize(c @ x), [A @ x <= b, x >= -1, x <= 2], [A, b, c])


@case
def lp_in_another_order():
    x, A, b, c = cp.Variable(N), parameter((2, N)), parameter(2, pos=True), parameter(N)
    return Case(cp.Minimize(c @ x), [A @ x <= b, x >= -1, x <= 2], [c, b, A])


@case
def qp_maximise_with_offset():
    x, p, q = cp.Variable(N), parameter(N), parameter()
    return Case(cp.Maximize(p @ x - cp.sum_squares(x) + 3 * q - 1), [x >= 0, cp.sum(x) == 1], [p, q])


@case
def equality_duals():
    x, A, b = cp.Variable(N), parameter((2, N)), parameter(2)
    return Case(cp.Minimize(cp.sum_squares(x)), [A @ x == b], [A, b])


@case
def quad_form_parameter():
    x, P, q = cp.Variable(N), parameter((N, N), PSD=True), parameter(N)
    return Case(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [x >= -1], [P, q])


@case
def quad_form_negative():
    x, P, q = cp.Variable(N), parameter((N, N), PSD=True), parameter(N)
    return Case(cp.Maximize(q @ x - cp.quad_form(x, P) - 2), [x >= -1], [q, P])


@case
def no_parameters():
    x = cp.Variable((2, N))
    return Case(cp.Minimize(cp.sum_squares(x - np.arange(6.0).reshape(2, N))), [cp.sum(x) <= 3], [])


@case
def no_constraints():
    x, p = cp.Variable(N), parameter(N)
    return Case(cp.Minimize(cp.sum_squares(x - p)), [], [p])


@case
def repeated_parameter():
    x, p = cp.Variable(N), parameter(N)
    return Case(cp.Minimize(cp.sum_squares(x - p) + p @ x), [x + p >= 0, x <= cp.sum(p) + 3], [p])


@case
def scalar_everything():
    x, p = cp.Variable(), parameter(pos=True)
    return Case(cp.Minimize(cp.square(x) * 2 + p * x), [x >= p, x == 2 * p], [p])


@case
def unreached_variable():
    x, y, p = cp.Variable(N), cp.Variable(2, nonneg=True), parameter(N)
    return Case(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(y) == 1], [p])


@case
def zero_sized():
    x, e, p = cp.Variable(N), cp.Variable(0), parameter(N)
    return Case(cp.Minimize(cp.sum_squares(x - p) + cp.sum(e)), [x >= 0, e >= 1], [p])


@case
def socp():
    x, t, A, b = cp.Variable(N), cp.Variable(), parameter((4, N)), parameter(4)
    return Case(cp.Minimize(t + cp.sum(x)), [cp.SOC(t, A @ x - b), cp.norm(x) <= 2], [A, b])


@case
def soc_several():
    X, t, c = cp.Variable((N, 2)), cp.Variable(2), parameter(2, pos=True)
    return Case(cp.Minimize(c @ t + cp.sum(X)), [cp.SOC(t, X), cp.SOC(t + 1, X.T + 1, axis=1), t <= 2], [c])


@case
def sdp():
    X, C = cp.Variable((N, N), symmetric=True), parameter((N, N), symmetric=True)
    return Case(cp.Minimize(cp.trace(C @ X)), [X >> 0, cp.trace(X) == 1, X[0, 1] >= 0.1], [C])


@case
def nearest_correlation():
    X, C = cp.Variable((N, N), PSD=True), parameter((N, N))
    return Case(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1], [C])


@case
def exponential_cone():
    x, y, z, p = cp.Variable(2), cp.Variable(2), cp.Variable(2), parameter(2, pos=True)
    return Case(cp.Minimize(cp.sum(z) + p @ y), [cp.ExpCone(x, y, z), x >= -1, y >= 0.5, cp.sum(x) == 1], [p])


@case
def exponential_cone_matrix():
    x, y, z = cp.Variable((2, 2)), cp.Variable((2, 2)), cp.Variable((2, 2))
    p = parameter((2, 2), pos=True)
    return Case(cp.Minimize(cp.sum(z)), [cp.ExpCone(x, y, z), x >= p, y == 1 + p], [p])


@case
def entropy():
    x, p = cp.Variable(N), parameter(N)
    return Case(cp.Maximize(p @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1], [p])


@case
def log_sum_exp():
    x, A, p = cp.Variable(N), parameter((4, N)), parameter(4)
    return Case(cp.Minimize(cp.log_sum_exp(A @ x + p) + cp.sum_squares(x)), [x <= 1], [A, p])


@case
def logistic():
    x, A, lam = cp.Variable(N), parameter((4, N)), parameter(nonneg=True)
    return Case(cp.Minimize(cp.sum(cp.logistic(A @ x)) + lam * cp.norm1(x) + cp.sum_squares(x)), [], [A, lam])


@case
def power_cone():
    x, p = cp.Variable(N), parameter(2)
    return Case(
        cp.Maximize(x[2] - 0.1 * (p @ x[:2])), [cp.PowCone3D(x[0], x[1], x[2], 0.3), x[0] + x[1] <= 3], [p]
    )


@case
def power_cone_vector():
    x, y, z, p = cp.Variable(2), cp.Variable(2), cp.Variable(2), parameter(2, pos=True)
    constraints = [cp.PowCone3D(x, y, z, np.array([0.3, 0.6])), x + y <= 1 + p]
    return Case(cp.Maximize(cp.sum(z)), constraints, [p])


@case
def power_cone_n():
    W, z, p = cp.Variable((4, 2), pos=True), cp.Variable(2), parameter((4, 2), pos=True)
    alpha = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.3, 0.2]]).T
    return Case(cp.Maximize(cp.sum(z)), [cp.PowConeND(W, z, alpha), W <= p], [p])


@case
def geometric_mean():
    x, w = cp.Variable(N), parameter(N, pos=True)
    return Case(cp.Maximize(cp.geo_mean(x, [0.2, 0.3, 0.5])), [w @ x <= 1], [w])


@case
def p_norm():
    x, p = cp.Variable(N), parameter(N)
    return Case(cp.Minimize(cp.pnorm(x - p, 3) + cp.sum(x)), [x >= -1], [p])


@case
def quadratic_over_linear():
    x, t, p = cp.Variable(N), cp.Variable(pos=True), parameter(N)
    return Case(cp.Minimize(cp.quad_over_lin(x - p, t) + t), [x >= 1, t <= 4], [p])


@case
def huber_and_maximum():
    x, p = cp.Variable(N), parameter(N)
    return Case(cp.Minimize(cp.sum(cp.huber(x - p)) + cp.max(x) + cp.norm_inf(x)), [cp.abs(x) <= 1], [p])


@case
def spectral():
    X, C = cp.Variable((2, N)), parameter((2, N))
    return Case(cp.Minimize(cp.normNuc(X) + cp.sum_squares(X - C)), [cp.sigma_max(X) <= 1], [C])


@case
def every_sign():
    names = ("nonneg", "nonpos", "pos", "neg")
    xs = [cp.Variable(2, **{k: True}) for k in names]
    ps = [parameter(2, **{k: True}) for k in names]
    terms = [cp.sum_squares(x - 2 * p) for x, p in zip(xs, ps, strict=True)]
    return Case(cp.Minimize(sum(terms) + cp.sum(xs[0] + xs[1])), [], ps)


@case
def matrix_attributes():
    S, D, Q = (
        cp.Variable((N, N), symmetric=True),
        cp.Variable((N, N), diag=True),
        cp.Variable((N, N), NSD=True),
    )
    s, d, q = parameter((N, N), symmetric=True), parameter((N, N), diag=True), parameter((N, N), NSD=True)
    g = parameter((N, N))
    terms = [cp.sum_squares(S - s - g), cp.sum_squares(D - d), cp.sum_squares(Q - 2 * q + s)]
    return Case(cp.Minimize(sum(terms)), [S @ np.ones(N) >= 0.1], [s, d, q, g])


@case
def sparse_attributes():
    where = [(0, 1, 2, 2), (1, 0, 2, 0)]
    X, p = cp.Variable((N, N), sparsity=where), parameter((N, N), sparsity=where)
    return Case(cp.Minimize(cp.sum_squares(X - p) + cp.sum(X)), [X @ np.ones(N) >= -1], [p])


@case
def bounds():
    x = cp.Variable(N, bounds=[np.array([-1.0, -np.inf, 0.0]), 2.0])
    p = parameter(N, bounds=[-3.0, np.array([1.0, 2.0, 3.0])])
    return Case(cp.Minimize(cp.sum_squares(x - p)), [], [p])


@case
def parametric_bounds():
    low, high, p = parameter(N, neg=True), parameter(pos=True), parameter(N)
    x = cp.Variable(N, bounds=[low, high])
    return Case(cp.Minimize(cp.sum_squares(x - 2 * p)), [], [p, low, high])


@case
def three_dimensional():
    X, p = cp.Variable((2, 3, 2)), parameter((2, 3, 2))
    return Case(cp.Minimize(cp.sum_squares(X - p)), [X >= 0, cp.sum(X, axis=0) <= 1], [p])


@case
def matrix_constraints():
    X, A, B = cp.Variable((N, 2)), parameter((2, N)), parameter((2, 2))
    return Case(cp.Minimize(cp.sum_squares(X) + cp.sum(X)), [A @ X == B, X <= 3, cp.NonNeg(X + 3)], [A, B])


@case
def complex_least_squares():
    z, A, b = cp.Variable(N, complex=True), parameter((4, N), complex=True), parameter(4, complex=True)
    return Case(cp.Minimize(cp.sum_squares(A @ z - b)), [cp.sum(z) == b[0], cp.real(z) >= -5], [A, b])


@case
def complex_scalar_and_imaginary():
    z, w, r = cp.Variable(complex=True), cp.Variable(2, imag=True), cp.Variable(2)
    p, q = parameter(complex=True), parameter(2, imag=True)
    return Case(
        cp.Minimize(cp.abs(z - p) + cp.sum(cp.abs(w - q)) + cp.sum_squares(r)),
        [cp.real(z) + r >= 1, 1j * r == w + q],
        [p, q],
    )


@case
def hermitian():
    X, C = cp.Variable((N, N), hermitian=True), parameter((N, N), hermitian=True)
    return Case(cp.Minimize(cp.real(cp.trace(C @ X))), [X >> 0, cp.trace(X) == 1], [C])


@case
def hermitian_definite():
    X, C = cp.Variable((2, 2), hermitian=True), parameter((2, 2), complex=True)
    return Case(cp.Minimize(cp.sum_squares(X - C)), [X + np.eye(2) >> 0, cp.real(X[0, 1]) >= 0.5], [C])


@case
def geometric_program():
    x, y, a, b = cp.Variable(pos=True), cp.Variable(2, pos=True), parameter(pos=True), parameter(2, pos=True)
    constraints = [a * x * y[0] >= 2, y <= 3 * b, x * y[1] == b[0]]
    return Case(cp.Minimize(1 / (x * y[1]) + a * x / y[0] + b[1] * y[0]), constraints, [a, b], gp=True)


@case
def geometric_program_exponents():
    x, y, a, e = cp.Variable(pos=True), cp.Variable(pos=True), parameter(pos=True), parameter(pos=True)
    constraints = [x <= 2 * a, y <= 3, x >= 0.1, y >= 0.1]
    return Case(cp.Maximize(a * e * x**e * y**0.5), constraints, [a, e], gp=True)


@case
def geometric_program_matrix():
    X, S = cp.Variable((2, 2), pos=True), parameter((2, 2), pos=True)
    return Case(cp.Minimize(cp.sum(cp.multiply(S, X))), [cp.prod(X) >= 1, X <= 4], [S], gp=True)


def sample(p, rng):
    """Return a random value that a parameter accepts."""
    value = rng.normal(size=p.shape)
    has = p.attributes
    if has["pos"] or has["nonneg"]:
        return np.abs(value) + 0.5
    if has["neg"] or has["nonpos"]:
        return -np.abs(value) - 0.5
    if has["hermitian"]:
        value = value + 1j * rng.normal(size=p.shape)
        return value + value.conj().T
    if has["imag"]:
        return 1j * value
    if has["complex"]:
        return value + 1j * rng.normal(size=p.shape)
    if has["PSD"] or has["NSD"]:
        return (value @ value.T + np.eye(len(value))) * (1 if has["PSD"] else -1)
    if has["symmetric"]:
        return value + value.T
    if has["diag"]:
        return np.diag(np.diag(value))
    if has["sparsity"]:
        masked = np.zeros(p.shape)
        masked[p.sparse_idx] = value[p.sparse_idx]
        return masked
    return np.clip(value, *has["bounds"]) if has["bounds"] is not None else value


def maps_of(item, objective=True):
    variables = [*item.variables, item.problem.objective] if objective else item.variables
    return canonicalise(item.problem, item.parameters, variables, gp=item.gp)


def set_values(item, values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for p, value in zip(item.parameters, values, strict=True):
            p.value = value


def dense(matrix):
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)


@pytest.mark.parametrize("name", CASES)
def test_data_are_cvxpys(name):
    rng = np.random.default_rng(1)
    item = CASES[name]()
    maps = maps_of(item)
    for _ in range(2):
        values = [sample(p, rng) for p in item.parameters]
        data, d = maps.evaluate([np.asarray(v)[None] for v in values])
        set_values(item, values)
        theirs, _, inverse = item.problem.get_problem_data(cp.SCS, gp=item.gp, enforce_dpp=True)
        A = maps.structure.A.matrix(data.A[0]).toarray()
        P = maps.structure.P.matrix(data.P[0]).toarray()
        their_P = dense(theirs["P"]) if "P" in theirs else np.zeros(P.shape)
        np.testing.assert_allclose(A, dense(theirs["A"]), atol=1e-12)
        np.testing.assert_allclose(data.b[0], theirs["b"], atol=1e-12)
        np.testing.assert_allclose(data.c[0], theirs["c"], atol=1e-12)
        np.testing.assert_allclose(P, (their_P + their_P.T) / 2, atol=1e-12)
        np.testing.assert_allclose(d[0], inverse[-1][cp.settings.OFFSET], atol=1e-12)
        dims = theirs["dims"]
        ours = (dims.zero, dims.nonneg, dims.soc, dims.psd, dims.exp, dims.p3d)
        assert tuple(maps.cones[k] for k in ("z", "l", "q", "s", "ep", "p")) == ours


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_cvxpys(name):
    rng = np.random.default_rng(2)
    item = CASES[name]()
    maps = maps_of(item)
    values = [sample(p, rng) for p in item.parameters]
    data, d = maps.evaluate([np.asarray(v)[None] for v in values])
    set_values(item, values)
    _, chain, inverse = item.problem.get_problem_data(cp.SCS, gp=item.gp)
    if maps.structure.m:
        P = {"P": maps.structure.P.matrix(data.P[0])} if maps.structure.P.nnz else {}
        numbers = {"A": maps.structure.A.matrix(data.A[0]), "b": data.b[0], "c": data.c[0], **P}
        raw = scs.solve(numbers, dict(maps.cones), eps_abs=1e-9, eps_rel=1e-9, max_iters=50000, verbose=False)
        assert raw["info"]["status_val"] == 1
    else:
        x = -np.linalg.solve(maps.structure.P.matrix(data.P[0]).toarray(), data.c[0])
        info = {"status_val": 1, "solve_time": 0.0, "setup_time": 0.0, "iter": 0, "pobj": 0.0}
        raw = {"x": x, "y": np.zeros(0), "s": np.zeros(0), "info": info}
    item.problem.unpack_results(raw, chain, inverse)
    x, y = raw["x"][None], raw["y"][None]
    ours = maps.recover(x, y, maps.value(data, d, x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for got, v in zip(ours, item.variables, strict=False):
            expected = dense(v.value)
            assert got.shape[1:] == expected.shape
            np.testing.assert_allclose(got[0], expected, atol=2e-7, rtol=1e-7)
    np.testing.assert_allclose(ours[-1][0], item.problem.value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_values_need_not_exist_and_are_not_used(name):
    rng = np.random.default_rng(3)
    fresh, filled = CASES[name](), CASES[name]()
    set_values(filled, [sample(p, rng) for p in filled.parameters])
    for one, other in zip(maps_of(fresh).blocks, maps_of(filled).blocks, strict=True):
        np.testing.assert_array_equal(one.matrix.toarray(), other.matrix.toarray())
        np.testing.assert_array_equal(one.constant, other.constant)


@pytest.mark.parametrize("name", ["socp", "sdp", "complex_least_squares", "geometric_program", "bounds"])
def test_the_users_objects_stay_as_they_were(name):
    rng = np.random.default_rng(4)
    item = CASES[name]()
    set_values(item, [sample(p, rng) for p in item.parameters])
    item.problem.solve(cp.SCS, gp=item.gp)
    leaves = item.parameters + item.variables
    before = [np.array(v.value) for v in leaves]
    status, key, program = item.problem.status, item.problem._cache.key, item.problem._cache.param_prog
    maps_of(item)
    for v, value in zip(leaves, before, strict=True):
        np.testing.assert_array_equal(v.value, value)
    assert item.problem.status == status
    assert item.problem._cache.key == key
    assert item.problem._cache.param_prog is program


def test_symmetric_parameters_are_read_as_their_symmetric_part():
    item = sdp()
    maps = maps_of(item)
    X = np.random.default_rng(5).normal(size=(1, N, N))
    one, _ = maps.evaluate([X])
    other, _ = maps.evaluate([(X + X.transpose(0, 2, 1)) / 2])
    np.testing.assert_allclose(one.c, other.c)
    (g,) = maps.pull_back([X], one)
    np.testing.assert_allclose(g, g.transpose(0, 2, 1))


def test_structured_parameters_are_read_where_they_may_be_nonzero():
    item = matrix_attributes()
    maps = maps_of(item)
    values = [np.random.default_rng(6).normal(size=(1, N, N)) for _ in item.parameters]
    data, d = maps.evaluate(values)
    g = maps.pull_back(values, data, d)[1]
    assert np.count_nonzero(g[0] - np.diag(np.diag(g[0]))) == 0
    item = sparse_attributes()
    maps = maps_of(item)
    data, d = maps.evaluate([np.ones((1, N, N))])
    (g,) = maps.pull_back([np.ones((1, N, N))], data, d)
    assert set(np.flatnonzero(g)) == set(maps.parameters[0].pattern)


def test_hermitian_parameters_are_read_as_their_hermitian_part():
    maps = maps_of(hermitian())
    rng = np.random.default_rng(7)
    X = rng.normal(size=(1, N, N)) + 1j * rng.normal(size=(1, N, N))
    one, _ = maps.evaluate([X])
    other, _ = maps.evaluate([(X + X.conj().transpose(0, 2, 1)) / 2])
    np.testing.assert_allclose(one.c, other.c)
    (g,) = maps.pull_back([X], one)
    np.testing.assert_allclose(g, g.conj().transpose(0, 2, 1))


def test_specs_tell_what_was_declared():
    maps = maps_of(bounds())
    np.testing.assert_array_equal(np.broadcast_to(maps.parameters[0].upper, N), [1, 2, 3])
    assert maps_of(quad_form_parameter()).parameters[0].attributes == ("PSD",)
    assert maps_of(geometric_program()).parameters[0].log
    assert maps_of(hermitian()).parameters[0].complex


def test_complex_diagonal_parameters_are_read_on_the_diagonal():
    x, p = cp.Variable((2, 2), complex=True), parameter((2, 2), complex=True, diag=True)
    maps = canonicalise(cp.Problem(cp.Minimize(cp.sum(cp.abs(x - p)))), [p], [x])
    full = np.array([[[1 + 2j, 3j], [4, 5 - 1j]]])
    one, _ = maps.evaluate([full])
    other, _ = maps.evaluate([full * np.eye(2)])
    np.testing.assert_array_equal(one.b, other.b)
    (g,) = maps.pull_back([full], one)
    assert (g[0] != 0).tolist() == [[True, False], [False, True]]


# ---------------------------------------------------------------------- the inner workings


def test_a_value_that_cvxpy_would_take_for_a_constant_is_refused():
    x, P = cp.Variable(N), parameter((N, N), PSD=True, value=np.eye(N))
    problem = cp.Problem(cp.Minimize(cp.exp(cp.quad_form(x, P))), [x >= 1])
    assert problem.is_dpp(quad_form_dpp="qp")
    with pytest.raises(ProblemError, match="cvxpy cannot turn"):
        reduce_problem(problem, gp=False)
    np.testing.assert_array_equal(P.value, np.eye(N))


def test_a_problem_without_rows():
    x, p = cp.Variable(N), parameter(N)
    maps = canonicalise(cp.Problem(cp.Minimize(p @ x)), [p], [x])
    assert maps.structure.m == 0
    data, _ = maps.evaluate([np.ones((1, N))])
    np.testing.assert_array_equal(data.c, np.ones((1, N)))


def test_a_triangle_of_P_is_completed():
    dims = SimpleNamespace(zero=0, nonneg=0, soc=[], psd=[], exp=0, p3d=[])
    # Upper triangle of [[2, 1 + p], [1 + p, 0]], with 2 + 2 p above the diagonal and nothing below.
    P = sp.csc_array(np.array([[0.0, 2.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]))
    program = SimpleNamespace(
        x=SimpleNamespace(size=2), A=sp.csc_array((0, 2)), q=sp.csc_array((3, 2)), P=P, cone_dims=dims
    )
    structure, _, blocks = build_data_maps(program, sp.csr_array(np.eye(1)))
    values = blocks[0].matrix.toarray()[:, 0] * 3 + blocks[0].constant
    np.testing.assert_array_equal(structure.P.matrix(values).toarray(), [[2, 4], [4, 0]])
    assert structure.P.nnz == 3


def test_entries_that_cancel_are_not_in_the_pattern():
    entry, column = np.array([1, 1, 3, 3, 4]), np.array([0, 0, 1, 1, 1])
    value = np.array([1.0, -1.0, 2.0, -2.0, 5.0])
    pattern, block = _build_sparse_map(3, 2, entry, column, value, sp.csr_array(np.eye(1)))
    assert pattern.indices.tolist() == [1]
    assert pattern.indptr.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(block.constant, [5.0])


def test_linear_maps_are_found_in_three_probes_where_they_select():
    calls = []

    def probe(v):
        calls.append(v)
        return [np.array([[2 * v[3], 0.0], [-v[0] / 3, v[1]]]), v[2] + 1j * v[1]]

    (shape, is_complex, matrix), (_, second_complex, second) = find_linear_maps(probe, 4, ["a", "b"])
    assert len(calls) == 3 and shape == (2, 2) and not is_complex and second_complex
    expected = np.zeros((4, 4))
    expected[0, 3], expected[2, 0], expected[3, 1] = 2, -1 / 3, 1
    np.testing.assert_allclose(matrix.toarray(), expected)
    np.testing.assert_allclose(second.toarray(), [[0, 0, 1, 0], [0, 1, 0, 0]])


def test_linear_maps_that_mix_entries_are_probed_by_columns():
    M = np.random.default_rng(13).normal(size=(3, 4))
    ((_, _, matrix),) = find_linear_maps(lambda v: [M @ v], 4, ["a"])
    np.testing.assert_allclose(matrix.toarray(), M)
    with pytest.raises(ProblemError, match="a is not linear"):
        find_linear_maps(lambda v: [v**2], 4, ["a"])
    many = _probe._MAX_PROBED_COLUMNS + 1
    with pytest.raises(ProblemError, match=f"a are not multiples of single .*, but it has {many}"):
        find_linear_maps(lambda v: [v[:1] + v[1:2]], many, ["a"])


# ---------------------------------------------------------------------- laws, on every case


def stack(item, rng, rows):
    return [np.stack([sample(p, rng) for _ in range(k)]) for p, k in zip(item.parameters, rows, strict=True)]


def inner(one, other):
    return sum(np.sum(np.real(np.conj(a) * b)) for a, b in zip(one, other, strict=True))


def parts(data, d):
    return [data.P, data.A, data.b, data.c, d]


def random_like(arrays, rng):
    draws = [rng.normal(size=np.shape(a)) for a in arrays]
    return [
        v + 1j * rng.normal(size=v.shape) if np.iscomplexobj(a) else v
        for v, a in zip(draws, arrays, strict=True)
    ]


@pytest.mark.parametrize("name", CASES)
def test_pull_back_is_the_transpose_of_push_forward(name):
    rng = np.random.default_rng(8)
    item = CASES[name]()
    maps = maps_of(item)
    for first in (1, 3):
        values = stack(item, rng, [first if j % 2 == 0 else 4 - first for j in range(len(item.parameters))])
        tangents = random_like(values, rng)
        forward = parts(*maps.push_forward(values, tangents))
        cotangents = random_like(forward, rng)
        back = maps.pull_back(values, ConeData(*cotangents[:4]), cotangents[4])
        for g, v in zip(back, values, strict=True):
            assert g.shape == v.shape
        np.testing.assert_allclose(inner(cotangents, forward), inner(back, tangents), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_push_forward_is_the_derivative_of_evaluate(name):
    rng = np.random.default_rng(9)
    item = CASES[name]()
    maps = maps_of(item)
    values = stack(item, rng, [2] * len(item.parameters))
    tangents = random_like(values, rng)
    h = 1e-6
    ahead, behind = (
        parts(*maps.evaluate([v + step * t for v, t in zip(values, tangents, strict=True)]))
        for step in (h, -h)
    )
    for one, other, slope in zip(ahead, behind, parts(*maps.push_forward(values, tangents)), strict=True):
        difference = np.broadcast_to((one - other) / (2 * h), np.broadcast_shapes(one.shape, slope.shape))
        np.testing.assert_allclose(difference, np.broadcast_to(slope, difference.shape), atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_recover_cotangent_is_the_transpose_of_recover_tangent(name):
    rng = np.random.default_rng(10)
    maps = maps_of(CASES[name](), objective=False)
    n, m = maps.structure.n, maps.structure.m
    x, dx, y, dy = (
        rng.normal(size=(2, n)),
        rng.normal(size=(2, n)),
        rng.normal(size=(2, m)),
        rng.normal(size=(2, m)),
    )
    forward = maps.recover_tangent(x, y, dx, dy)
    gs = random_like(forward, rng)
    gx, gy, gvalue = maps.recover_cotangent(x, y, gs)
    assert gvalue is None
    np.testing.assert_allclose(inner(gs, forward), inner([gx, gy], [dx, dy]), rtol=1e-10, atol=1e-10)
    h = 1e-6
    ahead, behind = maps.recover(x + h * dx, y + h * dy), maps.recover(x - h * dx, y - h * dy)
    for one, other, slope in zip(ahead, behind, forward, strict=True):
        np.testing.assert_allclose((one - other) / (2 * h), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_maps_survive_as_plain_arrays(name):
    rng = np.random.default_rng(11)
    item = CASES[name]()
    maps = maps_of(item)
    arrays = maps.to_arrays()
    arrays["header"] = json.loads(json.dumps(arrays["header"]))
    again = ProblemMaps.from_arrays(arrays)
    values = stack(item, rng, [2] * len(item.parameters))
    for one, other in zip(parts(*maps.evaluate(values)), parts(*again.evaluate(values)), strict=True):
        np.testing.assert_array_equal(one, other)
    x, y = rng.normal(size=(2, maps.structure.n)), rng.normal(size=(2, maps.structure.m))
    for one, other in zip(maps.recover(x, y, x[:, 0]), again.recover(x, y, x[:, 0]), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(maps.parameters, again.parameters, strict=True):
        assert (one.name, one.shape, one.attributes) == (other.name, other.shape, other.attributes)
    assert again.sense == maps.sense


@pytest.mark.parametrize(
    "name", ["qp_maximise_with_offset", "quad_form_parameter", "sdp", "geometric_program"]
)
def test_the_envelope_theorem_gives_the_derivative_of_the_value(name):
    rng = np.random.default_rng(12)
    item = CASES[name]()
    maps = maps_of(item)
    values = stack(item, rng, [1] * len(item.parameters))
    tangents = [0.1 * v for v in stack(item, rng, [1] * len(item.parameters))]

    def solved(step):
        data, d = maps.evaluate([v + step * t for v, t in zip(values, tangents, strict=True)])
        P = {"P": maps.structure.P.matrix(data.P[0])} if maps.structure.P.nnz else {}
        numbers = {"A": maps.structure.A.matrix(data.A[0]), "b": data.b[0], "c": data.c[0], **P}
        raw = scs.solve(
            numbers, dict(maps.cones), eps_abs=1e-11, eps_rel=1e-11, max_iters=100000, verbose=False
        )
        return data, d, raw["x"][None], raw["y"][None]

    data, d, x, y = solved(0.0)
    change = maps.push_forward(values, tangents)
    slope = maps.value_tangent(data, d, x, y, *change)
    h = 1e-3
    ahead, behind = (maps.value(*(part[k] for k in (0, 1, 2))) for part in (solved(h), solved(-h)))
    np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-4, atol=1e-6)
    g = np.array([0.7])
    gdata, gd = maps.value_cotangent(data, d, x, y, g)
    np.testing.assert_allclose(inner(parts(gdata, gd), parts(*change)), (g * slope).sum(), rtol=1e-10)


def test_case_n_costs_no_more_than_twice_what_cvxpy_costs():
    x, Q = cp.Variable(300), parameter((300, 300))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + cp.sum(x)), [x >= -1])
    Q.value = np.ones((300, 300))
    copies = [cp.Problem(problem.objective, problem.constraints) for _ in range(3)]
    theirs = min(timed(lambda p=p: p.get_problem_data(cp.SCS)) for p in copies)
    ours = min(timed(lambda: canonicalise(problem, [Q], [x])) for _ in range(3))
    # Twice is what is promised; the rest is for the noise of a busy machine.
    assert ours < 4 * theirs + 0.05


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# ---------------------------------------------------------------------- refusals


@pytest.fixture
def simple():
    x, p = cp.Variable(N, name="x"), parameter(N, name="p")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0]), x, p


def test_lists_must_be_the_problems(simple):
    problem, x, p = simple
    with pytest.raises(TypeError, match="must be a cvxpy Problem"):
        canonicalise(problem.objective, [p], [x])
    other = parameter(name="other")
    with pytest.raises(ValueError, match=r"must exactly match problem\.parameters.*missing: p"):
        canonicalise(problem, [], [x])
    with pytest.raises(ValueError, match=r"must exactly match problem\.parameters.*other"):
        canonicalise(problem, [p, other], [x])
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables.*stranger"):
        canonicalise(problem, [p], [cp.Variable(name="stranger")])
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables"):
        canonicalise(problem, [p], [x, "x"])
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables"):
        canonicalise(problem, [p], [(x <= 1).dual_variables[0]])
    with pytest.raises(ValueError, match="must be provided as a list or tuple"):
        canonicalise(problem, p, [x])
    with pytest.raises(ValueError, match="must be provided as a list or tuple"):
        canonicalise(problem, [p], x)
    with pytest.raises(ValueError, match="more than once: p"):
        canonicalise(problem, [p, p], [x])
    with pytest.raises(ValueError, match="more than once: x"):
        canonicalise(problem, [p], [x, x])


def dpp_message(objective, constraints=(), gp=False):
    problem = cp.Problem(objective, list(constraints))
    with pytest.raises(DPPError, match="Problem must be DPP") as caught:
        canonicalise(problem, problem.parameters(), problem.variables(), gp=gp)
    return str(caught.value)


def test_dpp_errors_name_the_place_and_the_way_out():
    x, a, b = cp.Variable(N, name="x"), parameter(name="a"), parameter(pos=True, name="b")
    P = parameter((N, N), PSD=True, name="P")
    message = dpp_message(cp.Minimize(cp.sum(x)), [a * b * x[0] >= 1])
    assert (
        "a * b" in message and "constraint" in message and "Introduce a parameter for the product" in message
    )
    message = dpp_message(cp.Minimize(cp.sum_squares(x) + a * (b * x[0])))
    assert "objective" in message and "both factors hold parameters" in message
    message = dpp_message(cp.Minimize(cp.sum(x)), [x / b >= 1])
    assert "reciprocal of b" in message
    message = dpp_message(cp.Minimize(cp.sum(x)), [x >= 0, cp.quad_form(x, P) <= 1])
    assert "QuadForm(x, P)" in message and "sum_squares(L @ x)" in message
    assert "sum_squares(L @ x)" in dpp_message(cp.Minimize(cp.exp(cp.quad_form(x, P))))
    message = dpp_message(cp.Maximize(cp.sum(x)), [x <= cp.exp(a)])
    assert "combination" in message and "a parameter whose value is exp(a)" in message
    y = cp.Variable(pos=True, name="y")
    assert "Power" in dpp_message(cp.Minimize(y * b**a), [y >= 2], gp=True)


def problem_message(objective, constraints=(), gp=False):
    problem = cp.Problem(objective, list(constraints))
    with pytest.raises(ProblemError) as caught:
        canonicalise(problem, problem.parameters(), problem.variables(), gp=gp)
    assert not isinstance(caught.value, DPPError)
    return str(caught.value)


def test_other_refusals():
    x, y = cp.Variable(N, name="x"), cp.Variable(pos=True, name="y")
    assert "must be DCP" in problem_message(cp.Minimize(-cp.sum_squares(x)))
    assert "Power" in problem_message(cp.Minimize(cp.sum(x)), [cp.sqrt(y) <= 1, x >= 0])
    assert "DQCP" in problem_message(cp.Minimize(cp.ceil(y)), [y >= 0.5])
    assert "gp=True" in problem_message(cp.Minimize(1 / (y * y) + y * y * y), [y >= 0.5])
    assert "must be DGP" in problem_message(cp.Minimize(y - 1), [y >= 0.5], gp=True)
    assert "integer" in problem_message(cp.Minimize(cp.sum(cp.Variable(2, boolean=True))))
    assert "integer" in problem_message(cp.Minimize(cp.sum(cp.Variable(2, integer=True))))
    assert "finite-set" in problem_message(cp.Minimize(y), [cp.FiniteSet(y, [1, 2])])
    assert "no variables" in problem_message(cp.Minimize(parameter()))
    assert "stack" in problem_message(
        cp.Minimize(cp.sum_squares(x[0] - parameter((2, 2, 2), symmetric=True)))
    )
    exponent = cp.Parameter(nonneg=True, value=0.3)  # cvxpy accepts it if it holds a value
    power_cone = cp.PowCone3D(x[0], x[1], x[2], exponent)
    assert "exponent of the power cone" in problem_message(cp.Maximize(x[2]), [power_cone, x <= 1])


def test_the_dual_of_a_complex_cone_that_cvxpy_lacks():
    z, t, p = cp.Variable(2, complex=True), cp.Variable(), parameter(2)
    constraint = cp.SOC(t, z - p)
    problem = cp.Problem(cp.Minimize(t), [constraint])
    canonicalise(problem, [p], [z])
    with pytest.raises(ProblemError, match="does not recover the dual"):
        canonicalise(problem, [p], [constraint.dual_variables[0]])
