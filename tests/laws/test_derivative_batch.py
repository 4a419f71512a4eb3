"""Batches: each element as if alone; the neighbours, the pile and the threads do not matter."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import lru_cache

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.cones import ProductCone
from conediff.derivative.kkt_derivative import KKTDerivative
from conediff.kkt.system import KKTSystem
from conediff.program import ConeData, Point, Products
from conediff.solver import constants
from conediff.solver.batch_solver import BatchSolver
from tests.programs import (
    CONES,
    conditioning,
    dense,
    distance,
    draw,
    program,
    quadratic,
    random_cones,
    sizes,
)

KINDS = [
    "linear",
    "box",
    "soc_mixed",
    "psd_3",
    "complex_psd_2",
    "exponential",
    "power",
    "mixed",
    "everything",
]
EVERY = pytest.mark.parametrize("name", KINDS)


@lru_cache
def family(name, count, sparse=False):
    """Programs of one structure with different data; nearby solutions in the same faces or not."""
    rng = np.random.default_rng(20)
    first = draw(rng, CONES[name], True, sparse)
    m, n, cone = first.program.m, first.program.n, first.program.structure.cone
    pattern, rank = first.program.A.toarray() != 0, np.linalg.matrix_rank(first.program.P.toarray())
    found = [first]
    while len(found) < count:
        v = 2 * rng.standard_normal(m)
        least, most = sizes(cone, v, rank)
        if cone.project_dual(v).derivative().margin < 1e-2 or not least <= n <= most:
            continue
        A = rng.standard_normal((m, n)) * pattern
        P = quadratic(rng, n, rank) if not sparse else first.program.P.toarray() * (1 + rng.random())
        known = program(v, rng.standard_normal(n), A, P, CONES[name])
        if conditioning(known, cone, A, P) < 1e4:
            found.append(known)
    return tuple(found)


def stacked(knowns):
    """P, A, b, c as solve_batch takes them, for programs without zeros."""
    programs = [k.program for k in knowns]
    return {
        "P": np.stack([p.P.toarray().T.ravel() for p in programs]),
        "A": np.stack([p.A.toarray().T.ravel() for p in programs]),
        "b": np.stack([p.b for p in programs]),
        "c": np.stack([p.c for p in programs]),
    }


def cotangents(p, count, seed=21):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((count, p.n)),
        rng.standard_normal((count, p.m)),
        rng.standard_normal((count, p.m)),
    )


@EVERY
def test_a_batch_is_its_elements_one_by_one(name):
    knowns = family(name, 5)
    programs = [k.program for k in knowns]
    batch = cd.solve_batch(programs)
    g = cotangents(programs[0], 5)
    pulled, data = batch.derivative().vjp(*g), cotangents(programs[0], 5)
    moved = batch.derivative().jvp(db=data[1], dc=data[0])
    assert len(batch) == 5 and not batch.failed.any()
    for i, (k, solution) in enumerate(zip(knowns, batch, strict=True)):
        alone = cd.solve(k.program)
        assert distance((batch.x[i], batch.y[i], batch.s[i]), k.solution) < 1e-6
        assert distance((batch.x[i], batch.y[i], batch.s[i]), (alone.x, alone.y, alone.s)) < 1e-6
        # At the same point, the derivative is the same.
        mine = solution.derivative().vjp(*(part[i] for part in g))
        on_pattern = (mine.dP.toarray().T.ravel(), mine.dA.toarray().T.ravel(), mine.db, mine.dc)
        assert distance((pulled.dP[i], pulled.dA[i], pulled.db[i], pulled.dc[i]), on_pattern) < 1e-9
        expected = solution.derivative().jvp(db=data[1][i], dc=data[0][i])
        assert distance([part[i] for part in moved], expected) < 1e-9


@EVERY
def test_stacked_arrays_are_the_sequence_of_programs(name):
    knowns = family(name, 5)
    one = cd.solve_batch([k.program for k in knowns])
    other = cd.solve_batch(knowns[0].program, **stacked(knowns))
    assert distance((one.x, one.y, one.s), (other.x, other.y, other.s)) == 0


@pytest.mark.parametrize("name", ["mixed", "linear"])
def test_what_is_not_given_is_shared(name):
    k = family(name, 5)[0]
    rng = np.random.default_rng(22)
    b = k.program.b + 1e-2 * rng.standard_normal((4, k.program.m))
    batch = cd.solve_batch(k.program, b=b)
    g = cotangents(k.program, 4)
    pulled = batch.derivative().vjp(*g)
    for i in range(4):
        p = cd.ConeProgram(k.program.A, b[i], k.program.c, k.program.cones, k.program.P)
        alone = cd.solve(p)
        assert distance((batch.x[i], batch.y[i], batch.s[i]), (alone.x, alone.y, alone.s)) < 1e-7
        mine = cd.solve(p).derivative().vjp(*(part[i] for part in g))
        on_pattern = (mine.dP.toarray().T.ravel(), mine.dA.toarray().T.ravel(), mine.db, mine.dc)
        assert distance((pulled.dP[i], pulled.dA[i], pulled.db[i], pulled.dc[i]), on_pattern) < 1e-6


def test_programs_of_different_sparsity_share_the_union():
    rng = np.random.default_rng(23)
    programs = []
    for _ in range(4):
        A = rng.standard_normal((6, 4)) * (rng.random((6, 4)) < 0.6)
        P = np.diag(1 + rng.random(4))
        P[0, 1] = P[1, 0] = 0.3 * (rng.random() < 0.5)
        programs.append(cd.ConeProgram(A, 1 + rng.random(6), rng.standard_normal(4), {"l": 6}, P))
    batch = cd.solve_batch(programs)
    gx = rng.standard_normal((4, 4))
    pulled = batch.derivative().vjp(dx=gx)
    union = batch._batch.solver.structure
    for i, p in enumerate(programs):
        alone = cd.solve(p)
        assert distance([batch.x[i]], [alone.x]) < 1e-9
        mine = alone.derivative().vjp(dx=gx[i])
        for values, pattern, theirs in ((pulled.dA[i], union.A, mine.dA), (pulled.dP[i], union.P, mine.dP)):
            full = pattern.matrix(values).toarray()
            shared = theirs.toarray() != 0
            np.testing.assert_allclose(full[shared], theirs.toarray()[shared], rtol=1e-6, atol=1e-9)


def test_batched_jvp_and_vjp_are_adjoint():
    knowns = family("everything", 5)
    programs = [k.program for k in knowns]
    derivative = cd.solve_batch(programs).derivative()
    rng = np.random.default_rng(24)
    n, m = programs[0].n, programs[0].m
    dP = rng.standard_normal((5, n, n))
    data = (
        (dP + dP.transpose(0, 2, 1)).reshape(5, -1),
        rng.standard_normal((5, m * n)),
        *cotangents(programs[0], 5)[1::-1],
    )
    g = cotangents(programs[0], 5, 25)
    moved, pulled = derivative.jvp(*data), derivative.vjp(*g)
    left = sum((a * b).sum(axis=1) for a, b in zip(moved, g, strict=True))
    right = sum((a * b).sum(axis=1) for a, b in zip(pulled, data, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 * np.abs(left).max())


def results(knowns, threads):
    programs = [k.program for k in knowns]
    batch = cd.solve_batch(programs, threads=threads)
    return batch.x, batch.y, batch.s, *batch.derivative().vjp(*cotangents(programs[0], len(programs)))


@pytest.mark.parametrize("name", ["linear", "everything", "mixed"])
def test_threads_do_not_matter_bit_for_bit(name):
    knowns = family(name, 7) * 12
    one = results(knowns, 1)
    for threads in (2, 3):
        for a, b in zip(results(knowns, threads), one, strict=True):
            np.testing.assert_array_equal(a, b)


@EVERY
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_neighbours_do_not_matter_to_the_derivative(name, count):
    """Each element's derivative at its own, known solution: the pile is not seen."""
    knowns = family(name, 5)
    programs = [k.program for k in knowns]
    start = tuple(np.stack(parts) for parts in zip(*(k.solution for k in knowns), strict=True))
    g = cotangents(programs[0], 5)
    full = cd.solve_batch(programs, warm_start=start).derivative().vjp(*g)
    some = cd.solve_batch(programs[:count], warm_start=tuple(a[:count] for a in start)).derivative()
    part = some.vjp(*(a[:count] for a in g))
    assert distance(part, [a[:count] for a in full]) < 1e-9


