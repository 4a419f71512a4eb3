"""Large programs: time and memory linear in the nonzeros, and large cones that are never filled in."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from tests.programs import cotangent, curve, distance, largest, program


def chain(n, seed=0):
    """A quadratic program on a chain, with bounds, and a constraint for every ten neighbours."""
    rng = np.random.default_rng(seed)
    P = sp.diags_array([np.full(n, 2.1), np.full(n - 1, -1.0), np.full(n - 1, -1.0)], offsets=[0, 1, -1])
    rows = np.repeat(np.arange(n // 10), 3)
    columns = np.minimum(n - 1, 10 * rows + rng.integers(0, 20, rows.size))
    local = sp.csr_array((rng.standard_normal(rows.size), (rows, columns)), shape=(n // 10, n))
    A = sp.vstack([-sp.eye_array(n), local])
    b = np.concatenate([np.zeros(n), 0.1 + np.abs(rng.standard_normal(n // 10))])
    return cd.ConeProgram(A, b, rng.standard_normal(n), {"l": n + n // 10}, P)


def adjoint_error(p, derivative, seed=1):
    rng = np.random.default_rng(seed)
    gx, dc, db = rng.standard_normal(p.n), rng.standard_normal(p.n), rng.standard_normal(p.m)
    moved, pulled = derivative.jvp(db=db, dc=dc), derivative.vjp(dx=gx)
    left, right = moved[0] @ gx, pulled.dc @ dc + pulled.db @ db
    return abs(left - right) / (largest(moved[0]) * largest(gx) * np.sqrt(p.n))


@pytest.mark.parametrize(
    "n, seconds",
    [(10_000, 5), pytest.param(100_000, 60, marks=pytest.mark.slow)],
)
def test_a_sparse_quadratic_program(n, seconds):
    p = chain(n)
    began = time.perf_counter()
    tracemalloc.start()
    solution = cd.solve(p)
    derivative = solution.derivative()
    pulled = derivative.vjp(dx=np.ones(n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - began < seconds
    assert peak < 1500 * (p.A.nnz + p.P.nnz)  # bytes; anything dense would be n * 8 for each
    assert solution.info["residual"] < 1e-10
    assert adjoint_error(p, derivative) < 1e-12
    # On the constraints that hold the gradient solves a linear system of its own.
    assert pulled.dA.nnz == p.A.nnz


def nearest_correlation(k, seed=0):
    """Minimise |X - G|^2 over correlation matrices, in SCS's vectorisation."""
    rng = np.random.default_rng(seed)
    d = k * (k + 1) // 2
    G = rng.standard_normal((k, k))
    G = (G + G.T) / 2 + np.eye(k)
    i, j = np.tril_indices(k)
    order = np.lexsort((i, j))
    i, j = i[order], j[order]
    diagonal = np.flatnonzero(i == j)
    select = sp.csc_array((np.ones(k), (np.arange(k), diagonal)), shape=(k, d))
    A, b = sp.vstack([select, -sp.eye_array(d)]), np.concatenate([np.ones(k), np.zeros(d)])
    return cd.ConeProgram(
        A, b, -np.where(i == j, 1, np.sqrt(2)) * G[i, j], {"z": k, "s": [k]}, sp.eye_array(d)
    )


def large_cones():
    """Name: (program with its solution, or a program)."""
    rng = np.random.default_rng(2)

    def known(cones, m, n, shift):
        v = rng.standard_normal(m)
        shift(v)
        return program(v, rng.standard_normal(n), rng.standard_normal((m, n)), np.eye(n), cones)

    def boundary(v):
        v[0] = 0.3 * np.linalg.norm(v[1:])

    return {
        "second-order 2000": known({"q": [2000]}, 2000, 40, boundary),
        "second-order 300, with others": known({"l": 5, "q": [3, 300]}, 308, 30, lambda v: boundary(v[8:])),
        "PSD 25": known({"s": [25]}, 325, 120, lambda v: None),
        "PSD 20 and small ones": known({"l": 3, "q": [4], "s": [3, 20]}, 223, 90, lambda v: None),
        "complex PSD 15": known({"cs": [15]}, 225, 80, lambda v: None),
        "box 3000": known(
            {"bl": [-1.0] * 2999, "bu": [1.0] * 2999}, 3000, 40, lambda v: v.__setitem__(0, 3.0)
        ),
    }


LARGE = large_cones()


@pytest.mark.parametrize("name", LARGE)
def test_large_cones(name):
    known = LARGE[name]
    solution = cd.solve(known.program)
    assert distance((solution.x, solution.y, solution.s), known.solution) < 1e-7
    derivative = known.at_solution(tol=1e-11).derivative()
    tangent = curve(np.random.default_rng(3), known)
    assert distance(derivative.jvp(*tangent.data), tangent.solution) < 1e-6
    assert derivative.diagnostics.differentiable[0]
    g = cotangent(np.random.default_rng(4), known)
    pulled = derivative.vjp(*g)
    left = sum(a @ b for a, b in zip(tangent.solution, g, strict=True))
    data = (tangent.dA * (known.program.A.toarray() != 0), tangent.db, tangent.dc)
    if (known.program.A.toarray() != 0).all():
        right = (pulled.dA.toarray() * data[0]).sum() + pulled.db @ data[1] + pulled.dc @ data[2]
        right += (pulled.dP.toarray() * tangent.dP).sum()
        off = tangent.dP * (known.program.P.toarray() == 0)
        left -= sum(a @ b for a, b in zip(derivative.jvp(dP=off), g, strict=True))
        assert abs(left - right) < 1e-6 * largest(*tangent.solution) * largest(*g) * known.program.m


@pytest.mark.parametrize(
    "k", [20, 40, pytest.param(60, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
def test_nearest_correlation_matrix(k):
    p = nearest_correlation(k)
    tracemalloc.start()
    solution = cd.solve(p)
    derivative = solution.derivative()
    error = adjoint_error(p, derivative)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error < 1e-11
    assert solution.info["residual"] < 1e-10
    assert peak < 60e6  # the block of D alone would be 27 MB for k = 60 and 200 MB for k = 100
    rng = np.random.default_rng(5)
    dc, h = rng.standard_normal(p.n), 1e-5

    def at(t):
        moved = cd.ConeProgram(p.A, p.b, p.c + t * dc, p.cones, p.P)
        return cd.solve(moved, warm_start=solution, tol=1e-11).x

    assert distance([derivative.jvp(dc=dc)[0]], [(at(h) - at(-h)) / (2 * h)]) < 1e-5


@pytest.mark.parametrize("name", ["second-order 300, with others", "PSD 20 and small ones"])
def test_large_cones_in_batches(name):
    known = LARGE[name]
    p = known.program
    rng = np.random.default_rng(6)
    c = p.c + 0.01 * rng.standard_normal((3, p.n))
    batch = cd.solve_batch(p, c=c)
    gx = rng.standard_normal((3, p.n))
    pulled = batch.derivative().vjp(dx=gx)
    for i in range(3):
        alone = batch[i].derivative().vjp(dx=gx[i])
        assert distance([pulled.db[i], pulled.dc[i]], [alone.db, alone.dc]) < 1e-8


@pytest.mark.parametrize("name", ["second-order 300, with others", "PSD 20 and small ones"])
def test_large_cones_as_the_dense_method(name):
    solution = cd.solve(LARGE[name].program, tol=1e-11)
    gx = np.random.default_rng(7).standard_normal(LARGE[name].program.n)
    assert distance(solution.derivative().vjp(dx=gx), solution.derivative("dense").vjp(dx=gx)) < 1e-8
