"""The derivative of D, for every cone: against differences of D, and the laws of a third derivative."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conediff.cones import (
    PSD,
    BlockDerivative,
    ComplexPSD,
    DiagonalDerivative,
    DualExponential,
    Exponential,
    NonNegative,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
    complex_smat,
    complex_svec,
    smat,
    svec,
)
from conediff.errors import ConeError
from tests.programs import random_cones

_spec = importlib.util.spec_from_file_location("cone_cases", Path(__file__).with_name("test_cones.py"))
cases = importlib.util.module_from_spec(_spec)
sys.modules["cone_cases"] = cases
_spec.loader.exec_module(cases)
CASES, points, size = cases.CASES, cases.points, cases.size

EVERY = pytest.mark.parametrize("name", CASES)
FLAT = ("zero", "nonnegative", "box", "second_order_1", "second_order_2", "psd_1")
CURVED = [name for name in CASES if name not in FLAT]
ROUND = pytest.mark.parametrize("name", CURVED)


def bend(cone, v, h, k):
    return cone.project_dual(v).derivative().bend(h, k)


def directions(v, number=3, seed=1):
    return np.random.default_rng(seed).normal(size=(number, *v.shape))


def norm(a):
    return np.linalg.norm(a, axis=-1)


def largest(D, dim):
    """The largest entry of T, shape (..., count)."""
    return np.max([size(D.bend(e, f)) for e in np.eye(dim) for f in np.eye(dim)], axis=0)


@ROUND
def test_it_is_the_difference_of_D(name):
    """Richardson's extrapolation of central differences, at points clear of kinks."""
    cone = CASES[name][0]
    v = points(name, seed=3)
    here = cone.project_dual(v).derivative()
    unit = np.where(size(v) > 0, size(v), 1.0)
    far = here.margin
    if name == "power":  # at z = 0 the third derivative is unbounded, at x = 0 and y = 0 the fourth is large
        far = np.minimum(far, np.abs(v).min(axis=-1))
    clear = far > 3e-2 * unit
    assert clear.mean() > 0.1
    h, k, _ = directions(v)

    def difference(step):
        step = step * far[..., None] * clear[..., None]
        ahead, behind = (cone.project_dual(v + sign * step * h).derivative().apply(k) for sign in (1, -1))
        return (ahead - behind) / np.where(step > 0, 2 * step, 1.0)

    expected = (4 * difference(1e-4) - difference(2e-4)) / 3
    error = norm(here.bend(h, k) - expected) * far
    assert error[clear].max() < 2e-8
    assert (norm(expected) * unit)[clear].max() > 1e-2


@EVERY
def test_symmetric_in_all_three_arguments(name):
    cone = CASES[name][0]
    v = points(name)
    h, k, l = directions(v)  # noqa: E741
    D = cone.project_dual(v).derivative()
    values = [(D.bend(a, b) * c).sum(axis=-1) for a, b, c in ((h, k, l), (k, h, l), (h, l, k), (l, k, h))]
    bound = largest(D, cone.dim) * norm(h) * norm(k) * norm(l)
    for other in values[1:]:
        assert (np.abs(values[0] - other) <= 1e-13 * bound).all()


@EVERY
def test_linear_in_both_directions(name):
    v = points(name)
    h, k, l = directions(v)  # noqa: E741
    D = CASES[name][0].project_dual(v).derivative()
    both, one, two = D.bend(h + 2 * l, k), D.bend(h, k), D.bend(l, k)
    assert (norm(both - one - 2 * two) <= 1e-13 * (norm(one) + 2 * norm(two) + 1e-300)).all()


@EVERY
def test_zero_along_v(name):
    """D is homogeneous of degree zero."""
    cone = CASES[name][0]
    v = points(name)
    h, k, _ = directions(v)
    D = cone.project_dual(v).derivative()
    unit = norm(v)[..., None]
    here = norm(D.bend(unit * h, k)) + sum(norm(D.bend(unit * e, k)) for e in np.eye(cone.dim))
    assert (norm(D.bend(v, k)) <= 2e-13 * here).all()


@EVERY
def test_inversely_proportional_to_v(name):
    cone = CASES[name][0]
    v = points(name)
    v = v / np.where(size(v) > 0, size(v), 1.0)[..., None]
    h, k, _ = directions(v)
    D = cone.project_dual(v).derivative()
    here, clear = D.bend(h, k), D.margin > 1e-5  # eigenvalues have absolute errors
    for scale in (1e-100, 1e-8, 0.25, 3.0, 1e8, 1e100):
        there = bend(cone, scale * v, h, k) * scale
        assert (norm(there - here) <= 1e-9 * norm(here) + 1e-13)[clear].all(), scale


