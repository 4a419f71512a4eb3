"""Cone scalings: automorphisms of the cones, and closed forms whose y and s differ by orders of magnitude."""

from __future__ import annotations

import pickle

import cvxpy as cp
import numpy as np
import pytest

from conediff import CvxpyLayer
from conediff.program import ConeData
from conediff.scaling.cone_scaling import ConeScalings
from tests.programs import draw

CONES = {"z": 1, "l": 2, "q": [3], "s": [2], "cs": [2], "ep": 2, "ed": 2, "p": [0.3, -0.6]}


def uneven(seed, count=40):
    """A program with all cones, its scaling, and dual pairs (y, s) of very uneven sizes."""
    rng = np.random.default_rng(seed)
    program = draw(rng, CONES, True, True).program
    cone = program.structure.cone
    v = rng.standard_normal((count, cone.dim))
    y = cone.project_dual(v).point
    s = y - v
    there = np.zeros(v.shape, dtype=bool)
    for _, rows in cone.groups:
        # Far enough inside of the surface, or of neither cone, y or s is nothing but rounding.
        sizes = [np.abs(part[:, rows]).max(axis=-1, keepdims=True) for part in (y, s)]
        there[:, rows] = np.minimum(*sizes) > 1e-2 * np.maximum(*sizes)
        factor = np.exp2(rng.integers(-17, 17, (count, 1, 1)))
        y[:, rows] *= factor
        s[:, rows] /= factor
    scalings = ConeScalings(program.structure)
    nothing = np.zeros((1, program.m))
    scaling = scalings._primal_dual(program.data, y, s, nothing, nothing)
    assert not scaling.is_identity
    return program, scaling, y, s, there


def lost_digits(cone, y, s, there):
    """What v = y - s does not give back of y and s, relative to the smaller one, at worst."""
    found = cone.project_dual(y - s).point
    worst = 0.0
    for group, rows in cone.groups:
        sizes = [np.abs(part[:, rows]).max(axis=-1) for part in (y, s)]
        both = there[:, rows[:, 0]]
        if not group.diagonal:
            error = np.abs(found - y)[:, rows].max(axis=-1)
            worst = max(worst, (error[both] / np.minimum(*sizes)[both]).max())
    return worst


@pytest.mark.parametrize("seed", range(5))
def test_automorphisms_keep_pairs_and_make_them_even(seed):
    program, scaling, y, s, both = uneven(seed)
    cone = program.structure.cone
    there_y, there_s = scaling.scale_dual(y), scaling.scale_slack(s)
    for _, rows in cone.groups:
        here, there = ((a[:, rows] * b[:, rows]).sum(axis=-1) for a, b in ((y, s), (there_y, there_s)))
        np.testing.assert_allclose(there, here, atol=1e-11)
    # Pairs are still pairs, and keep the digits that they lose unscaled.
    inside = lost_digits(cone, there_y, there_s, both)
    assert inside < 1e-6 and lost_digits(cone, y, s, both) > 5 * inside


@pytest.mark.parametrize("seed", range(5))
def test_scalings_invert_and_transpose(seed):
    _, scaling, y, _, _ = uneven(seed)
    rng = np.random.default_rng(seed)
    w, u = rng.standard_normal((2, *y.shape))
    np.testing.assert_allclose(scaling.unscale_slack(scaling.scale_slack(w)), w, atol=1e-9)
    np.testing.assert_allclose(scaling.unscale_dual(scaling.scale_dual(w)), w, atol=1e-9)
    left, right = (scaling.scale_slack(w) * u).sum(axis=1), (w * scaling.unscale_dual(u)).sum(axis=1)
    size = np.linalg.norm(scaling.scale_slack(w), axis=1) * np.linalg.norm(u, axis=1)
    assert (np.abs(left - right) <= 1e-13 * size).all()


@pytest.mark.parametrize("seed", range(5))
def test_scaling_data_and_unscaling_cotangents_are_adjoint(seed):
    program, scaling, y, _, _ = uneven(seed)
    rng = np.random.default_rng(seed)
    given, lifted = scaling.scalings.structure, scaling.scalings.scaled_structure
    A, there = program.A.toarray(), scaling.scale_data(program.data)
    for k in range(len(y)):
        one = scaling.take(np.array([k]))
        found = lifted.A.matrix(there.A[k]).toarray()
        np.testing.assert_allclose(found, one.scale_slack(A.T).T * one.columns, rtol=1e-12)

    def random(structure):
        sizes = (structure.P.nnz, structure.A.nnz, structure.m, structure.n)
        return ConeData(*(rng.standard_normal((len(y), size)) for size in sizes))

    def product(one, other):
        return sum((getattr(one, name) * getattr(other, name)).sum(axis=1) for name in "PAbc")

    d, g = random(given), random(lifted)
    np.testing.assert_allclose(
        product(scaling.scale_data(d), g), product(d, scaling.unscale_data_cotangent(g)), rtol=1e-8
    )


DECADES = range(-8, 9, 2)


def checked(layer, values, solution, gradient, cotangent):
    """Solve and differentiate; both as the closed form has them, entry by entry."""
    found = layer.solve(*values)
    np.testing.assert_allclose(found.values[0], solution, rtol=1e-7)
    np.testing.assert_allclose(found.vjp(cotangent)[0], gradient, rtol=1e-7)


