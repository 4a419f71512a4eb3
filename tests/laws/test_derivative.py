"""The derivative of the solution map, for every cone, against what it is the derivative of."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from tests.programs import CONES, cotangent, curve, dense, distance, draw, largest

EVERY = pytest.mark.parametrize("name", CONES)
BOTH = pytest.mark.parametrize("with_P", [True, False], ids=["P", "LP"])
METHODS = ("direct", "lsqr", "lsmr", "dense")
PARTS = ("P", "A", "b", "c")


@lru_cache
def known(name, with_P=True, sparse=False, seed=0):
    """A program with these cones and its solution."""
    return draw(np.random.default_rng(seed), CONES[name], with_P, sparse)


@lru_cache
def solution(name, with_P=True):
    """The solution, found by solving."""
    return cd.solve(known(name, with_P).program, tol=1e-12)


def inner(left, right):
    """Inner product of two tuples of arrays."""
    return sum(float((dense(a) * dense(b)).sum()) for a, b in zip(left, right, strict=True))


def on_pattern(program, data):
    """Keep of dP and dA what lies on the program's sparsity."""
    dP, dA, db, dc = data
    return dP * (program.P.toarray() != 0), dA * (program.A.toarray() != 0), db, dc


# The solution itself: known by construction, and what is returned is one.


@EVERY
@BOTH
def test_solving_finds_the_known_solution(name, with_P):
    k, s = known(name, with_P), solution(name, with_P)
    assert s.status == "solved" and s.info["residual"] <= 1e-12
    assert distance((s.x, s.y, s.s), k.solution) < 1e-8


@EVERY
@BOTH
def test_solution_satisfies_the_optimality_conditions(name, with_P):
    p, s = known(name, with_P).program, solution(name, with_P)
    cone, size = p.structure.cone, largest(s.x, s.y, s.s)
    assert np.abs(p.A @ s.x + s.s - p.b).max() < 1e-10 * size
    assert np.abs(p.P @ s.x + p.A.T @ s.y + p.c).max() < 1e-10 * size * max(1, largest(p.A, p.P))
    assert abs(s.y @ s.s) < 1e-10 * size**2
    # y in K*, and s in K by Moreau: -s projects to zero.
    assert np.abs(cone.project_dual(s.y).point - s.y).max() < 1e-7 * size
    assert np.abs(cone.project_dual(-s.s).point).max() < 1e-7 * size


# Forward mode.


@EVERY
@BOTH
def test_forward_mode_follows_a_known_curve(name, with_P):
    k = known(name, with_P)
    tangent = curve(np.random.default_rng(1), k)
    assert distance(k.at_solution(tol=1e-11).derivative().jvp(*tangent.data), tangent.solution) < 1e-7
    assert distance(solution(name, with_P).derivative().jvp(*tangent.data), tangent.solution) < 1e-6


@pytest.mark.parametrize("name", ["mixed", "everything"])
def test_forward_mode_takes_perturbations_off_the_sparsity(name):
    k = known(name, sparse=True)
    assert (k.program.A.toarray() == 0).any()
    tangent = curve(np.random.default_rng(1), k)
    derivative = k.at_solution(tol=1e-11).derivative()
    expected = derivative.jvp(*tangent.data)
    assert distance(expected, tangent.solution) < 1e-7
    as_sparse = [sp.coo_array(tangent.dP), sp.csr_matrix(tangent.dA), tangent.db, tangent.dc]
    assert distance(derivative.jvp(*as_sparse), expected) < 1e-13


