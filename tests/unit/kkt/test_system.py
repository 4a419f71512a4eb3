"""The reduced system: assembled as defined, factorised, refined, told singular from regular."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.cones import PSD, SecondOrder
from conediff.kkt import blocks
from conediff.kkt.ldl import PileSolver, pile_slices
from conediff.kkt.matrix import KKTOperator, KKTPattern
from conediff.kkt.system import REGULARISATION, KKTSystem
from conediff.program import ConeData
from tests.programs import CONES

EXTRA = {
    "none": {},
    "large apart": {"l": 2, "q": [12, 3], "s": [5]},
    "dense sizes": {"q": [20, 12, 20], "s": [5, 5]},
}
KINDS = {**CONES, **EXTRA}
EVERY = pytest.mark.parametrize("name", KINDS)


def stack(name, count=1, n=5, density=0.6, seed=0, with_P=True):
    """A structure, data of a stack, and D there; A has empty rows and columns too."""
    rng = np.random.default_rng(seed)
    cones = KINDS[name]
    m = cd.cones.ProductCone.from_dict(cones).dim
    A = rng.standard_normal((m, n)) * (rng.random((m, n)) < density)
    A[:, 0] = 0
    if m:
        A[m // 2] = 0
    P = rng.standard_normal((n, n)) * (rng.random((n, n)) < density)
    program = cd.ConeProgram(A, np.zeros(m), np.zeros(n), cones, P @ P.T if with_P else None)
    s, d = program.structure, program.data
    data = ConeData(
        d.P * rng.uniform(0.5, 2, (count, 1)),
        rng.standard_normal((count, s.A.nnz)),
        np.zeros((1, m)),
        np.zeros((1, n)),
    )
    derivative = s.cone.project_dual(2 * rng.standard_normal((count, m))).derivative()
    return s, data, derivative


def regular(name, count=1):
    """A stack whose K is regular: P positive definite, and A' injective."""
    rng = np.random.default_rng(0)
    m = cd.cones.ProductCone.from_dict(KINDS[name]).dim
    n = m + 3
    program = cd.ConeProgram(
        rng.standard_normal((m, n)), np.zeros(m), np.zeros(n), KINDS[name], np.eye(n) + np.ones((n, n))
    )
    s = program.structure
    P = rng.uniform(0.5, 2, (count, 1)) * program.data.P
    data = ConeData(P, rng.standard_normal((count, s.A.nnz)), np.zeros((1, m)), np.zeros((1, n)))
    return s, data, s.cone.project_dual(2 * rng.standard_normal((count, m))).derivative()


def reference(s, data, derivative, i):
    """K of program i by its definition, dense."""
    count, m = len(derivative.margin), s.m
    eye = np.broadcast_to(np.eye(m)[:, None], (m, count, m))
    S = np.stack([derivative.apply_root(e) for e in eye], axis=-1)[i] if m else np.zeros((0, 0))
    P, A = s.P.matrix(data.P[i]).toarray(), s.A.matrix(data.A[i]).toarray()
    return np.block([[P, A.T @ S], [S @ A, S @ S - np.eye(m)]])


@EVERY
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("dense_dim", [0, 12, 1000], ids=["dense product", "as it is", "sparse product"])
def test_values_assemble_the_definition(name, density, dense_dim, monkeypatch):
    monkeypatch.setattr(blocks, "DENSE_DIM", dense_dim)
    s, data, derivative = stack(name, 3, density=density)
    pattern = KKTPattern(s)
    values = pattern.values(data, derivative)
    for i in range(3):
        upper = sp.csc_array(
            (values[i], pattern.indices, pattern.indptr), shape=(pattern.size,) * 2
        ).toarray()
        assert np.array_equal(upper, np.triu(upper))
        np.testing.assert_allclose(upper, np.triu(reference(s, data, derivative, i)), atol=1e-13)