@EVERY
def test_neighbours_do_not_matter_to_the_solution(name):
    knowns = family(name, 5)
    programs = [k.program for k in knowns]
    full = cd.solve_batch(programs, tol=1e-13, on_failure="nan")
    for some in ([0], [0, 1], [2, 0, 1], [4, 3, 2, 1, 0] * 3):
        part = cd.solve_batch([programs[i] for i in some], tol=1e-13, on_failure="nan")
        for row, i in enumerate(some):
            mine = (part.x[row], part.y[row], part.s[row])
            assert distance(mine, (full.x[i], full.y[i], full.s[i])) < 1e-9


def test_a_long_batch_of_one_program_is_uniform():
    k = family("mixed", 5)[0]
    batch = cd.solve_batch([k.program] * 131)
    assert distance(batch.x, np.broadcast_to(batch.x[:1], batch.x.shape)) < 1e-9
    g = batch.derivative().vjp(dx=np.ones_like(batch.x))
    assert distance([g.dc], [np.broadcast_to(g.dc[:1], g.dc.shape)]) < 1e-7


def test_mutation_of_solutions_changes_no_derivative():
    knowns = family("mixed", 5)
    batch = cd.solve_batch([k.program for k in knowns])
    g = cotangents(knowns[0].program, 5)
    expected = batch.derivative().vjp(*g)
    alone = batch[1].derivative().vjp(*(part[1] for part in g))
    one = batch[1]
    for holder in (batch, one):
        holder.x[...] = holder.y[...] = holder.s[...] = 7
    assert distance(batch.derivative().vjp(*g), expected) < 1e-12
    for solution in (one, batch[1]):
        assert distance(solution.derivative().vjp(*(part[1] for part in g)), alone) == 0