@EVERY
@pytest.mark.parametrize("part", PARTS)
def test_both_modes_against_differences_of_tight_solves(name, part):
    k, here = known(name), solution(name)
    p, rng = k.program, np.random.default_rng(2)
    direction = {
        "P": lambda: (lambda L: (L + L.T) / 2)(rng.standard_normal((p.n, p.n))),
        "A": lambda: rng.standard_normal((p.m, p.n)),
        "b": lambda: rng.standard_normal(p.m),
        "c": lambda: rng.standard_normal(p.n),
    }[part]()
    if part == "P":  # stay among the PSD matrices: on the range of P
        w, Q = np.linalg.eigh(p.P.toarray())
        onto = Q[:, w > 1e-9] @ Q[:, w > 1e-9].T
        direction = onto @ direction @ onto
    h = 1e-5 * min(1, np.linalg.eigvalsh(p.P.toarray()).max()) if part == "P" else 1e-5

    def at(t):
        data = {q: getattr(p, q) for q in PARTS}
        data[part] = dense(data[part]) + t * direction
        program = cd.ConeProgram(data["A"], data["b"], data["c"], p.cones, data["P"])
        s = cd.solve(program, tol=1e-13, warm_start=here, on_failure="nan", max_iters=100_000)
        return s.x, s.y, s.s

    expected = tuple((a - b) / (2 * h) for a, b in zip(at(h), at(-h), strict=True))
    forward = here.derivative().jvp(**{"d" + part: direction})
    assert distance(forward, expected) < 2e-5
    g = cotangent(rng, k)
    pulled = dense(getattr(here.derivative().vjp(*g), "d" + part))
    size = largest(*expected) * largest(*g) * p.n
    assert abs((pulled * direction).sum() - inner(g, expected)) < 2e-5 * size


# Reverse mode.


