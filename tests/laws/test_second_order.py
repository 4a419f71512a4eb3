"""Second derivatives of the solution map, for every cone: differences, symmetry, adjoints, batches."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import conediff as cd
from conediff.cones import ProductCone, svec
from conediff.derivative.second_order import added
from conediff.program import ConeData, Products, products
from tests.programs import (
    CONES,
    cotangent,
    curve,
    dense,
    distance,
    draw,
    largest,
    program,
    random_cones,
    slope,
)

EVERY = pytest.mark.parametrize("name", CONES)
BOTH = pytest.mark.parametrize("with_P", [True, False], ids=["P", "LP"])
PARTS = ("P", "A", "b", "c")
OUTPUTS = ("dx", "dy", "ds")


@lru_cache
def known(name, with_P=True, seed=1):
    return draw(np.random.default_rng(seed), CONES[name], with_P, condition=1e3)


def flat(parts):
    return np.concatenate([np.ravel(dense(part)) for part in parts])


def on_pattern(p, data):
    """A perturbation (dP, dA, db, dc) as a stack of one."""
    dP, dA, db, dc = data
    P, A = p.structure.P, p.structure.A
    return ConeData(dP[P.indices, P.columns][None], dA[A.indices, A.columns][None], db[None], dc[None])


def perturbation(rng, p):
    """A random perturbation of all data, dP symmetric, on the sparsity."""
    dP = rng.standard_normal((p.n, p.n))
    dA, db, dc = rng.standard_normal((p.m, p.n)), rng.standard_normal(p.m), rng.standard_normal(p.n)
    return (dP + dP.T) * (p.P.toarray() != 0), dA * (p.A.toarray() != 0), db, dc


def second_push(stack, data, first, second):
    """The change of push(second) along first, two perturbations as stacks."""
    dz, dw, s = stack.push(first), stack.push(second), stack.structure
    zero = np.zeros((1, s.m)), np.zeros((1, s.n))
    parts = products(s, second, dz.dx, dz.dy), products(s, first, dw.dx, dw.dy)
    return stack.turn(added(*(Products(*part[:3], *zero) for part in parts)), dz, dw)


def line_of(rng, k, with_P):
    """A line as of `programs.curve` along which P stays positive semidefinite, with its null space."""
    line = curve(rng, k, P=with_P)
    if not with_P:
        return line
    w, Q = np.linalg.eigh(k.program.P.toarray())
    onto = Q[:, w > 1e-9] @ Q[:, w > 1e-9].T
    dP = onto @ line.dP @ onto * w[w > 1e-9].min()
    return replace(line, dP=dP, dc=line.dc + (line.dP - dP) @ k.x)


def inner(left, right):
    return sum(float((dense(a) * dense(b)).sum()) for a, b in zip(left, right, strict=True))


def gradient(weights, z):
    """Of the loss <weights, z> + |z|² / 2 of z = (x, y, s); its own Hessian is the identity."""
    return [w + part for w, part in zip(weights, z, strict=True)]


def identity(*dz):
    return dz


# Against lines of programs whose solutions are known: no solver has a part in it.


@EVERY
@BOTH
def test_both_modes_along_a_known_line(name, with_P):
    k, rng = known(name, with_P), np.random.default_rng(2)
    p, line = k.program, line_of(rng, k, with_P)
    g, w = cotangent(rng, k), perturbation(rng, p)

    def at(t):
        A, P = p.A.toarray() + t * line.dA, p.P.toarray() + t * line.dP if with_P else None
        moved = program(k.v + t * (line.dy - line.ds), k.x + t * line.dx, A, P, CONES[name])
        derivative = moved.at_solution(tol=1e-9).derivative()
        return np.concatenate([flat(derivative.vjp(*g)), flat(derivative.jvp(*w))])

    solution = k.at_solution(tol=1e-9)
    pulled = solution.derivative().hvp(g, line.data)
    stack = solution._batch.derivative()
    pushed = second_push(stack, p, on_pattern(p, line.data), on_pattern(p, w))
    expected, split = slope(at), flat(pulled).size
    assert distance([flat(pulled)], [expected[:split]]) < 1e-6
    assert distance([flat(pushed)], [expected[split:]]) < 1e-6


@EVERY
@BOTH
@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_adjoints_and_symmetry_hold_to_rounding(name, with_P, sparse):
    """<(pull g)˙, w> = <(push w)˙, g>, and both Hessians, of the loss with curvature, are symmetric."""
    k = draw(np.random.default_rng(3), CONES[name], with_P, sparse, condition=1e3)
    p, rng = k.program, np.random.default_rng(4)
    solution = k.at_solution()
    derivative, stack = solution.derivative(), solution._batch.derivative()
    w, u, g = perturbation(rng, p), perturbation(rng, p), cotangent(rng, k)
    moved = derivative.hvp(g, u)
    turned = second_push(stack, p, on_pattern(p, u), on_pattern(p, w))
    size = sum(np.abs(a * b).sum() for a, b in zip(map(dense, moved), w, strict=True)) + 1e-300
    assert abs(inner(moved, w) - inner([part[0] for part in turned], g)) < 1e-11 * size
    for curvature in (None, identity):
        one, two = inner(derivative.hvp(g, u, curvature), w), inner(derivative.hvp(g, w, curvature), u)
        assert abs(one - two) < 1e-11 * size


@EVERY
@pytest.mark.parametrize("part", PARTS)
def test_against_differences_of_gradients_at_tight_solves(name, part):
    """The Hessian of a loss of x, of y, of s, along one part of the data."""
    k = known(name)
    p, rng = k.program, np.random.default_rng(5)
    here = cd.solve(p, tol=1e-13, warm_start=k.solution)
    direction = perturbation(rng, p)[PARTS.index(part)]
    if part == "P":  # stay among the PSD matrices: on the range of P
        w, Q = np.linalg.eigh(p.P.toarray())
        onto = Q[:, w > 1e-9] @ Q[:, w > 1e-9].T
        direction = onto @ direction @ onto
    h = 3e-4 * min(1, np.linalg.eigvalsh(p.P.toarray()).max()) if part == "P" else 3e-4
    h /= max(1, largest(*here.derivative().jvp(**{"d" + part: direction})) / 10)  # clear of kinks
    weights = cotangent(rng, k)
    losses = [[w if i == j else 0 * w for j, w in enumerate(weights)] for i in range(3)]
    masks = np.eye(3)

    def of(solution):
        derivative, z = solution.derivative(), (solution.x, solution.y, solution.s)
        return [
            flat(derivative.vjp(*(w + m * a for w, m, a in zip(loss, mask, z, strict=True))))
            for loss, mask in zip(losses, masks, strict=True)
        ]

    def at(t):
        data = {q: dense(getattr(p, q)) for q in PARTS}
        data[part] = data[part] + t * direction
        program = cd.ConeProgram(data["A"], data["b"], data["c"], p.cones, data["P"])
        return np.concatenate(of(cd.solve(program, tol=1e-13, warm_start=here, max_iters=100_000)))

    expected = np.split(slope(at, h), 3)
    derivative, z = here.derivative(), (here.x, here.y, here.s)
    for loss, mask, difference in zip(losses, masks, expected, strict=True):
        g = [w + m * a for w, m, a in zip(loss, mask, z, strict=True)]
        own = lambda *dz, mask=mask: [m * a for m, a in zip(mask, dz, strict=True)]  # noqa: E731
        found = flat(derivative.hvp(g, {"d" + part: direction}, own))
        assert np.abs(found - difference).max() < 2e-6 * max(np.abs(np.concatenate(expected)).max(), 1e-3)


@EVERY
def test_polyhedral_programs_are_exact_without_bending(name):
    """On z, l, bl and bu all of T is zero, and is not asked for."""
    k = known(name)
    flat_cones = name in ("zero", "nonnegative", "box", "linear", "soc_1", "psd_1", "complex_psd_1")
    assert k.program.structure.cone.is_polyhedral == flat_cones


# Stacks.


def batch_of(name, count, rng, seed=1):
    """Programs near a known one that differ in b and c."""
    k = known(name, seed=seed)
    b = k.program.b + 1e-3 * rng.standard_normal((count, k.program.m))
    c = k.program.c + 1e-3 * rng.standard_normal((count, k.program.n))
    return k, b, c


def random_rows(rng, p, count):
    """Perturbations and cotangents of a batch."""
    tangents = {
        "dP": rng.standard_normal((count, p.P.nnz)),
        "dA": rng.standard_normal((count, p.A.nnz)),
        "db": rng.standard_normal((count, p.m)),
        "dc": rng.standard_normal((count, p.n)),
    }
    return tangents, [rng.standard_normal((count, k)) for k in (p.n, p.m, p.m)]


def single(p, tangents, i):
    """Perturbation i of a batch as matrices."""
    dP, dA = p.structure.P.matrix(tangents["dP"][i]), p.structure.A.matrix(tangents["dA"][i])
    return {"dP": dP, "dA": dA, "db": tangents["db"][i], "dc": tangents["dc"][i]}


@EVERY
def test_a_stack_is_its_elements_one_by_one(name):
    rng = np.random.default_rng(6)
    k, b, c = batch_of(name, 4, rng)
    p = k.program
    tangents, g = random_rows(rng, p, 4)
    together = cd.solve_batch(p, b=b, c=c).derivative().hvp(g, tangents, identity)
    for i in range(4):
        one = cd.solve(cd.ConeProgram(p.A, b[i], c[i], p.cones, p.P))
        alone = one.derivative().hvp([part[i] for part in g], single(p, tangents, i), identity)
        values = (alone.dP.data, alone.dA.data, alone.db, alone.dc)
        assert distance([part[i] for part in together], values) < 1e-6


@pytest.mark.parametrize("failed", [[0], [1], [2], [3], [0, 3], [1, 2], [0, 1, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("answer", ["nan", "zero_grad"])
@pytest.mark.parametrize("name", ["mixed", "everything", "linear"])
def test_failed_elements_are_filled_as_in_first_derivatives(name, failed, answer):
    """In every position; the others are what they are without them."""
    rng = np.random.default_rng(7)
    k, b, c = batch_of(name, 4, rng)
    p = k.program
    bad, z = np.isin(np.arange(4), failed), p.cones["z"]
    # Behind the zero cone, a'x <= 100 and -a'x <= 100, or -200 where the element shall be infeasible.
    a, limit = rng.standard_normal(p.n), np.where(bad, -200.0, 100.0)
    A = np.vstack([p.A.toarray()[:z], a, -a, p.A.toarray()[z:]])
    b = np.column_stack([b[:, :z], np.full(4, 100.0), limit, b[:, z:]])
    q = cd.ConeProgram(A, b[0], c[0], {**p.cones, "l": p.cones["l"] + 2}, p.P)
    tangents, g = random_rows(rng, q, 4)
    solved = cd.solve_batch(q, b=b, c=c, on_failure=answer)
    assert (solved.failed == bad).all()
    found = solved.derivative().hvp(g, tangents, identity)
    expected = solved.derivative().vjp(*g)
    for part, first in zip(found, expected, strict=True):
        filled = part[bad]
        np.testing.assert_array_equal(np.isnan(filled), np.isnan(first[bad]))
        assert (np.isnan(filled) if answer == "nan" else filled == 0).all()
        assert np.isfinite(part[~bad]).all()
    if not bad.all():
        good = cd.solve_batch(q, b=b[~bad], c=c[~bad])
        alone = good.derivative().hvp(
            [part[~bad] for part in g], {key: part[~bad] for key, part in tangents.items()}, identity
        )
        assert distance([part[~bad] for part in found], alone) < 1e-6


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_products_of_all_cones(seed):
    """Symmetric, adjoint, and the difference along a line, whatever the mixture of cones."""
    rng = np.random.default_rng(seed)
    cones = random_cones(rng)
    try:
        k = draw(rng, cones, condition=300, margin=5e-2, tries=60)
    except AssertionError:
        return  # no well-conditioned program of this mixture
    p, g = k.program, cotangent(rng, k)
    line, w = line_of(rng, k, True), perturbation(rng, p)
    derivative = k.at_solution(tol=1e-9).derivative()
    found = derivative.hvp(g, line.data, identity)
    size = sum(np.abs(a * b).sum() for a, b in zip(map(dense, found), w, strict=True))
    back = derivative.hvp(g, w, identity)
    assert abs(inner(found, w) - inner(back, line.data)) < 1e-10 * (
        size + inner(map(np.abs, map(dense, back)), map(np.abs, line.data))
    )

    def at(t):
        A, P = p.A.toarray() + t * line.dA, p.P.toarray() + t * line.dP
        moved = program(k.v + t * (line.dy - line.ds), k.x + t * line.dx, A, P, cones)
        z = moved.at_solution(tol=1e-9)
        own = [a + b - c for a, b, c in zip(g, moved.solution, k.solution, strict=True)]
        return flat(z.derivative().vjp(*own))

    assert distance([flat(found)], [slope(at, 1e-4)]) < 1e-5


# Methods of the linear solves, and cones so large that K is an operator.


@pytest.mark.parametrize("name", ["mixed", "everything", "linear", "soc_20", "psd_4"])
@pytest.mark.parametrize(("method", "tolerance"), [("dense", 1e-10), ("lsqr", 1e-6), ("lsmr", 1e-6)])
def test_methods_agree(name, method, tolerance):
    k, rng = known(name), np.random.default_rng(8)
    g, w = cotangent(rng, k), perturbation(rng, k.program)
    solution = k.at_solution()
    expected = solution.derivative("direct").hvp(g, w, identity)
    assert distance(solution.derivative(method).hvp(g, w, identity), expected) < tolerance


@pytest.mark.parametrize("cones", [{"q": [150, 120]}, {"s": [33]}, {"l": 3, "q": [110], "ep": 2}])
def test_large_cones_as_operators(cones):
    """D's blocks are not formed in K; products, and so symmetry and differences, are as before."""
    rng = np.random.default_rng(9)
    k = large(rng, cones)
    p, g = k.program, cotangent(rng, k)
    derivative = k.at_solution(tol=1e-9).derivative()
    db, dc = rng.standard_normal(p.m), rng.standard_normal(p.n)
    found = derivative.hvp(g, {"db": db, "dc": dc}, identity)
    other = derivative.hvp(g, {"dc": k.x}, identity)
    one, two = found.dc @ k.x, other.db @ db + other.dc @ dc
    assert abs(one - two) < 1e-7 * (np.abs(found.dc * k.x).sum() + np.abs(other.db * db).sum())

    def at(t):
        z = cd.solve(
            cd.ConeProgram(p.A, p.b + t * db, p.c + t * dc, cones, p.P), tol=1e-11, warm_start=k.solution
        )
        own = [a + b - c for a, b, c in zip(g, (z.x, z.y, z.s), k.solution, strict=True)]
        pulled = z.derivative().vjp(*own)
        return np.concatenate([pulled.db, pulled.dc])

    assert distance([np.concatenate([found.db, found.dc])], [slope(at, 1e-3)]) < 1e-5