def test_an_empty_batch_gives_empty_outputs():
    p = family("mixed", 5)[0].program
    batch = cd.solve_batch(p, b=np.zeros((0, p.m)))
    assert len(batch) == 0 and list(batch) == [] and batch.x.shape == (0, p.n)
    pulled = batch.derivative().vjp(dx=np.zeros((0, p.n)))
    assert pulled.dA.shape == (0, p.A.nnz) and pulled.dP.shape == (0, p.P.nnz)
    assert batch.derivative().jvp()[0].shape == (0, p.n)


def test_shapes_are_checked():
    knowns = family("mixed", 5)
    p = knowns[0].program
    derivative = cd.solve_batch([k.program for k in knowns]).derivative()
    for given in ({"dx": np.ones(p.n)}, {"dy": np.ones((4, p.m))}, {"ds": np.ones((5, p.m + 1))}):
        with pytest.raises(ValueError, match="must have shape"):
            derivative.vjp(**given)
    for given in (
        {"dA": np.ones((5, p.m, p.n))},
        {"dP": np.ones((5, 1))},
        {"db": np.ones((1, p.m))},
        {"dc": [1.0]},
    ):
        with pytest.raises(ValueError, match="must have shape"):
            derivative.jvp(**given)


def test_indexing():
    batch = cd.solve_batch([k.program for k in family("linear", 5)])
    assert np.array_equal(batch[-1].x, batch.x[4]) and np.array_equal(batch[0].y, batch.y[0])
    with pytest.raises(IndexError):
        batch[5]


# Elements that have no solution (case I).


def interval(low, high, slope=1.0):
    """Minimise slope * x, low <= x <= high."""
    return cd.ConeProgram([[-1.0], [1.0]], [-low, high], [slope], {"l": 2})


GOOD, EMPTY, OTHER = interval(1.0, 2.0), interval(2.0, 1.0), interval(-1.0, 3.0, -1.0)
ENDLESS = cd.ConeProgram([[1.0], [0.0]], [1.0, 1.0], [1.0], {"l": 2})


@pytest.mark.parametrize("bad, status", [(EMPTY, "infeasible"), (ENDLESS, "unbounded")])
@pytest.mark.parametrize(
    "answer, fill",
    [("nan", np.nan), ("zero_grad", 0.0), (lambda s: None, np.nan), (lambda s: "zero_grad", 0.0)],
)
def test_good_elements_are_exact_beside_bad_ones(bad, status, answer, fill):
    batch = cd.solve_batch([GOOD, bad, OTHER, bad], on_failure=answer)
    assert list(batch.status) == ["solved", status, "solved", status]
    np.testing.assert_array_equal(batch.failed, [False, True, False, True])
    np.testing.assert_allclose(batch.x[[0, 2], 0], [1.0, 3.0], atol=1e-9)
    g = batch.derivative().vjp(dx=np.ones((4, 1)))
    np.testing.assert_allclose(g.db, [[-1, 0], [fill] * 2, [0, 1], [fill] * 2], atol=1e-9)
    np.testing.assert_allclose(g.dc, [[0], [fill], [0], [fill]], atol=1e-9)
    dx, dy, ds = batch.derivative().jvp(db=np.ones((4, 2)))
    np.testing.assert_allclose(dx[:, 0], [-1, np.nan, 1, np.nan], atol=1e-9)
    assert np.isnan(dy[[1, 3]]).all() and np.isnan(ds[[1, 3]]).all()