@EVERY
@BOTH
@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_the_modes_are_adjoint(name, with_P, sparse):
    k, rng = known(name, with_P, sparse), np.random.default_rng(3)
    derivative = k.at_solution(tol=1e-11).derivative()
    data = on_pattern(k.program, curve(rng, k).data)
    g = cotangent(rng, k)
    moved, pulled = derivative.jvp(*data), derivative.vjp(*g)
    assert abs(inner(moved, g) - inner(pulled, data)) < 1e-11 * largest(*moved) * largest(*g) * (
        k.program.n + k.program.m
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mixed", "everything", "linear"])
def test_the_modes_of_every_method_are_adjoint(name, method):
    k, rng = known(name, sparse=True), np.random.default_rng(3)
    derivative = k.at_solution(tol=1e-11).derivative(method)
    data, g = on_pattern(k.program, curve(rng, k).data), cotangent(rng, k)
    moved, pulled = derivative.jvp(*data), derivative.vjp(*g)
    assert abs(inner(moved, g) - inner(pulled, data)) < 1e-9 * largest(*moved) * largest(*g) * k.program.m


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_cotangents_keep_the_sparsity_of_the_data(sparse):
    k = known("everything", sparse=sparse)
    g = k.at_solution().derivative().vjp(*cotangent(np.random.default_rng(4), k))
    for mine, theirs in ((g.dP, k.program.P), (g.dA, k.program.A)):
        assert np.array_equal(mine.indptr, theirs.indptr) and np.array_equal(mine.indices, theirs.indices)
    assert abs(g.dP - g.dP.T).max() == 0
    assert g.db.shape == (k.program.m,) and g.dc.shape == (k.program.n,)


def test_a_missing_input_counts_as_zero():
    k = known("mixed")
    derivative = k.at_solution().derivative()
    gx, gy, gs = cotangent(np.random.default_rng(5), k)
    parts = [derivative.vjp(dx=gx), derivative.vjp(dy=gy), derivative.vjp(ds=gs)]
    summed = [sum(dense(part[i]) for part in parts) for i in range(4)]
    assert distance(summed, derivative.vjp(gx, gy, gs)) < 1e-12
    assert largest(*derivative.vjp()) == 0 and largest(*derivative.jvp()) == 0
    p = k.program
    for method in METHODS:
        assert largest(*k.at_solution().derivative(method).vjp(np.zeros(p.n))) == 0


def test_an_asymmetric_dP_counts_by_its_symmetric_part():
    k = known("mixed")
    dP = np.random.default_rng(5).standard_normal((k.program.n,) * 2)
    derivative = k.at_solution().derivative()
    assert distance(derivative.jvp(dP), derivative.jvp((dP + dP.T) / 2)) < 1e-13


@pytest.mark.parametrize(
    "given",
    [{"dx": 1.0}, {"dx": np.ones(2)}, {"dy": np.ones((1, 33))}, {"ds": np.ones(34)}],
    ids=["scalar", "short", "matrix", "long"],
)
def test_cotangents_of_wrong_shape_are_refused(given):
    with pytest.raises(ValueError, match="must have shape"):
        known("mixed").at_solution().derivative().vjp(**given)


@pytest.mark.parametrize(
    "given",
    [{"dP": np.eye(2)}, {"dA": np.ones(3)}, {"dA": np.eye(3)}, {"db": np.ones(2)}, {"dc": [[1.0]]}],
    ids=["P", "A vector", "A", "b", "c"],
)
def test_tangents_of_wrong_shape_are_refused(given):
    with pytest.raises(ValueError, match="must have shape"):
        known("mixed").at_solution().derivative().jvp(**given)


# Methods.


@EVERY
@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_methods_agree(name, with_P, method):
    s, k = solution(name, with_P), known(name, with_P)
    rng = np.random.default_rng(6)
    data, g = curve(rng, k).data, cotangent(rng, k)
    one, other = s.derivative(), s.derivative(method)
    assert distance(other.jvp(*data), one.jvp(*data)) < 1e-8
    assert distance(other.vjp(*g), one.vjp(*g)) < 1e-8


def test_reports_say_how_it_went():
    k = known("mixed")
    g = cotangent(np.random.default_rng(6), k)
    for method in ("lsqr", "lsmr"):
        derivative = k.at_solution().derivative(method)
        derivative.vjp(*g)
        report = derivative.diagnostics.reports[0]
        assert report.converged and report.iterations > 0 and report.reason
    derivative = k.at_solution().derivative()
    derivative.vjp(*g)
    assert derivative.diagnostics.reports == {}


def test_method_is_a_setting_of_the_solve():
    k = known("mixed")
    derivative = k.at_solution(method="lsmr").derivative()
    derivative.vjp(dx=np.ones(k.program.n))
    assert derivative.diagnostics.reports[0].iterations > 0
    with pytest.raises(ValueError, match="unknown method 'qr'"):
        k.at_solution().derivative("qr")


@EVERY
@BOTH
def test_diagnostics_of_a_regular_point(name, with_P):
    d = known(name, with_P).at_solution().derivative().diagnostics
    assert d.differentiable.all() and d.primal_unique.all() and d.dual_unique.all()
    assert 0.5 < d.condition[0] < 1e7 and d.strict_complementarity[0] > 1e-4


# Linearity and scale.


@EVERY
def test_the_derivative_is_linear(name):
    k, rng = known(name), np.random.default_rng(7)
    derivative = solution(name).derivative()
    g, h = cotangent(rng, k), cotangent(rng, k)
    together = derivative.vjp(*(2 * a - 3 * b for a, b in zip(g, h, strict=True)))
    parts = [2 * dense(a) - 3 * dense(b) for a, b in zip(derivative.vjp(*g), derivative.vjp(*h), strict=True)]
    assert distance(together, parts) < 1e-11
    d, e = curve(rng, k).data, curve(rng, k).data
    together = derivative.jvp(*(2 * a - 3 * b for a, b in zip(d, e, strict=True)))
    parts = [2 * a - 3 * b for a, b in zip(derivative.jvp(*d), derivative.jvp(*e), strict=True)]
    assert distance(together, parts) < 1e-11


@pytest.mark.parametrize("method", ("auto", *METHODS))
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-40, 1e-12, 1e-8, 1e8, 1e40, 1e150, 1e300])
def test_the_derivative_is_exact_at_every_scale(scale, method):
    k, rng = known("mixed"), np.random.default_rng(8)
    derivative = solution("mixed").derivative(method)
    g, data = cotangent(rng, k), curve(rng, k).data
    tolerance = 1e-12 if method in ("auto", "direct") else 1e-9
    for apply, given in ((derivative.vjp, g), (derivative.jvp, data)):
        scaled = [dense(part) / scale for part in apply(*(scale * part for part in given))]
        assert distance(scaled, apply(*given)) < tolerance