@pytest.mark.parametrize("decade", DECADES)
def test_a_logarithm_of_what_is_tiny_or_huge(decade):
    """min c x - log x: x = 1/c."""
    c, x = cp.Parameter(pos=True), cp.Variable()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c * x - cp.log(x))), [c], [x])
    value = 10.0**decade
    checked(layer, [value], 1 / value, -1 / value**2, 1.0)


@pytest.mark.parametrize("decade", DECADES)
def test_a_logarithm_with_a_large_or_small_factor(decade):
    """min b x - log(a x): x = 1/b, whatever a."""
    a, b, x = cp.Parameter(pos=True), cp.Parameter(pos=True), cp.Variable()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(b * x - cp.log(a * x))), [b, a], [x])
    value = 10.0**decade
    found = layer.solve(2.0, value)
    np.testing.assert_allclose(found.values[0], 0.5, rtol=1e-9)
    gb, ga = found.vjp(1.0)
    np.testing.assert_allclose(gb, -0.25, rtol=1e-7)
    assert abs(ga) < 1e-9 / value


@pytest.mark.parametrize("decade", range(9))
def test_shares_in_proportion_to_weights_of_any_size(decade):
    """max k'log w, 1'w = 1: w = k / 1'k."""
    k, w = cp.Parameter(2, pos=True), cp.Variable(2)
    layer = CvxpyLayer(cp.Problem(cp.Maximize(k @ cp.log(w)), [cp.sum(w) == 1]), [k], [w])
    value = np.array([1.0, 10.0**-decade])
    total = value.sum()
    checked(layer, [value], value / total, np.array([-value[1], value[0]]) / total**2, np.array([0.0, 1.0]))


@pytest.mark.parametrize("k", [-18.0, -10.0, -5.0, 1.0, 5.0, 10.0])
def test_an_entropy_whose_maximiser_is_tiny_or_huge(k):
    """max k x + entr(x): x = exp(k - 1). The cone's second row is not constant: shears fill in."""
    p, x = cp.Parameter(), cp.Variable()
    layer = CvxpyLayer(cp.Problem(cp.Maximize(p * x + cp.entr(x))), [p], [x])
    checked(layer, [k], np.exp(k - 1), np.exp(k - 1), 1.0)


@pytest.mark.parametrize("decade", range(0, 5))
def test_balls_of_very_different_sizes(decade):
    """min a'x + b'z over balls: x = -r a / |a|."""
    a, r, b, q = cp.Parameter(3), cp.Parameter(pos=True), cp.Parameter(3), cp.Parameter(pos=True)
    x, z = cp.Variable(3), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(a @ x + b @ z), [cp.norm(x) <= r, cp.norm(z) <= q])
    layer = CvxpyLayer(problem, [a, r, b, q], [x, z])
    rng, size = np.random.default_rng(decade), 10.0**decade
    values = rng.standard_normal(3) * size, 1 / size, rng.standard_normal(3) / size, size
    g = rng.standard_normal((2, 3))
    found = layer.solve(*values)
    for k in (0, 1):
        cost, radius = values[2 * k : 2 * k + 2]
        norm, unit = np.linalg.norm(cost), cost / np.linalg.norm(cost)
        np.testing.assert_allclose(found.values[k], -radius * unit, rtol=1e-7)
        expected = -radius / norm * (g[k] - unit * (unit @ g[k])), -(unit @ g[k])
        got = found.vjp(*(g[j] if j == k else None for j in (0, 1)))[2 * k : 2 * k + 2]
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize("decade", range(-6, 7, 2))
def test_a_power_of_what_is_tiny_or_huge(decade):
    """min c x - x^(1/4): x = (4 c)^(-4/3)."""
    c, x = cp.Parameter(pos=True), cp.Variable()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c * x - cp.power(x, 0.25, approx=False))), [c], [x])
    value = 10.0**decade
    solution = (4 * value) ** (-4 / 3)
    checked(layer, [value], solution, -4 / 3 * solution / value, 1.0)


def test_a_redundant_row_beside_room_for_shears():
    """K is singular, and its null vectors are looked at on the sparsity that the user's maps know."""
    x, a = cp.Variable(3), cp.Parameter(3)
    objective = cp.Minimize(cp.sum_squares(x) + cp.kl_div(x[0] + 3, a @ x + 30))
    plain, redundant = [cp.sum(x) == 0.1], [cp.sum(x) == 0.1, 2 * cp.sum(x) == 0.2]
    layers = [CvxpyLayer(cp.Problem(objective, constraints), [a], [x]) for constraints in (plain, redundant)]
    scalings = ConeScalings(layers[1].maps.structure)
    assert scalings.scaled_structure is not scalings.structure
    values, g = np.array([[0.1, -0.7, 0.4], [1.0, 0.2, -0.3]]), np.array([[1.0, 2.0, 3.0]] * 2)
    expected, found = (layer.solve(values).vjp(g)[0] for layer in layers)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_pickled_structure_leaves_behind_what_was_made_from_it():
    program = draw(np.random.default_rng(0), CONES, True, True).program
    before = len(pickle.dumps(program.structure))
    A = program.structure.A
    A.products(np.ones((7, A.nnz)))
    assert len(pickle.dumps(program.structure)) == before
