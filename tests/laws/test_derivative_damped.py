"""Least squares on M where K is singular: one factorisation, the answer of least norm, adjoint to itself."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import qdldl
import scipy.sparse as sp

import conediff as cd
from conediff.derivative import linearised_kkt
from conediff.kkt import damped, embedding
from tests.laws.test_solver import PROBLEMS, maros_meszaros
from tests.programs import distance

NETLIB = sorted((Path(__file__).resolve().parents[3] / "shared" / "data" / "netlib").glob("*.mps"))


def linear_program(path):
    """minimise c'x subject to rows and bounds, of an MPS file that HiGHS reads."""
    highspy = pytest.importorskip("highspy")
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.readModel(str(path))
    lp = model.getLp()
    a, shape = lp.a_matrix_, (lp.num_row_, lp.num_col_)
    A = sp.csc_array((np.array(a.value_), np.array(a.index_), np.array(a.start_)), shape=shape)
    rows = sp.csr_array(sp.vstack([A, sp.eye_array(shape[1])]))
    lower = np.r_[lp.row_lower_, lp.col_lower_]
    upper = np.r_[lp.row_upper_, lp.col_upper_]
    equal = np.flatnonzero(lower == upper)
    above = np.flatnonzero((upper < 1e19) & (lower != upper))
    below = np.flatnonzero((lower > -1e19) & (lower != upper))
    b = np.r_[upper[equal], upper[above], -lower[below]]
    cones = {"z": equal.size, "l": above.size + below.size}
    matrix = sp.vstack([rows[equal], rows[above], -rows[below]])
    return cd.ConeProgram(matrix, b, np.array(lp.col_cost_), cones)


def second_order(rng, rows, columns=20):
    """minimise |Bx - d| subject to a redundant equality; one cone of so many rows."""
    B, equality = rng.standard_normal((rows - 1, columns)), rng.standard_normal((2, columns))
    equality = np.vstack([equality, equality.sum(axis=0)])
    A = np.block([[np.zeros((3, 1)), equality], [-np.ones((1, 1)), np.zeros((1, columns))],
                  [np.zeros((rows - 1, 1)), -B]])  # fmt: skip
    b = np.r_[equality @ np.ones(columns), 0, -rng.standard_normal(rows - 1)]
    return cd.ConeProgram(A, b, np.r_[1.0, np.zeros(columns)], {"z": 3, "q": [rows]})


def redundant(rng, n=12, scale=0.0):
    """A quadratic program with a redundant equality, its rows and columns in units up to 10^scale apart."""
    A = rng.standard_normal((3, n))
    A = np.vstack([A, A[0] + A[1], -np.eye(n)])
    A *= 10.0 ** rng.uniform(-scale, scale, (A.shape[0], 1))
    b = A @ np.ones(n)
    b[4:] += rng.random(n)
    return cd.ConeProgram(A, b, rng.standard_normal(n), {"z": 4, "l": n}, np.eye(n))


def answers(derivative, seed=5):
    """(t, jvp(t), g, vjp(g)) for random t and g; dA on the sparsity of A."""
    stack, rng = derivative._stack, np.random.default_rng(seed)
    n, m = stack.structure.n, stack.structure.m
    g = rng.standard_normal(n), rng.standard_normal(m), rng.standard_normal(m)
    dA = stack.structure.A.matrix(stack._data.A[0] * rng.standard_normal(stack.structure.A.nnz))
    t = dA, rng.standard_normal(m), rng.standard_normal(n)
    moved = derivative.jvp(dA=dA, db=t[1], dc=t[2])
    return t, moved, g, derivative.vjp(*g)


def adjoint_error(t, moved, g, pulled):
    """|<jvp(t), g> - <t, vjp(g)>| relative to either."""
    left = sum(a @ b for a, b in zip(moved, g, strict=True))
    right = (t[0].multiply(pulled.dA)).sum() + t[1] @ pulled.db + t[2] @ pulled.dc
    return abs(left - right) / max(abs(left), abs(right))


def with_warnings(action):
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        result = action()
    return result, {w.category for w in record}


@pytest.fixture
def by_M(monkeypatch):
    """No null vector of K is split off: M is factorised instead, as where there are too many."""
    monkeypatch.setattr(linearised_kkt, "DEFLATION_WORK", 0)
    monkeypatch.setattr(linearised_kkt, "DEFLATION_LEAST", 0)


PROGRAMS = {
    "well scaled": lambda rng: redundant(rng),
    "badly scaled": lambda rng: redundant(rng, scale=3.0),
    "second-order cone": lambda rng: second_order(rng, 40),
    "large second-order cone": lambda rng: second_order(rng, 300),
}