@pytest.mark.parametrize("programs", [[EMPTY], [EMPTY, ENDLESS], [EMPTY] * 3])
@pytest.mark.parametrize("answer, fill", [("nan", np.nan), ("zero_grad", 0.0)])
def test_a_batch_of_bad_elements_alone(programs, answer, fill):
    batch = cd.solve_batch(programs, on_failure=answer)
    g = batch.derivative().vjp(dx=np.ones((len(programs), 1)))
    for part in (g.dA, g.db, g.dc):
        np.testing.assert_array_equal(part, np.full(part.shape, fill))
    assert np.isnan(batch.derivative().jvp(dc=np.ones((len(programs), 1)))[0]).all()


def test_the_error_names_what_failed():
    with pytest.raises(cd.SolverError) as caught:
        cd.solve_batch([GOOD, EMPTY, OTHER, ENDLESS])
    error = caught.value
    assert error.indices == ((1,), (3,)) and error.statuses == ("infeasible", "unbounded")
    assert "1 (infeasible), 3 (unbounded)" in str(error) and "2 of 4" in str(error)
    assert list(error.solutions.status) == ["solved", "infeasible", "solved", "unbounded"]
    np.testing.assert_allclose(error.solutions.x[0], [1.0], atol=1e-9)


def test_a_callable_decides():
    seen = []

    def decide(solutions):
        seen.append(list(solutions.status))
        return "raise"

    with pytest.raises(cd.SolverError):
        cd.solve_batch([GOOD, EMPTY], on_failure=decide)
    assert seen == [["solved", "infeasible"]]
    cd.solve_batch([GOOD, OTHER], on_failure=decide)
    assert len(seen) == 1
    with pytest.raises(ValueError, match="must answer"):
        cd.solve_batch([GOOD, EMPTY], on_failure=lambda s: "perhaps")


def test_a_failed_element_has_no_derivative():
    batch = cd.solve_batch([GOOD, EMPTY], on_failure="nan")
    batch[0].derivative()
    with pytest.raises(cd.SolverError, match="infeasible"):
        batch[1].derivative()