@EVERY
def test_zero_where_D_is_constant(name):
    cone = CASES[name][0]
    y = np.random.default_rng(4).normal(size=(400, cone.count, cone.dim))
    v = np.concatenate([cone.project_dual(y).point, cone.project_dual(y).point - y])
    inner = 1e-3 * np.random.default_rng(5).normal(size=v.shape) + v
    h, k, _ = directions(v)
    for points_ in (v, inner):
        D = cone.project_dual(points_).derivative()
        values = np.linalg.eigvalsh(D.dense()[0])
        flat = np.isin(values, (0.0, 1.0)).all(axis=-1) & ((values == values[..., :1]).all(axis=-1))
        assert (D.bend(h, k)[flat] == 0).all()
    if name in FLAT:
        assert (bend(cone, points(name), *directions(points(name))[:2]) == 0).all()


@EVERY
def test_finite_at_every_kink_and_at_zero(name):
    cone = CASES[name][0]
    v = points(name, number=500, seed=6)
    y = cone.project_dual(v).point
    kinks = [np.zeros_like(v), y, y - v]
    kinks += [np.where(np.random.default_rng(s).random(v.shape) < 0.5, 0.0, v) for s in range(4)]
    if name.startswith("second_order"):
        for sign in (1, -1):
            on = v.copy()
            on[..., 0] = sign * np.linalg.norm(v[..., 1:], axis=-1)
            kinks.append(on)
    if "psd" in name:
        pack, unpack = (complex_svec, complex_smat) if name.startswith("complex") else (svec, smat)
        w, Q = np.linalg.eigh(unpack(v, cone.order))
        w[..., : cone.order // 2 + 1] = 0
        kinks.append(pack((Q * w[..., None, :]) @ np.swapaxes(Q, -1, -2).conj()))
    for at in kinks:
        h, k, _ = directions(at)
        with np.errstate(all="raise", under="ignore"):
            found = bend(cone, at, h, k)
        assert np.isfinite(found).all()


@EVERY
def test_group_and_batch_equal_one_by_one_and_directions_broadcast(name):
    cone = CASES[name][0]
    v = points(name, number=10)
    h, k, _ = directions(v)
    together = bend(cone, v, h, k)
    assert together.shape == v.shape
    for i, j in np.ndindex(*v.shape[:2]):
        one = cone if name == "box" else cases._single(cone, j)
        alone = bend(one, v[i, j][None], h[i, j][None], k[i, j][None])[0]
        np.testing.assert_allclose(
            alone, together[i, j], rtol=1e-9, atol=1e-12 * (norm(together[i, j]) + 1e-300)
        )
    assert bend(cone, v[:0], h[:0], k[:0]).shape == (0, *v.shape[1:])
    wide = bend(cone, v, h[0], k[0])
    np.testing.assert_allclose(
        wide, bend(cone, v, np.broadcast_to(h[0], v.shape), np.broadcast_to(k[0], v.shape))
    )


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12, 1e-8, 1e-3])
def test_close_eigenvalues_of_one_sign_lose_no_digits(complex_, gap):
    """Against the formula for eigenvalues that are exactly equal, perturbed to first order at most."""
    order, rng = 4, np.random.default_rng(7)
    cone = ComplexPSD(1, order) if complex_ else PSD(1, order)
    pack, unpack = (complex_svec, complex_smat) if complex_ else (svec, smat)
    M = rng.normal(size=(order, order))
    Q = np.linalg.qr(M + 1j * rng.normal(size=(order, order)) if complex_ else M)[0]
    h, k = rng.normal(size=(2, 1, 1, cone.dim))

    def at(values):
        X = (Q * np.array(values)) @ Q.conj().T
        return bend(cone, pack((X + X.conj().T) / 2)[None, None], h, k)

    equal = at([1.0, 1.0, -0.5, -0.5])
    apart = at([1.0, 1.0 + gap, -0.5, -0.5 - gap])
    assert np.abs(apart - equal).max() <= 1e-13 + 30 * gap
    assert unpack(equal, order).shape == (1, 1, order, order)


def test_eigenvalues_of_opposite_signs_that_are_close():
    """The projection of diag(d, -d), d small: T is 1 / (4 d) along the off-diagonal, exactly."""
    for d in (1e-1, 1e-5, 1e-9, 1e-100):
        v = svec(np.diag([d, -d]))[None]
        e = svec(np.array([[0.0, 1.0], [1.0, 0.0]]))[None]
        expected = svec(np.eye(2) / (2 * d))[None]  # sqrt(d^2 + t^2) I / 2 + ..., twice differentiated
        np.testing.assert_allclose(bend(PSD(1, 2), v, e, e), expected, rtol=1e-13)