@pytest.mark.parametrize("way", ["K", "M"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_answer_is_the_dense_one_and_its_own_adjoint(name, way, request):
    if way == "M":
        request.getfixturevalue("by_M")
    solution = cd.solve(PROGRAMS[name](np.random.default_rng(7)))
    derivative = solution.derivative()
    found, told = with_warnings(lambda: answers(derivative))
    assert told == {cd.DegeneracyWarning}
    assert adjoint_error(*found) <= 1e-8
    report = derivative.diagnostics.reports[0]
    assert report.converged and report.iterations <= 300
    assert ("conjugate gradients" in report.reason) == (way == "M")
    expected, _ = with_warnings(lambda: answers(solution.derivative("dense")))
    assert distance(found[1], expected[1]) < 1e-7
    for part in ("dA", "db", "dc"):
        mine, other = getattr(found[3], part), getattr(expected[3], part)
        mine, other = (p.toarray() if sp.issparse(p) else p for p in (mine, other))
        assert np.abs(mine - other).max() <= 1e-7 * np.abs(other).max()


def test_one_factorisation_serves_all_calls_and_each_gives_the_same_bits(monkeypatch, by_M):
    made = []

    class Counted(embedding.DampedFactor):
        def __init__(self, matrix, damping):
            made.append(matrix.shape)
            super().__init__(matrix, damping)

    monkeypatch.setattr(embedding, "DampedFactor", Counted)
    solution = cd.solve(redundant(np.random.default_rng(7)))
    derivative = solution.derivative()
    (first, again), _ = with_warnings(lambda: (answers(derivative), answers(derivative)))
    assert len(made) == 1
    backwards = solution.derivative()
    pulled, _ = with_warnings(lambda: backwards.vjp(*first[2]))
    for other in (again[3], pulled):
        np.testing.assert_array_equal(first[3].dA.toarray(), other.dA.toarray())
        np.testing.assert_array_equal(first[3].db, other.db)
    for a, b in zip(first[1], again[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limit", ["DAMPED_FILL", "CG_ITERATIONS"])
def test_without_a_factorisation_lsqr_answers_or_the_user_is_told(monkeypatch, limit, by_M):
    """M too large to factorise, or no step of conjugate gradients: a bounded number of LSQR's."""
    monkeypatch.setattr(f"conediff.kkt.{'embedding' if limit == 'DAMPED_FILL' else 'damped'}.{limit}", 0)
    monkeypatch.setattr(embedding, "LSQR_WORK", 0)
    solution = cd.solve(second_order(np.random.default_rng(7), 60))
    derivative = solution.derivative()
    found, told = with_warnings(lambda: answers(derivative))
    report = derivative.diagnostics.reports[0]
    assert report.iterations <= embedding.LEAST_ITERATIONS
    if cd.AccuracyWarning not in told:
        assert adjoint_error(*found) <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("path", PROBLEMS + NETLIB, ids=[path.stem for path in PROBLEMS + NETLIB])
def test_real_problems_have_derivatives_that_are_adjoint_and_fast(path):
    """Maros and Mészáros's quadratic and netlib's linear programs, half of them degenerate."""
    try:
        program = maros_meszaros(path) if path.suffix == ".mat" else linear_program(path)
        start = time.perf_counter()
        solution = cd.solve(program)
    except (cd.SolverError, cd.ProblemError) as error:
        pytest.skip(f"no solution: {error}")
    solve_time = time.perf_counter() - start
    derivative = solution.derivative()
    start = time.perf_counter()
    found, told = with_warnings(lambda: answers(derivative))
    assert time.perf_counter() - start <= 2 * (solve_time + 1)
    assert adjoint_error(*found) <= 1e-8
    for report in derivative.diagnostics.reports.values():
        assert report.converged or cd.AccuracyWarning in told


@pytest.mark.parametrize("shape", ["sparse", "dense columns", "dense rows", "dense"])
def test_the_size_of_a_factor_is_predicted_before_it_is_made(shape):
    """Never far below what QDLDL makes; far enough above it only where nothing is large."""
    rng = np.random.default_rng(3)
    n = 600
    A = sp.random_array((n, n), density=3 / n, rng=rng, format="lil")
    if "dense" in shape:
        A = A.toarray()
        count = n if shape == "dense" else 5
        if shape == "dense rows":
            A[:count] = rng.standard_normal((count, n))
        else:
            A[:, :count] = rng.standard_normal((n, count))
    matrix = sp.csc_array(A)
    damped.DampedFactor(matrix, 1e-6)
    identity = sp.eye_array(n)
    system = sp.block_array([[identity, matrix.T], [None, -identity]], format="csc")
    made = qdldl.Solver(system, upper=True).factors()[0].nnz
    predicted = damped.predicted_fill(matrix)
    assert made / 4 <= predicted <= max(30 * made, 1e5)
