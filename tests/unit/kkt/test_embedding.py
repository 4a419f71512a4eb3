"""The derivative of the homogeneous embedding, against the embedding itself."""

from __future__ import annotations

import numpy as np
import pytest

from conediff.kkt.embedding import Embedding
from tests.programs import CONES, draw, slope

EVERY = pytest.mark.parametrize("name", CONES)
BOTH = pytest.mark.parametrize("with_P", [True, False], ids=["P", "LP"])


def embedding(name, with_P=True):
    k = draw(np.random.default_rng(40), CONES[name], with_P, sparse=True)
    p = k.program
    D = p.structure.cone.project_dual(k.v[None]).derivative()
    return k, Embedding(p.structure, p.data, k.x, k.y, D)


def N(k, z):
    """The residual map, by its definition."""
    p = k.program
    P, A, b, c = p.P, p.A, p.b, p.c
    u, v, w = z[: p.n], z[p.n : -1], z[-1]
    y, tau = p.structure.cone.project_dual(v).point, max(w, 0)
    top = P @ u + A.T @ y + c * tau
    middle = -(A @ u) + b * tau - y + v
    return np.concatenate([top, middle, [-(u @ (P @ u)) / tau - c @ u - b @ y]])


@EVERY
@BOTH
def test_a_solution_is_a_zero(name, with_P):
    k, _ = embedding(name, with_P)
    z = np.concatenate([k.x, k.v, [1.0]])
    np.testing.assert_allclose(N(k, z), 0, atol=1e-11 * np.abs(z).max() ** 2)


@EVERY
@BOTH
def test_matvec_is_the_derivative(name, with_P):
    k, M = embedding(name, with_P)
    z, dz = np.concatenate([k.x, k.v, [1.0]]), np.random.default_rng(41).standard_normal(M.size)
    expected = slope(lambda t: N(k, z + t * dz), h=2e-5)
    np.testing.assert_allclose(M.matvec(dz), expected, atol=1e-6 * np.abs(expected).max())


@EVERY
@BOTH
def test_rmatvec_is_the_transpose(name, with_P):
    _, M = embedding(name, with_P)
    matrix = M.dense()
    assert matrix.shape == (M.size, M.size)
    transposed = np.stack([M.rmatvec(e) for e in np.eye(M.size)], axis=0)
    np.testing.assert_allclose(transposed, matrix, atol=1e-13 * np.abs(matrix).max())
    r = np.random.default_rng(42).standard_normal(M.size)
    operator = M.operator()
    np.testing.assert_allclose(operator @ r, matrix @ r, atol=1e-10)
    np.testing.assert_allclose(operator.T @ r, matrix.T @ r, atol=1e-10)


@EVERY
@BOTH
def test_null_vectors_at_a_solution(name, with_P):
    """N is homogeneous, so M z = 0; and (x, y, 1) is in the null space of M'. Nothing else is."""
    k, M = embedding(name, with_P)
    right, left = np.concatenate([k.x, k.v, [1.0]]), np.concatenate([k.x, k.y, [1.0]])
    size = np.abs(M.dense()).max()
    np.testing.assert_allclose(M.matvec(right), 0, atol=1e-12 * size * np.abs(right).max())
    np.testing.assert_allclose(M.rmatvec(left), 0, atol=1e-12 * size * np.abs(left).max())
    values = np.linalg.svd(M.dense(), compute_uv=False)
    assert values[-1] < 1e-12 * values[0] and values[-2] > 1e-8 * values[0]


def test_data_are_read_only_and_stay():
    k, M = embedding("everything")
    x, y = k.x.copy(), k.y.copy()
    for array in (k.x, k.y):
        array.setflags(write=False)
    M.matvec(np.ones(M.size))
    M.rmatvec(np.ones(M.size))
    assert np.array_equal(x, k.x) and np.array_equal(y, k.y)