def test_case_d_scale_of_the_loss():
    """A peer's gradient is exactly zero below 1e-8."""
    k, w = known("soc_8"), np.random.default_rng(9).standard_normal(known("soc_8").program.n)
    derivative = k.at_solution().derivative()
    reference = derivative.vjp(dx=w)
    for exponent in range(13):
        g = derivative.vjp(dx=10.0**-exponent * w)
        assert distance([dense(part) * 10.0**exponent for part in g], reference) < 1e-12


def case_b(N=200, M=100, seed=0):
    """Case B in standard form, with variables v and t >= |v|."""
    rng = np.random.default_rng(seed)
    L, d = rng.standard_normal((N, M)), rng.random(N)
    d[: N // 2] *= 0.1
    d[N // 2 :] *= 10
    P = sp.block_diag([L @ L.T + np.diag(d**2) + 100 * np.eye(N), sp.csc_array((N, N))])
    eye, zero = sp.eye_array(N), sp.csc_array((N, N))
    one = sp.csc_array(np.ones((1, N)))
    A = sp.vstack(
        [
            sp.hstack([sp.csc_array((1, N)), one]),
            sp.hstack([eye, -eye]),
            sp.hstack([-eye, -eye]),
            sp.hstack([eye, zero]),
            sp.hstack([-eye, zero]),
        ]
    )
    b = np.concatenate([[10.0], np.zeros(2 * N), 0.1 * np.ones(2 * N)])
    c = np.concatenate([-5 * rng.standard_normal(N), np.zeros(N)])
    return cd.ConeProgram(A, b, c, {"l": 4 * N + 1}, P)


@pytest.mark.parametrize("seed", range(3))
def test_case_b_is_additive_and_as_the_dense_method(seed):
    """A peer's gradient is 8.8% off, and not additive. Here t is not unique, unless it is needed."""
    N = 200
    rng = np.random.default_rng(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cd.DegeneracyWarning)
        derivative = cd.solve(case_b(seed=seed)).derivative()
        w1, w2 = (np.concatenate([rng.standard_normal(N), np.zeros(N)]) for _ in range(2))
        one, two, both = derivative.vjp(w1), derivative.vjp(w2), derivative.vjp(w1 + w2)
        assert distance([dense(a) + dense(b) for a, b in zip(one, two, strict=True)], both) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_case_b_agrees_with_the_dense_method(seed):
    w = np.concatenate([np.random.default_rng(10).standard_normal(200), np.zeros(200)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cd.DegeneracyWarning)
        solved = cd.solve(case_b(seed=seed))
        expected = solved.derivative("dense").vjp(w)
        assert distance(solved.derivative().vjp(w), expected) < 1e-8


# A frozen program; inputs that stay as they were.


def test_inputs_stay_as_they_were():
    k = known("everything", sparse=True)
    A, b, c, P = k.program.A, k.program.b, k.program.c, k.program.P
    x, y, s = (a.copy() for a in k.solution)
    rng = np.random.default_rng(11)
    g, data = cotangent(rng, k), curve(rng, k).data
    given = [A.data, A.indices, A.indptr, P.data, P.indices, P.indptr, b, c, x, y, s, *g, *data]
    before = [a.copy() for a in given]
    program = cd.ConeProgram(A, b, c, k.program.cones, P)
    for warm in (None, (x, y, s)):
        derivative = cd.solve(program, warm_start=warm).derivative()
        derivative.vjp(*g)
        derivative.jvp(*data)
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_read_only_inputs_are_fine():
    k = known("mixed")
    arrays = [k.program.A.toarray(), k.program.b, k.program.c, k.program.P.toarray()]
    gx = np.ones(k.program.n)
    for array in (*arrays, gx):
        array.setflags(write=False)
    A, b, c, P = arrays
    cd.solve(cd.ConeProgram(A, b, c, k.program.cones, P)).derivative().vjp(dx=gx)


def test_later_mutation_of_the_inputs_changes_nothing():
    k = known("mixed", sparse=True)
    A, b, c, P, cones = k.program.A, k.program.b, k.program.c, k.program.P, k.program.cones
    program = cd.ConeProgram(A, b, c, cones, P)
    solved = cd.solve(program)
    expected = (solved.x.copy(), solved.derivative().vjp(dx=np.ones(program.n)))
    A.data[:] = b[:] = c[:] = P.data[:] = 7
    A.indices[:] = 0
    cones["q"][0] = 99
    again = cd.solve(program)
    assert np.array_equal(again.x, expected[0])
    for derivative in (solved.derivative(), again.derivative()):
        assert distance(derivative.vjp(dx=np.ones(program.n)), expected[1]) < 1e-12


def test_mutation_of_what_the_properties_return_changes_nothing():
    k = known("mixed", sparse=True)
    program = cd.ConeProgram(k.program.A, k.program.b, k.program.c, k.program.cones, k.program.P)
    expected = cd.solve(program).x
    for part in (program.A, program.P):
        part.data[:] = 7
        part.indices[:] = 0
        part.indptr[:] = 0
    program.b[:] = 7
    program.c[:] = 7
    program.cones["q"][0] = 99
    assert np.array_equal(cd.solve(program).x, expected)


def test_mutation_of_cotangents_changes_nothing():
    """What vjp returns is the user's: SciPy's methods in place must not reach the program."""
    k = known("linear", sparse=True)
    program = cd.ConeProgram(k.program.A, k.program.b, k.program.c, k.program.cones, k.program.P)
    derivative = cd.solve(program).derivative()
    expected = derivative.vjp(dx=np.ones(program.n))
    values = [dense(part).copy() for part in expected]
    for part in (expected.dA, expected.dP):
        part.data[::2] = 0
        part.eliminate_zeros()
    expected.db[:] = 0
    expected.dc[:] = 0
    assert distance(derivative.vjp(dx=np.ones(program.n)), values) == 0
    assert distance(cd.solve(program).derivative().vjp(dx=np.ones(program.n)), values) == 0


def test_repeated_calls_are_the_same_bit_for_bit():
    k, g = known("everything"), cotangent(np.random.default_rng(12), known("everything"))
    results = []
    for _ in range(3):
        derivative = cd.solve(k.program).derivative()
        results += [derivative.vjp(*g), derivative.vjp(*g)]
    for other in results[1:]:
        assert distance(other, results[0]) == 0


def test_explicit_zeros_belong_to_the_sparsity():
    """An entry that is zero, but stored, has a derivative."""
    k = known("soc_8")
    A = sp.csc_array(k.program.A)
    A.data[3] = 0
    p = cd.ConeProgram(A, k.program.b, k.program.c, k.program.cones, k.program.P)
    assert p.A.nnz == k.program.A.nnz
    s = cd.solve(p, tol=1e-12)
    w = np.ones(p.n)
    g = s.derivative().vjp(dx=w).dA.data[3]

    def loss(t):
        moved = A.copy()
        moved.data[3] = t
        return cd.solve(cd.ConeProgram(moved, p.b, p.c, p.cones, p.P), tol=1e-12).x @ w

    assert abs(g - (loss(1e-5) - loss(-1e-5)) / 2e-5) < 1e-6 * max(1, abs(g))