def large(rng, cones, n=20):
    """A program with large cones, strongly convex, away from kinks."""
    m = ProductCone.from_dict(cones).dim
    v = 2 * rng.standard_normal(m)
    if "s" in cones:  # of rank 3 in the dual, so that y is unique
        order = cones["s"][0]
        Q, _ = np.linalg.qr(rng.standard_normal((order, order)))
        v = svec((Q * np.where(np.arange(order) < 3, 2.0, -1.0 - rng.random(order))) @ Q.T)
    A = rng.standard_normal((m, n)) / np.sqrt(n)
    return program(v, rng.standard_normal(n), A, np.eye(n), cones)


# What is given, and what is remembered.


def test_arguments_in_order_and_by_name_and_what_does_not_fit():
    k, rng = known("mixed"), np.random.default_rng(10)
    p, g, w = k.program, cotangent(rng, k), perturbation(rng, k.program)
    derivative = k.at_solution().derivative()
    expected = derivative.hvp(g, w, identity)
    by_name = derivative.hvp(
        dict(zip(OUTPUTS, g, strict=True)),
        dict(zip(("dP", "dA", "db", "dc"), w, strict=True)),
        lambda *dz: dict(zip(OUTPUTS, dz, strict=True)),
    )
    assert distance(by_name, expected) == 0
    some = derivative.hvp({"dx": g[0]}, {"dc": w[3]})
    assert distance(some, derivative.hvp((g[0], None, None), (None, None, None, w[3]))) == 0
    unsymmetric = w[0] + np.triu(np.ones((p.n, p.n)), 1)
    halved = (unsymmetric + unsymmetric.T) / 2
    assert distance(derivative.hvp(g, {"dP": unsymmetric}), derivative.hvp(g, {"dP": halved})) < 1e-12
    with pytest.raises(ValueError, match="expected names among dx, dy, ds, got 'x'"):
        derivative.hvp({"x": g[0]}, w)
    with pytest.raises(ValueError, match="expected 4 arrays"):
        derivative.hvp(g, w[:2])
    with pytest.raises(ValueError, match="dA must have shape"):
        derivative.hvp(g, {"dA": np.ones((2, 2))})
    with pytest.raises(ValueError, match="dx must have shape"):
        derivative.hvp(g, w, lambda *dz: {"dx": np.ones(p.n + 1)})