@EVERY
def test_the_operator_applies_the_definition(name):
    s, data, derivative = stack(name, 3)
    z = np.random.default_rng(1).standard_normal((3, s.n + s.m))
    applied = KKTOperator(s, data, derivative).apply(z)
    for i in range(3):
        np.testing.assert_allclose(applied[i], reference(s, data, derivative, i) @ z[i], atol=1e-12)


@EVERY
def test_pattern_is_sorted_and_holds_the_diagonal(name):
    pattern = KKTPattern(stack(name)[0])
    columns = np.repeat(np.arange(pattern.size), np.diff(pattern.indptr))
    keys = columns.astype(np.int64) * pattern.size + pattern.indices
    assert (np.diff(keys) > 0).all() and (pattern.indices <= columns).all()
    np.testing.assert_array_equal(pattern.indices[pattern.diagonal_at], np.arange(pattern.size))
    np.testing.assert_array_equal(columns[pattern.diagonal_at], np.arange(pattern.size))


def test_shared_data_serve_the_whole_stack():
    s, data, derivative = stack("mixed", 3)
    one = ConeData(data.P[:1], data.A[:1], data.b, data.c)
    same = ConeData(np.repeat(data.P[:1], 3, 0), np.repeat(data.A[:1], 3, 0), data.b, data.c)
    pattern = KKTPattern(s)
    np.testing.assert_array_equal(pattern.values(one, derivative), pattern.values(same, derivative))
    z = np.random.default_rng(1).standard_normal((3, s.n + s.m))
    apply = KKTOperator(s, one, derivative).apply(z), KKTOperator(s, same, derivative).apply(z)
    np.testing.assert_allclose(*apply, atol=1e-12)


@EVERY
@pytest.mark.parametrize("count", [1, 2, 3, 5, 70])
def test_solve_leaves_no_residual(name, count):
    s, data, derivative = regular(name, count)
    rhs = np.random.default_rng(2).standard_normal((count, s.n + s.m))
    z, error = KKTSystem(s).factor(data, derivative).solve(rhs)
    assert z.shape == rhs.shape and error.shape == (count,)
    assert (error < 1e-11).all()
    left = rhs - KKTOperator(s, data, derivative).apply(z)
    assert np.linalg.norm(left, axis=1) == pytest.approx(error * np.linalg.norm(rhs, axis=1), abs=1e-13)


def test_rhs_of_zero_and_an_empty_stack():
    s, data, derivative = stack("mixed", 2)
    z, error = KKTSystem(s).factor(data, derivative).solve(np.zeros((2, s.n + s.m)))
    assert not z.any() and not error.any()
    empty = s.cone.project_dual(np.zeros((0, s.m))).derivative()
    for part in (data.take(np.zeros(0, dtype=int)), ConeData(data.P[:1], data.A[:1], data.b, data.c)):
        factor = KKTSystem(s).factor(part, empty)
        assert factor.solve(np.zeros((0, s.n + s.m)))[0].shape == (0, s.n + s.m)
        assert factor.smallest_singular_value()[0].shape == (0,)