def test_second_order_in_closed_form():
    """At (0, r e1) the projection is ((r + v0) / 2)(1, u): T[e2, e2] = (1, 0) / (2 r)."""
    r = 3.0
    v = np.array([[0.0, r, 0.0]])
    e0, e2 = np.array([[1.0, 0, 0]]), np.array([[0.0, 0, 1]])
    cone = SecondOrder(1, 3)
    np.testing.assert_allclose(bend(cone, v, e2, e2), [[1 / (2 * r), 0, 0]], rtol=1e-15)
    np.testing.assert_allclose(bend(cone, v, e0, e2), [[0, 0, 1 / (2 * r)]], rtol=1e-15)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_power_on_its_edge(alpha):
    """At z = 0, with x and y of different signs, w depends on x and y as the slope of the projection does."""
    for order, a in (((0, 1), alpha), ((1, 0), 1 - alpha)):
        v, h = np.zeros((1, 3)), np.zeros((1, 3))
        v[0, order[0]], v[0, order[1]] = 2.0, -3.0
        h[0, order[0]], h[0, order[1]] = 0.7, 0.4
        z = np.array([[0.0, 0.0, 1.0]])
        for sign in (1, -1):
            cone = Power((sign * a,))
            at = -sign * v
            step = 1e-5
            ahead, behind = (cone.project_dual(at + t * step * h).derivative().apply(z) for t in (1, -1))
            np.testing.assert_allclose(bend(cone, at, h, z), (ahead - behind) / (2 * step), atol=1e-9)


@pytest.mark.parametrize(
    ("cone", "dual"),
    [
        (Exponential(1), DualExponential(1)),
        (Power((0.3,)), Power((-0.3,))),
        (SecondOrder(1, 5),) * 2,
        (PSD(1, 3),) * 2,
    ],
)
def test_of_the_dual_cone_at_minus_v(cone, dual):
    """By Moreau: T of one projection at v is T of the other at -v."""
    v = np.random.default_rng(8).normal(size=(200, 1, cone.dim))
    h, k, _ = directions(v)
    np.testing.assert_allclose(bend(cone, v, h, k), bend(dual, -v, h, k), rtol=1e-9, atol=1e-12)


MAGNITUDE = st.floats(-1e8, 1e8, allow_subnormal=False) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e-300, -1e-300, 1e-12]
)


@settings(max_examples=150, deadline=None)
@given(v=arrays(np.float64, (1, 3), elements=MAGNITUDE), alpha=st.floats(1e-3, 0.999))
def test_three_dimensional_cones_at_any_point(v, alpha):
    h, k, l = np.random.default_rng(9).normal(size=(3, 1, 3))  # noqa: E741
    for cone in (Exponential(1), DualExponential(1), Power((alpha,)), Power((-alpha,)), SecondOrder(1, 3)):
        D = cone.project_dual(v).derivative()
        assert np.isfinite(D.bend(h, k)).all()
        values = [(D.bend(a, b) * c).sum() for a, b, c in ((h, k, l), (h, l, k), (l, k, h))]
        unit = largest(D, 3).max()
        assert max(values) - min(values) <= 1e-12 * unit
        assert size(D.bend(v, k)).max() <= 1e-12 * unit * size(v).max() + 1e-300


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.sampled_from([(), (1,), (4,), (2, 3)]))
def test_products_of_all_cones(seed, batch):
    """A product bends as its cones do one by one, symmetrically, and not along v."""
    rng = np.random.default_rng(seed)
    product = ProductCone.from_dict(random_cones(rng))
    v, h, k, l = rng.normal(size=(4, *batch, product.dim))  # noqa: E741
    D = product.project_dual(v).derivative()
    T = D.bend(h, k)
    assert T.shape == v.shape
    for cone, rows in product.groups:
        one = bend(cone, v[..., rows], h[..., rows], k[..., rows])
        np.testing.assert_allclose(
            T[..., rows], one, rtol=1e-12, atol=1e-13 * (np.abs(one).max(initial=0) + 1e-300)
        )
    values = [(D.bend(a, b) * c).sum(axis=-1) for a, b, c in ((h, k, l), (l, h, k), (k, l, h))]
    scale = norm(T) * norm(l) + norm(D.bend(h, l)) * norm(k) + norm(D.bend(k, l)) * norm(h)
    for other in values[1:]:
        assert (np.abs(values[0] - other) <= 1e-12 * scale + 1e-300).all()
    assert (norm(D.bend(v, k)) <= 1e-11 * (1 + norm(T))).all()
    assert product.is_polyhedral == all(cone.is_polyhedral for cone, _ in product.groups)
    if product.is_polyhedral:
        assert (T == 0).all()


def test_a_product_checks_the_length_of_directions():
    product = ProductCone.from_dict({"q": [3]})
    D = product.project_dual(np.ones(3)).derivative()
    with pytest.raises(ConeError, match="3 rows"):
        D.bend(np.ones(4), np.ones(3))


def test_a_cone_without_it_says_so():
    D = BlockDerivative(np.eye(3)[None], np.eye(3)[None], lambda: np.ones(1))
    with pytest.raises(ConeError, match=r"second derivatives.*BlockDerivative.bend\(h, k\).*extending"):
        D.bend(np.ones((1, 3)), np.ones((1, 3)))
    assert (DiagonalDerivative(np.ones((1, 2)), np.ones(1)).bend(np.ones((4, 1, 2)), np.ones(2)) == 0).all()
    assert NonNegative(3).is_polyhedral and Zero(2).is_polyhedral and SecondOrder(1, 1).is_polyhedral
