"""Least squares: the answer of least norm, with a reason for stopping that is told."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from conediff.kkt.least_squares import RANK_TOLERANCE, dense, iterative

METHODS = pytest.mark.parametrize("method", ["lsqr", "lsmr"])


def matrix(size=12, rank=12, smallest=0.1, seed=0):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
    values = np.geomspace(1, smallest, rank)
    return (U[:, :rank] * values) @ V[:, :rank].T


@METHODS
@pytest.mark.parametrize("rank", [12, 11, 5])
@pytest.mark.parametrize("consistent", [True, False])
def test_the_answer_has_least_norm(method, rank, consistent):
    A = matrix(rank=rank)
    rhs = np.random.default_rng(1).standard_normal(12)
    if consistent:
        rhs = A @ rhs
    expected = np.linalg.pinv(A, rcond=1e-9) @ rhs
    answer, reference = iterative(aslinearoperator(A), rhs, method), dense(A, rhs)
    for one in (answer, reference):
        np.testing.assert_allclose(one.value, expected, atol=1e-9)
        assert one.converged and one.reason
        assert one.residual == pytest.approx(
            np.linalg.norm(A @ expected - rhs) / np.linalg.norm(rhs), abs=1e-10
        )
    assert answer.iterations > 0 and reference.iterations == 0


@METHODS
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-20, 1e20, 1e150])
def test_scale_does_not_matter(method, scale):
    A, rhs = matrix(), np.random.default_rng(2).standard_normal(12)
    one, other = (
        iterative(aslinearoperator(A), rhs, method),
        iterative(aslinearoperator(A), rhs * scale, method),
    )
    np.testing.assert_allclose(other.value / scale, one.value, rtol=1e-9)
    assert abs(other.iterations - one.iterations) <= 1


@METHODS
def test_zero_right_hand_side_is_exact_and_costs_nothing(method):
    calls = []
    operator = LinearOperator((3, 3), matvec=lambda x: calls.append(1) or x, rmatvec=lambda x: x, dtype=float)
    answer = iterative(operator, np.zeros(3), method)
    assert not answer.value.any() and answer.converged and not calls and "zero" in answer.reason


@METHODS
def test_a_limit_of_iterations_is_reported(method):
    answer = iterative(aslinearoperator(matrix(40, 40, 1e-6)), np.ones(40), method, max_iters=3)
    assert not answer.converged and answer.iterations == 3 and answer.reason == "iteration limit reached"
    assert answer.residual > 1e-6


@METHODS
def test_a_right_hand_side_that_is_not_finite(method):
    answer = iterative(aslinearoperator(np.eye(2)), np.array([np.nan, 1.0]), method)
    assert not answer.converged


def test_dense_cuts_small_singular_values():
    values = np.array([1.0, 100 * RANK_TOLERANCE, RANK_TOLERANCE / 10])
    answer = dense(np.diag(values), np.ones(3))
    np.testing.assert_allclose(answer.value, [1.0, 1 / values[1], 0.0], rtol=1e-6)
    assert dense(np.eye(2), np.zeros(2)).residual == 0