def linear(A, P=None, scale=1.0):
    """Factor of K for equality constraints, where S = D = I: K = [[P, A'], [A, 0]]."""
    A = np.atleast_2d(A)
    m, n = A.shape
    program = cd.ConeProgram(A * scale, np.zeros(m), np.zeros(n), {"z": m}, P)
    s = program.structure
    return KKTSystem(s).factor(program.data, s.cone.project_dual(np.zeros((1, m))).derivative())


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("seed", range(5))
def test_smallest_singular_value(smallest, seed):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    A = U @ np.diag([1, 1, 1, 1, 1, smallest]) @ V.T
    value, vector = linear(A).checked()[1:]
    assert smallest / 3 < value[0] < 20 * smallest
    assert np.linalg.norm(vector[0]) == pytest.approx(1)
    if smallest <= 1e-5:
        K = np.block([[np.zeros((6, 6)), A.T], [A, np.zeros((6, 6))]])
        assert np.linalg.norm(K @ vector[0]) < 10 * smallest


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_a_singular_matrix_is_recognised_in_any_units(scale, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((4, 5))
    A[3] = A[0] - 2 * A[2]
    value, vector = linear(A, P=np.eye(5), scale=scale).checked()[1:]
    assert value[0] < 1e-11
    np.testing.assert_allclose(vector[0, :5], 0, atol=1e-5)
    null = np.array([1, 0, -2, -1]) / np.sqrt(6)
    assert abs(vector[0, 5:] @ null) == pytest.approx(1, abs=1e-6)
    assert linear(A[:3], P=np.eye(5), scale=scale).checked()[1][0] > 1e-8


class Worthless:
    """What rounding makes of a factor in which a pivot vanished; more regularisation makes it a good one."""

    def __init__(self, good):
        self.good = good

    def solve(self, rhs):
        return 1e30 * np.random.default_rng(9).standard_normal(rhs.shape)

    def with_increased_regularisation(self, shift):
        return self.good


def test_a_worthless_factorisation_does_not_hide_that_k_is_singular():
    """More steps of inverse iteration with such a factor show a random vector, not one of K."""
    A = np.random.default_rng(8).standard_normal((4, 5))
    A[3] = A[0] - 2 * A[2]
    good = linear(A, P=np.eye(5))
    wrong = Worthless(good.factorisation.ldl)
    spoilt = replace(good, factorisation=replace(good.factorisation, ldl=wrong))
    checked, value, vector = spoilt.checked()
    assert checked.factorisation.ldl is good.factorisation.ldl and value[0] < 1e-11
    null = np.array([1, 0, -2, -1]) / np.sqrt(6)
    assert abs(vector[0, 5:] @ null) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_pivots_as_small_as_the_regularisation(seed):
    """Without P, pivots of 1e-9 cancel: one that vanished or flipped has to be seen."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    kkt = None
    for _ in range(3):
        A = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.7) + np.eye(n)
        if np.linalg.cond(A) > 1e3:
            continue
        program = cd.ConeProgram(np.where(A == 0, 1e-300, A), np.zeros(n), np.zeros(n), {"z": n})
        s = program.structure
        kkt = kkt or KKTSystem(s)
        factor = kkt.factor(program.data, s.cone.project_dual(np.zeros((1, n))).derivative())
        assert factor.solve(rng.standard_normal((1, 2 * n)))[1][0] < 1e-11
        assert factor.checked()[1][0] > 1e-6


def heights(norm, eig_orthogonal):
    """v0 of a second-order cone such that D has this eigenvalue orthogonal to the axis."""
    return (2 * eig_orthogonal - 1) * norm


@pytest.mark.parametrize("eig_orthogonal", [1e-12, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-12])
@pytest.mark.parametrize("rank", [240, 60], ids=["P regular", "P singular"])
def test_large_second_order_cones_by_low_rank(eig_orthogonal, rank):
    """One at each place: between, inside, outside; against K by its definition."""
    rng = np.random.default_rng(30)
    n, cones = 240, {"z": 2, "q": [110, 4, 120, 130, 110]}
    m = 2 + sum(cones["q"])
    root = rng.standard_normal((n, rank))
    program = cd.ConeProgram(rng.standard_normal((m, n)), np.zeros(m), np.zeros(n), cones, root @ root.T)
    s, v = program.structure, rng.standard_normal((3, m))
    for first, dim in ((2, 110), (116, 120), (236, 130)):
        norm = np.linalg.norm(v[:, first + 1 : first + dim], axis=1)
        v[:, first] = heights(norm, {116: 1.5, 236: -0.5}.get(first, eig_orthogonal))
    v[1, 2:112] = 0  # where the direction has no meaning
    v[1, 2] = 1
    derivative = s.cone.project_dual(v).derivative()
    factor = KKTSystem(s).factor(program.data, derivative)
    assert factor._low_rank is not None
    rhs = rng.standard_normal((3, s.n + s.m))
    z, error = factor.solve(rhs)
    assert error.max() < 1e-10
    for i in range(3):
        K = reference(
            s, ConeData(*(np.repeat(a, 3, axis=0) for a in vars(program.data).values())), derivative, i
        )
        assert np.linalg.norm(K @ z[i] - rhs[i]) < 1e-9 * np.linalg.norm(rhs[i])
    if rank == n and 1e-6 < eig_orthogonal < 1 - 1e-6:
        assert factor._low_rank is not None  # and it was enough


def test_gmres_takes_over_where_low_rank_falls_short():
    s, data, derivative = large_stack()
    rhs = np.random.default_rng(31).standard_normal((2, s.n + s.m))
    good, spoilt = KKTSystem(s).factor(data, derivative), KKTSystem(s).factor(data, derivative)
    spoilt._low_rank._G[:] = np.eye(spoilt._low_rank._G.shape[-1])
    found = spoilt.solve(rhs)
    np.testing.assert_allclose(found[0], good.solve(rhs)[0], rtol=1e-6, atol=1e-8)
    assert found[1].max() < 1e-10
    singular = KKTSystem(s).factor(data, derivative)
    singular._low_rank._G[:] = 0
    np.testing.assert_allclose(
        singular.smallest_singular_value()[0], good.smallest_singular_value()[0], rtol=1e-2
    )


def test_a_factor_that_is_dropped_gives_its_solvers_back_at_once():
    s, data, derivative = large_stack()
    kkt = KKTSystem(s)
    gc.disable()
    try:
        factor = kkt.factor(data, derivative)
        factor.solve(np.ones((2, s.n + s.m)))
        assert factor._low_rank is not None and not any(kkt.solvers._free.values())
        del factor
        assert any(kkt.solvers._free.values())
    finally:
        gc.enable()


def large_stack():
    rng = np.random.default_rng(32)
    cones = {"q": [150, 120]}
    program = cd.ConeProgram(
        rng.standard_normal((270, 40)), np.zeros(270), np.zeros(40), cones, np.eye(40) + np.ones((40, 40))
    )
    s = program.structure
    data = ConeData(program.data.P, rng.standard_normal((2, s.A.nnz)), program.data.b, program.data.c)
    return s, data, s.cone.project_dual(rng.standard_normal((2, 270))).derivative()


def test_many_large_cones_and_others_are_left_to_gmres(monkeypatch):
    s, data, derivative = large_stack()
    rhs = np.random.default_rng(33).standard_normal((2, s.n + s.m))
    expected = KKTSystem(s).factor(data, derivative).solve(rhs)[0]
    monkeypatch.setattr("conediff.kkt.low_rank.LOW_RANK_COLUMNS", 7)
    factor = KKTSystem(s).factor(data, derivative)
    assert factor._low_rank is None
    np.testing.assert_allclose(factor.solve(rhs)[0], expected, rtol=1e-7, atol=1e-9)
    monkeypatch.setattr(PSD, "dense_limit", 5)
    program = cd.ConeProgram(np.eye(126), np.zeros(126), np.zeros(126), {"q": [120], "s": [3]}, np.eye(126))
    s = program.structure
    factor = KKTSystem(s).factor(program.data, s.cone.project_dual(np.ones((1, 126))).derivative())
    assert factor._low_rank is None
    rhs = np.random.default_rng(34).standard_normal((1, 252))
    assert factor.solve(rhs)[1].max() < 1e-11


def test_a_pivot_that_vanishes_is_seen_also_when_updating():
    pattern = KKTPattern(cd.ConeProgram(np.eye(1), [0], [0], {"z": 1}).structure)
    solver = PileSolver(pattern, 1)
    good, bad = np.array([1.0, 0.5, -1.0]), np.array([0.0, 0.5, -1.0])
    assert not solver.has_expected_inertia
    solver.factor(good)
    assert solver.has_expected_inertia and np.isfinite(solver.solve(np.ones(2))).all()
    for wrong in (bad * [1, 0, 1], np.array([-1.0, 0.5, -1.0]), np.array([1.0, 0.5, 1.0])):
        solver.factor(wrong)
        assert not solver.has_expected_inertia
    solver.factor(good)
    np.testing.assert_allclose(np.array([[1, 0.5], [0.5, -1]]) @ solver.solve(np.ones(2)), 1)
    first = PileSolver(pattern, 1)
    first.factor(bad * [1, 0, 1])
    assert not first.has_expected_inertia and np.isnan(first.solve(np.ones(2))).all()


def solvers_of(factor):
    return {id(pile.solver) for _, pile in factor.factorisation.ldl._piles}


def test_solvers_are_reused_and_do_not_mix():
    s, data, derivative = regular("mixed", 3)
    kkt = KKTSystem(s)
    rhs = np.random.default_rng(3).standard_normal((3, s.n + s.m))
    first = kkt.factor(data, derivative)
    expected = first.solve(rhs)[0]
    other = kkt.factor(ConeData(2 * data.P, data.A, data.b, data.c), derivative)
    other.solve(rhs)
    np.testing.assert_array_equal(first.solve(rhs)[0], expected)
    before = solvers_of(first)
    del first
    again = kkt.factor(data, derivative)
    assert solvers_of(again) == before
    np.testing.assert_array_equal(again.solve(rhs)[0], expected)


@pytest.mark.parametrize(
    "total, size", [(0, 10), (1, 10), (63, 10), (64, 10), (65, 10), (7, 5000), (5, 500), (200, 31)]
)
def test_piles_cover_the_stack_in_powers_of_two(total, size):
    found = pile_slices(total, size)
    assert [i for part, _ in found for i in range(part.start, part.stop)] == list(range(total))
    for part, count in found:
        assert count & (count - 1) == 0 and part.stop - part.start <= count <= 64
        assert count == 1 or count * size <= 2048


def test_stronger_regularisation_is_that_of_the_scaled_matrix():
    s, data, derivative = regular("linear", 2)
    rhs = np.random.default_rng(4).standard_normal((2, s.n + s.m))
    weak = KKTSystem(s).factor(data, derivative).solve_regularised(rhs)
    both = KKTSystem(s).factor(data, derivative, np.array([REGULARISATION, 1e-1])).solve_regularised(rhs)
    np.testing.assert_allclose(both[0], weak[0], rtol=1e-6)
    assert np.linalg.norm(both[1] - weak[1]) > 1e-3 * np.linalg.norm(weak[1])
    factor = KKTSystem(s).factor(data, derivative, np.array([REGULARISATION, 1e-1]))
    K = reference(s, data, derivative, 1) + np.diag(factor.factorisation.shift[1])
    np.testing.assert_allclose(K @ both[1], rhs[1], atol=1e-9)
    assert (factor.factorisation.shift[1] * KKTPattern(s).sign > 0).all()


@pytest.mark.parametrize("name", ["none", "mixed"])
def test_one_variable(name):
    s, data, derivative = stack(name, 2, n=1, density=1.0)
    data = ConeData(data.P + 1 if s.P.nnz else data.P, data.A, data.b, data.c)
    pattern = KKTPattern(s)
    assert pattern.size == 1 + s.m
    values = pattern.values(data, derivative)
    assert values.shape == (2, pattern.nnz)


def test_large_cones_are_not_filled_and_yet_solved(monkeypatch):
    s, data, derivative = regular("dense sizes", 2)
    rhs = np.random.default_rng(5).standard_normal((2, s.n + s.m))
    filled = KKTPattern(s)
    expected, _ = KKTSystem(s).factor(data, derivative).solve(rhs)
    monkeypatch.setattr(PSD, "dense_limit", 14)
    monkeypatch.setattr(SecondOrder, "dense_limit", 14)
    pattern = KKTPattern(s)
    assert not pattern.exact and pattern.nnz < filled.nnz
    z, error = KKTSystem(s).factor(data, derivative).solve(rhs)
    assert (error < 1e-10).all()
    np.testing.assert_allclose(z, expected, atol=1e-7 * np.abs(expected).max())