def test_perturbations_off_the_sparsity_of_A():
    """As a forward mode takes them; what comes back is on the sparsity."""
    k = draw(np.random.default_rng(11), CONES["mixed"], sparse=True, condition=1e3)
    p, rng = k.program, np.random.default_rng(12)
    assert (p.A.toarray() == 0).any()
    dense_A = sp.csc_array(np.ones((p.m, p.n)))
    dense_A.data[:] = p.A.toarray().ravel(order="F")
    full = cd.ConeProgram(dense_A, p.b, p.c, p.cones, p.P)
    g, dA = cotangent(rng, k), rng.standard_normal((p.m, p.n))
    found, expected = (cd.solve(q, warm_start=k.solution).derivative().hvp(g, {"dA": dA}) for q in (p, full))
    on = p.A.toarray() != 0
    assert distance([found.dA.toarray(), found.db], [expected.dA.toarray() * on, expected.db]) < 1e-9


def test_what_is_remembered_is_a_copy():
    """Cotangents that the user changes in place are other cotangents."""
    k, rng = known("soc_3"), np.random.default_rng(13)
    p, g, w = k.program, cotangent(rng, k), perturbation(rng, k.program)
    derivative, other = k.at_solution().derivative(), k.at_solution().derivative()
    derivative.hvp(g, w)
    for part in g:
        part *= -2.5
    assert distance(derivative.hvp(g, w), other.hvp(g, w)) < 1e-13
    _, b, c = batch_of("soc_3", 3, rng)
    tangents, g = random_rows(rng, p, 3)
    batch = cd.solve_batch(p, b=b, c=c)
    one, two = batch.derivative(), batch.derivative()
    one.hvp(g, tangents)
    for part in g:
        part *= -2.5
    assert distance(one.hvp(g, tangents), two.hvp(g, tangents)) < 1e-13
