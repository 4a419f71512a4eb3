"""The base that joins parameters and point: its functions are those of the solution, and fit together."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.layer.base import BaseDerivative


@pytest.fixture(scope="module")
def solved():
    """A complex parameter, and a real one that the batch of three shares; a generator of numbers."""
    x, c, r = cp.Variable(2, complex=True), cp.Parameter(2, complex=True), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + r * cp.norm(x)))
    layer = cd.CvxpyLayer(problem, [c, r], [x, problem.objective], solver_args={"tol": 1e-13})
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2)), np.array(0.5)]
    return layer.solve(*values), values, rng


def random_like(rng, arrays):
    return [
        rng.standard_normal(a.shape) + (1j * rng.standard_normal(a.shape) if np.iscomplexobj(a) else 0)
        for a in arrays
    ]


def inner(left, right):
    return sum(float(np.real(np.conj(a) * b).sum()) for a, b in zip(left, right, strict=True))


def draw(solved):
    """A solution's base, with tangents, cotangents of the values and a cotangent of the base."""
    solution, values, rng = solved
    base = BaseDerivative(solution)
    cotangent = rng.standard_normal(base.shape)
    return base, random_like(rng, values), random_like(rng, solution.values), cotangent, rng


def test_shape(solved):
    solution = solved[0]
    assert BaseDerivative(solution).shape == (3, 4 + 1 + solution.derivative.point.shape[-1])


@pytest.mark.parametrize("summed", [True, False])
def test_pull_is_the_adjoint_of_push(solved, summed):
    base, tangents, cotangents, cotangent, _ = draw(solved)
    values, moved = base.push(tangents)
    found, _ = base.pull(cotangents, cotangent, summed=summed)
    expected = inner([*values, moved], [*cotangents, cotangent])
    if not summed:
        assert [g.shape for g in found] == [(3, 2), (3,)]
    assert inner(found, [np.broadcast_to(t, g.shape) for t, g in zip(tangents, found, strict=True)]) == (
        pytest.approx(expected, rel=1e-10)
    )


def test_without_a_cotangent_of_the_base_it_is_the_solutions_own(solved):
    base, tangents, cotangents, _, _ = draw(solved)
    solution = solved[0]
    for one, other in zip(base.pull(cotangents)[0], solution.vjp(*cotangents), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(base.push(tangents)[0], solution.jvp(*tangents), strict=True):
        np.testing.assert_array_equal(one, other)
    pulled = base.pull(cotangents, np.zeros(base.shape), needed=[True, False])[0]
    assert pulled[1] is None
    np.testing.assert_allclose(pulled[0], solution.vjp(*cotangents)[0])


def test_curve_and_turn_are_readings_of_one_scalar(solved):
    """Both differentiate <push(w), g> along u, whose second derivative is the solution's."""
    base, w, g, cotangent, rng = draw(solved)
    u = random_like(rng, w)
    along, pushed = base.push(u)[1], base.push(w)[1]
    multipliers = base.pull(g, cotangent)[1]
    values, moved = base.turn(along, pushed)
    expected = inner([*values, moved], [*g, cotangent])
    curved = base.curve(pushed, multipliers, g, cotangent)
    assert inner([curved], [along]) == pytest.approx(expected, rel=1e-9)
    forward = base.curve(along, multipliers, g, cotangent, forward=True)
    assert inner(base.pull([None, None], forward)[0], w) == pytest.approx(expected, rel=1e-9)
    for one, other in zip(values, solved[0].derivative.turn(u, w), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_arrays_of_another_shape_are_refused(solved):
    base, _, cotangents, cotangent, _ = draw(solved)
    with pytest.raises(ValueError, match=r"base must have shape \(3, \d+\), but has \(2, "):
        base.pull(cotangents, cotangent[:2])