def infeasible_programs():
    """Random programs with a certificate y in K*, A'y = 0, b'y < 0, so that no x is feasible."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cones = random_cones(rng)
        cone = ProductCone.from_dict(cones)
        y = cone.project_dual(2 * rng.standard_normal(cone.dim)).point
        if np.abs(y).max() < 0.1:
            continue
        n = int(rng.integers(1, cone.dim + 1))
        A = rng.standard_normal((cone.dim, n))
        A -= np.outer(y, y @ A) / (y @ y)
        b = rng.standard_normal(cone.dim)
        b -= y * (y @ b + 1) / (y @ y)
        yield cd.ConeProgram(A, b, rng.standard_normal(n), cones, quadratic(rng, n, n))


@pytest.mark.parametrize("p", list(infeasible_programs()), ids=lambda p: "-".join(p.cones))
def test_certificates_of_infeasibility(p):
    s = cd.solve(p, on_failure="nan")
    assert s.status == "infeasible"
    size = np.abs(s.y).max()
    assert abs(p.b @ s.y + 1) < 1e-6
    assert np.abs(p.A.T @ s.y).max() < 1e-4 * size
    assert np.abs(p.structure.cone.project_dual(s.y).point - s.y).max() < 1e-5 * size


def test_a_certificate_of_unboundedness():
    s = cd.solve(ENDLESS, on_failure="nan")
    assert s.status == "unbounded"
    assert abs(ENDLESS.c @ s.x + 1) < 1e-6
    assert np.abs(ENDLESS.A @ s.x + s.s).max() < 1e-5 and s.s.min() > -1e-9


def test_an_empty_row_that_cannot_hold_is_not_lost_among_large_ones():
    """0 <= -0.57 beside rows of 1e6: relative to those it is small."""
    A = np.zeros((8, 4))
    A[0, 1], A[2, 2], A[5, 0], A[6, 2], A[7, 3] = 261.5, 8278.2, -0.00857, 0.784, -0.09996
    A[3, 1:3], A[4, :3] = (-0.000363, 0.000726), (-62.15, 62.15, 31.08)
    b = np.array([0.786, -0.573, -0.59, 0.713, -0.0912, 2.473, 1.25, -0.0722])
    program = cd.ConeProgram(A, b, np.array([0.688, 2.123, -0.295, 2.015]), {"z": 1, "l": 7})
    status = cd.solve_batch([program] * 3, on_failure="nan").status
    assert set(status) <= {"infeasible", "failed"}


def test_case_i_never_comes_back_as_solved():
    A, b, c = np.array([[1.0], [-1.0]]), [-1.0, -1.0], [1.0]
    for settings in ({}, {"tol": 1e-5}, {"refine": False, "tol": 1e-6}, {"max_iters": 10_000}, {"eps": 1e-3}):
        s = cd.solve(cd.ConeProgram(A, b, c, {"l": 2}), on_failure="nan", **settings)
        assert s.status == "infeasible"
        np.testing.assert_allclose(s.y, [0.5, 0.5], atol=1e-6)


INDEFINITE = {
    "saddle": (np.array([[1.0, 2.0], [2.0, 1.0]]), [0.1, 0.1]),
    "maximum": (np.diag([-0.5, 1.0]), [0.0, 0.1]),
    "negative": (-10 * np.eye(2), [0.1, 0.1]),
}


@pytest.mark.parametrize("name", INDEFINITE)
def test_an_indefinite_P_is_never_solved(name):
    P, c = INDEFINITE[name]
    A = 10 * np.vstack([np.eye(2), -np.eye(2)])
    with pytest.raises(cd.ProblemError, match="not convex"):
        cd.solve(cd.ConeProgram(A, 10 * np.ones(4), c, {"l": 4}, P))


def test_stack_data_take_and_count():
    data = ConeData(np.zeros((1, 2)), np.ones((3, 2)), np.ones((3, 1)), np.zeros((1, 1)))
    assert data.count == 3
    part = data.take(np.array([2, 0]))
    assert part.count == 2 and part.P is data.P and dense(part.A).shape == (2, 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_factor_of_the_last_newton_step_is_used_where_it_fits(threads, monkeypatch):
    """By every derivative, if D has hardly changed; otherwise K is factorised anew."""
    made = []
    factor = KKTSystem.factor
    monkeypatch.setattr(KKTSystem, "factor", lambda *args, **rest: made.append(1) or factor(*args, **rest))
    solutions = solved_in_one_step(threads)
    cotangent = cotangents(solutions._batch.solver.structure, 6)
    before = len(made)
    first, second = (solutions.derivative().vjp(*cotangent) for _ in range(2))
    assert len(made) == before
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    alone = cd.solve(cd.ConeProgram(np.eye(2), np.ones(2), np.array([-3.0, 1.0]), {"l": 2}, P=np.eye(2)))
    before = len(made)
    for derivative in (alone.derivative(), alone.derivative()):
        np.testing.assert_allclose(derivative.vjp(dx=np.ones(2)).dc, [0, -1], atol=1e-12)
    assert len(made) == before
    spoilt = solved_in_one_step(threads)
    spoilt._batch.result.factors[0].factorisation.derivative.diagonal[0] = 0.5
    before = len(made)
    again = spoilt.derivative().vjp(*cotangent)
    assert len(made) == before + 1
    for one, other in zip(again, first, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * np.abs(other).max())


@EVERY
@pytest.mark.parametrize("cut", [False, True])
def test_the_same_call_twice_gives_the_same_bits(name, cut, request):
    if cut:
        request.getfixturevalue("small_parts")
    knowns = family(name, 5)
    batch, g = cd.solve_batch([k.program for k in knowns]), cotangents(knowns[0].program, 5)
    derivative = batch.derivative()
    pulled, pushed = derivative.vjp(*g), derivative.jvp(db=g[1], dc=g[0])
    for again in (derivative, batch.derivative()):
        # In the other order, and by another object.
        for one, other in zip(again.jvp(db=g[1], dc=g[0]), pushed, strict=True):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(again.vjp(*g), pulled, strict=True):
            np.testing.assert_array_equal(one, other)


def solved_in_one_step(threads):
    """Projections onto the simplex, of points close to it."""
    n, rng = 4, np.random.default_rng(22)
    A, b = np.vstack([np.ones((1, n)), -np.eye(n)]), np.append(1.0, np.zeros(n))
    points = 0.1 * rng.standard_normal((6, n))
    programs = [cd.ConeProgram(A, b, -point, {"z": 1, "l": n}, P=np.eye(n)) for point in points]
    solutions = cd.solve_batch(programs, threads=threads)
    assert set(solutions.info["refinements"]) == {1}, "otherwise there is nothing to take over"
    return solutions


def stack_of(name, count):
    """Structure, data and solutions of a family, as a stack."""
    knowns = family(name, count)
    batch = cd.solve_batch([k.program for k in knowns])
    return (
        batch._batch.solver,
        batch._batch.data,
        *(np.stack(parts) for parts in zip(*(k.solution for k in knowns), strict=True)),
    )


@EVERY
@pytest.mark.parametrize("far", [(), (1,), (0, 1, 2, 4)], ids=["all near", "one far", "most far"])
def test_a_factor_of_points_nearby_serves(name, far, monkeypatch):
    """As it is where S has hardly moved, with a patch where some have, not at all where most have."""
    solver, data, x, y, s = stack_of(name, 5)
    kkt, structure, cone = solver.system, solver.structure, solver.scalings.scaled_structure.cone
    there = solver.equilibrator.equilibration(data).scale_point(Point(x, y, s))
    v = (there.y - there.s) * (1 + 1e-8)
    v[list(far)] = np.random.default_rng(26).standard_normal((len(far), structure.m))
    known = kkt.factor(lifted(solver, data), cone.project_dual(v).derivative())
    made = []
    factor = KKTSystem.factor
    monkeypatch.setattr(
        KKTSystem, "factor", lambda self, data, D: made.append(D.batch[0]) or factor(self, data, D)
    )
    g = cotangents(structure, 5)
    found = KKTDerivative.at(solver, data, Point(x, y, s), nearby=known)
    plain = KKTDerivative.at(solver, data, Point(x, y, s))
    assert distance(found.vjp(*g)[0], plain.vjp(*g)[0]) < 1e-9
    assert made == {0: [], 1: [1], 4: [5]}[len(far)] + [5]
    zero = np.zeros((5, structure.n)), np.zeros((5, structure.m)), np.zeros((5, structure.n))
    change = Products(*zero, g[1], g[0])
    assert distance(found.jvp(change)[0], plain.jvp(change)[0]) < 1e-9
    np.testing.assert_allclose(found.diagnostics().condition, plain.diagnostics().condition, rtol=1e-2)


def lifted(solver, data):
    """The equilibrated data on the sparsity that has room for what shears fill in."""
    return solver.scalings.identity.scale_data(solver.equilibrator.equilibration(data).scale_data(data))


def test_a_change_of_the_projection_is_seen_also_in_replaced_rows():
    solver, data, _, y, s = stack_of("mixed", 3)
    kkt, cone, data = solver.system, solver.structure.cone, lifted(solver, data)
    one, v = np.array([1]), y - s
    D = cone.project_dual(v).derivative()
    known = kkt.factor(data, D)
    assert (known.projection_change(D) < 1e-12).all()
    elsewhere = np.random.default_rng(27).standard_normal((1, v.shape[1]))
    other = kkt.factor(data.take(one), cone.project_dual(elsewhere).derivative())
    replaced = known.with_rows_from(one, other)
    change = replaced.projection_change(D)
    assert change[1] > 1e-3 and change[[0, 2]].max() < 1e-12
    assert (known.projection_change(D) < 1e-12).all(), "factors are immutable"
    v[1] = elsewhere
    assert (replaced.projection_change(cone.project_dual(v).derivative()) < 1e-12).all()


def test_a_factor_by_which_refinement_falls_short_is_not_used():
    solver, data, x, y, s = stack_of("mixed", 3)
    there = solver.equilibrator.equilibration(data).scale_point(Point(x, y, s))
    D = solver.structure.cone.project_dual(there.y - there.s).derivative()
    other = lifted(solver, ConeData(9 * data.P, -4 * data.A, data.b, data.c))
    wrong = with_factorisation_of(solver.system, lifted(solver, data), other, D)
    g = cotangents(solver.structure, 3)
    found = KKTDerivative.at(solver, data, Point(x, y, s), nearby=wrong).vjp(*g)[0]
    assert distance(found, KKTDerivative.at(solver, data, Point(x, y, s)).vjp(*g)[0]) < 1e-9


def with_factorisation_of(kkt, data, other, D):
    """A factor for K of ``data`` by the factorisation of K of other data."""
    known = kkt.factor(data, D)
    ldl = kkt.factor(other, D).factorisation.ldl
    return replace(known, factorisation=replace(known.factorisation, ldl=ldl))


def test_factors_of_programs_that_take_different_steps_are_used(monkeypatch):
    rng = np.random.default_rng(28)
    programs = []
    for _ in range(40):
        root = rng.standard_normal((10, 10))
        programs.append(
            cd.ConeProgram(-np.eye(10), np.zeros(10), rng.standard_normal(10), {"l": 10}, root @ root.T)
        )
    first = cd.solve_batch(programs)
    batch = cd.solve_batch([p for p, k in zip(programs, first.info["iterations"], strict=True) if k == 25])
    assert {1, 2} <= set(batch.info["refinements"]) and (batch.info["iterations"] == 25).all()
    made, factor = [], KKTSystem.factor
    monkeypatch.setattr(KKTSystem, "factor", lambda *args: made.append(1) or factor(*args))
    gx = np.ones((len(batch), 10))
    pulled = batch.derivative().vjp(dx=gx)
    assert not made
    for k in range(0, len(batch), 7):
        alone = KKTDerivative.at(
            batch._batch.solver, batch._batch.data.take([k]), batch._batch.result.point.take([k])
        )
        r1, r2 = alone.vjp(gx[[k]], np.zeros((1, 10)), np.zeros((1, 10)))[0]
        assert distance([pulled.dc[[k]], pulled.db[[k]]], [-r1, r2]) < 1e-9
    assert made


def test_a_factor_that_hides_that_K_is_singular_is_not_used():
    """A redundant constraint, and a factor of data in which it is not redundant."""
    program = cd.ConeProgram(np.ones((2, 1)), np.ones(2), np.zeros(1), {"z": 2}, np.eye(1))
    solver, data = BatchSolver(program.structure), program.data
    point = Point(np.ones((1, 1)), np.full((1, 2), -0.5), np.zeros((1, 2)))
    D = program.structure.cone.project_dual(point.y).derivative()
    wrong = with_factorisation_of(
        solver.system, data, ConeData(data.P, data.A * [[1, 1.01]], data.b, data.c), D
    )
    # Outside the range of K, and within, where its solution is not unique.
    for gy in ([1.0, 0.0], [1.0, 1.0]):
        g, answers = (np.ones((1, 1)), np.array([gy]), np.zeros((1, 2))), []
        for nearby in (wrong, None):
            answer, report = KKTDerivative.at(solver, data, point, nearby=nearby).vjp(*g)
            assert report.degenerate
            answers.append(answer)
        assert distance(*answers) < 1e-9


@pytest.fixture
def small_parts(monkeypatch):
    """Two programs to a part, or three."""
    monkeypatch.setattr(constants, "ENTRIES_WITHOUT_PARTS", 1)
    parts = BatchSolver.parts

    def pairs(solver, *arguments):
        monkeypatch.setattr(constants, "ENTRIES_OF_A_PART", 2.9 * solver.system.pattern.nnz)
        return parts(solver, *arguments)

    monkeypatch.setattr(BatchSolver, "parts", pairs)


@EVERY
@pytest.mark.parametrize("threads", [1, 2])
def test_parts_do_not_matter(name, threads, request, monkeypatch):
    knowns = family(name, 5) * 2
    whole = results(knowns, threads)
    request.getfixturevalue("small_parts")
    batch = cd.solve_batch([k.program for k in knowns], threads=threads)
    assert len(batch._batch.solver.parts(10, batch._batch.settings, [])) == 4
    assert distance(results(knowns, threads), whole) < 1e-6  # solutions are as good as tol
    # At the same point the derivative is the same.
    in_parts, g = batch.derivative(), cotangents(knowns[0].program, 10)
    structure, rng = batch._batch.solver.structure, np.random.default_rng(31)
    change = {
        "dP": np.ones((10, structure.P.nnz)) * rng.standard_normal((10, 1)),
        "dA": rng.standard_normal((10, structure.A.nnz)),
        "db": g[1],
        "dc": g[0],
    }
    pulled, pushed = in_parts.vjp(*g), in_parts.jvp(**change)
    monkeypatch.setattr(constants, "ENTRIES_WITHOUT_PARTS", 1 << 30)
    in_one = batch.derivative()
    assert len(batch._batch.solver.parts(10, batch._batch.settings, [])) == 1
    assert distance(pushed, in_one.jvp(**change)) < 1e-9
    for one, other in zip(pulled, in_one.vjp(*g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_a_part_may_have_no_factor(small_parts):
    """Minimise c x - log x; where c is large the solution is found in a cone scaling."""
    x, c = cp.Variable(), cp.Parameter(pos=True)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(c * x - cp.log(x))), [c], [x])
    values = np.array([1.0, 2.0, 1e7, 1e8, 3.0, 0.5])
    solution = layer.solve(values)
    assert {factor is None for factor in solution.result.factors} == {True, False}
    np.testing.assert_allclose(solution.vjp(np.ones(6))[0], -1 / values**2, rtol=1e-6)


def test_a_degenerate_element_is_named_as_it_stands_in_the_whole_stack(small_parts):
    """One redundant constraint, in one part of three; the answer is that without parts."""
    A = np.array([[[1.0], [k]] for k in (1, -1, -1, -1, -1, -1, -1)])
    programs = [cd.ConeProgram(a, [1, 1], [-2.0], {"l": 2}, np.eye(1)) for a in A]
    programs[4] = cd.ConeProgram(np.ones((2, 1)), [1, 1], [-2.0], {"l": 2}, np.eye(1))
    del programs[0]
    batch = cd.solve_batch(programs)
    g = np.ones((6, 1)), np.tile([1.0, 0.0], (6, 1)), np.zeros((6, 2))
    derivative = batch.derivative()
    with pytest.warns(cd.DegeneracyWarning):
        pulled = derivative.vjp(*g)
    assert list(np.flatnonzero(derivative.diagnostics.degenerate)) == [3]
    for i, solution in enumerate(batch):
        if i != 3:
            mine = solution.derivative().vjp(*(part[i] for part in g))
            np.testing.assert_allclose(pulled.db[i], mine.db, rtol=1e-9, atol=1e-12)
    assert list(batch.derivative().diagnostics.dual_unique) == [True] * 3 + [False] + [True] * 2


def test_a_factor_is_not_pickled():
    result = solved_in_one_step(1)._batch.result
    assert result.factors and not pickle.loads(pickle.dumps(result)).factors


def test_inaccurate_elements_are_named_as_they_stand_in_the_batch(small_parts):
    """Element 0 is infeasible; element 4 has a redundant constraint: "direct" cannot answer."""
    program = cd.ConeProgram(np.array([[1.0], [-1.0]]), [1.0, 1.0], [-2.0], {"l": 2}, np.eye(1))
    A, b = np.tile([1.0, -1.0], (6, 1)), np.ones((6, 2))
    b[0], A[4] = (-1.0, 0.0), 1.0
    batch = cd.solve_batch(program, A=A, b=b, method="direct", on_failure="nan")
    assert list(batch.failed) == [True] + [False] * 5
    with pytest.warns(cd.AccuracyWarning, match="of element 4 is inaccurate"):
        batch.derivative().vjp(np.ones((6, 1)), np.tile([1.0, 0.0], (6, 1)))


def test_reports_are_numbered_by_the_elements_with_a_solution(small_parts):
    """The redundant constraint is in the second part, and its report has the position in the whole stack."""
    program = cd.ConeProgram(np.array([[1.0], [-1.0]]), [1.0, 1.0], [-2.0], {"l": 2}, np.eye(1))
    A = np.tile([1.0, -1.0], (6, 1))
    A[4] = 1.0
    derivative = cd.solve_batch(program, A=A).derivative()
    with pytest.warns(cd.DegeneracyWarning):
        derivative.vjp(np.ones((6, 1)), np.tile([1.0, 0.0], (6, 1)))
    assert set(derivative.diagnostics.reports) == {4}
    assert list(derivative.diagnostics.degenerate) == [False] * 4 + [True, False]


def test_a_pile_does_not_lead_its_elements_astray():
    """Minimise c x - log x over twelve decades in one pile: each element is solved as it is alone."""
    x, c = cp.Variable(), cp.Parameter(pos=True)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(c * x - cp.log(x))), [c], [x])
    for count in (20, 50, 64):
        values = np.logspace(-6, 6, count)
        solution = layer.solve(values)
        np.testing.assert_allclose(solution.values[0] * values, 1, atol=1e-7)
        np.testing.assert_allclose(solution.vjp(np.ones(count))[0] * values**2, -1, atol=1e-6)
