"""Every cone obeys the same laws: Moreau's decomposition, and those of the derivative of a projection."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import conediff
from conediff import cones
from conediff.cones import (
    PSD,
    Box,
    ComplexPSD,
    DualExponential,
    Exponential,
    NonNegative,
    Power,
    SecondOrder,
    Zero,
    complex_smat,
    complex_svec,
    smat,
    svec,
)

INF = np.inf
ALPHAS = (0.3, 0.5, 0.8, -0.4, 0.02, -0.97)
BOX = Box((-1.0, -INF, 0.5, -2.0, -INF, 0.0, 1.0), (1.0, 2.0, INF, -1.0, INF, 0.0, 1.0))
# name: (cone, SCS's dictionary of it)
CASES = {
    "zero": (Zero(4), {"z": 4}),
    "nonnegative": (NonNegative(4), {"l": 4}),
    "box": (BOX, {"bl": list(BOX.lower), "bu": list(BOX.upper)}),
    "second_order_1": (SecondOrder(3, 1), {"q": [1] * 3}),
    "second_order_2": (SecondOrder(3, 2), {"q": [2] * 3}),
    "second_order_5": (SecondOrder(3, 5), {"q": [5] * 3}),
    "psd_1": (PSD(3, 1), {"s": [1] * 3}),
    "psd_4": (PSD(2, 4), {"s": [4] * 2}),
    "complex_psd_3": (ComplexPSD(2, 3), {"cs": [3] * 2}),
    "exponential": (Exponential(4), {"ep": 4}),
    "dual_exponential": (DualExponential(4), {"ed": 4}),
    "power": (Power(ALPHAS), {"p": list(ALPHAS)}),
}
EVERY = pytest.mark.parametrize("name", CASES)
SMOOTH = pytest.mark.parametrize("name", [name for name in CASES if name != "box"])


def points(name, number=300, seed=0):
    """Points of all regions and magnitudes, shape (number, count, dim)."""
    cone = CASES[name][0]
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(number, cone.count, cone.dim))
    part = number // 5
    v[part : 2 * part] *= 10.0 ** rng.uniform(-8, 8, size=(part, 1, 1))
    v[2 * part : 3 * part] *= 10.0 ** rng.uniform(-4, 4, size=(part, cone.count, cone.dim))
    v[3 * part : 4 * part] *= rng.integers(0, 2, size=(part, cone.count, cone.dim))
    # Close to the surfaces of K* and of its polar, on either side.
    y = cone.project_dual(v[4 * part :]).point
    side = rng.integers(0, 2, size=(len(y), cone.count, 1))
    away = rng.choice([-1, 1], size=side.shape) * 10.0 ** rng.uniform(-16, 0, size=side.shape)
    s = y - v[4 * part :]
    v[4 * part :] = np.where(side, y - away * s, away * y - s)
    return v


def size(v):
    return np.abs(v).max(axis=-1)


def in_exponential(v, slack):
    """Whether v + slack e is in the exponential cone, e being in its interior."""
    x, y, z = (v + slack[..., None] * np.array([-1.0, 1.0, 2.0])).reshape(-1, 3).T
    with np.errstate(all="ignore"):
        return ((y > 0) & (np.log(y) + x / y <= np.log(z))).reshape(slack.shape) | (slack == 0)


def in_dual_exponential(v, slack):
    x, y, z = (v + slack[..., None] * np.array([-1.0, 1.0, 1.0])).reshape(-1, 3).T
    with np.errstate(all="ignore"):
        return ((x < 0) & (np.log(-x) + y / x <= 1 + np.log(z))).reshape(slack.shape) | (slack == 0)


def in_power(v, slack, alphas, dual):
    a = np.broadcast_to(np.abs(alphas), slack.shape)
    over = (a, 1 - a) if dual else (np.ones_like(a), np.ones_like(a))
    x, y, z = np.moveaxis(v + slack[..., None] * np.array([1.0, 1.0, 0.0]), -1, 0)
    with np.errstate(all="ignore"):
        mean = (x / over[0]) ** a * (y / over[1]) ** (1 - a)
    return (x >= 0) & (y >= 0) & (mean >= np.abs(z) - slack)


def in_box(v, slack, dual):
    lower, upper = np.array(BOX.lower), np.array(BOX.upper)
    t, s = v[..., 0], v[..., 1:]
    if dual:
        finite = [np.where(np.isfinite(bound), bound, 0.0) for bound in (lower, upper)]
        free = np.where(s > slack[..., None], np.isfinite(lower), True)
        free &= np.where(s < -slack[..., None], np.isfinite(upper), True)
        worst = t + (np.maximum(s, 0) * finite[0] + np.minimum(s, 0) * finite[1]).sum(axis=-1)
        return free.all(axis=-1) & (worst >= -40 * slack)
    with np.errstate(invalid="ignore"):
        low = np.where(np.isfinite(lower), t[..., None] * lower, -INF)
        high = np.where(np.isfinite(upper), t[..., None] * upper, INF)
    between = (s >= low - 4 * slack[..., None]) & (s <= high + 4 * slack[..., None])
    return (t >= -slack) & between.all(axis=-1)


def member(name, v, slack, dual):
    """Whether v is in K, or in K*, to within ``slack``; written without the code under test."""
    cone = CASES[name][0]
    if name == "zero":
        return np.ones(slack.shape, bool) if dual else size(v) <= slack
    if name == "nonnegative":
        return v[..., 0] >= -slack
    if name == "box":
        return in_box(v, slack, dual)
    if name.startswith("second_order"):
        return np.linalg.norm(v[..., 1:], axis=-1) <= v[..., 0] + slack
    if "psd" in name:
        matrix = complex_smat(v, cone.order) if name.startswith("complex") else smat(v, cone.order)
        return np.linalg.eigvalsh(matrix).min(axis=-1) >= -slack
    if name == "power":
        signs = np.sign(ALPHAS)
        primal, polar = in_power(v, slack, ALPHAS, False), in_power(v, slack, ALPHAS, True)
        return np.where((signs > 0) ^ dual, primal, polar)
    return in_dual_exponential(v, slack) if (name == "exponential") == dual else in_exponential(v, slack)


def eigenvalues(name, v):
    return np.linalg.eigvalsh(CASES[name][0].project_dual(v).derivative().dense()[0])


@EVERY
def test_moreau(name):
    v = points(name)
    cone = CASES[name][0]
    y = cone.project_dual(v).point
    s = y - v
    slack = 1e-12 * size(v)
    assert member(name, y, slack, dual=True).all()
    assert member(name, s, slack, dual=False).all()
    complementarity = np.abs((y * s).sum(axis=-1))
    assert (complementarity <= 2e-13 * size(v) ** 2 * np.sqrt(cone.dim)).all()


@EVERY
def test_idempotent_homogeneous_and_nonexpansive(name):
    v, cone = points(name), CASES[name][0]
    y = cone.project_dual(v).point
    assert (size(cone.project_dual(y).point - y) <= 1e-13 * size(v)).all()
    for scale in (1e-150, 1e-8, 3.0, 1e8, 1e150):
        assert (size(cone.project_dual(scale * v).point - scale * y) <= 1e-14 * scale * size(v)).all()
    w = v + np.random.default_rng(1).normal(size=v.shape) * size(v)[..., None] * 0.3
    moved = np.linalg.norm(cone.project_dual(w).point - y, axis=-1)
    assert (moved <= np.linalg.norm(w - v, axis=-1) + 1e-14 * size(v)).all()


@EVERY
def test_derivative_is_a_symmetric_contraction_with_root(name):
    v, cone = points(name), CASES[name][0]
    derivative = cone.project_dual(v).derivative()
    D, S = derivative.dense()
    assert D.shape == S.shape == (*v.shape, cone.dim)
    assert derivative.margin.shape == v.shape[:-1]
    np.testing.assert_allclose(D, np.swapaxes(D, -1, -2), atol=1e-15)
    np.testing.assert_allclose(S, np.swapaxes(S, -1, -2), atol=1e-15)
    np.testing.assert_allclose(S @ S, D, atol=2e-14)
    for block in (D, S):
        values = np.linalg.eigvalsh(block)
        assert values.min() >= -1e-14
        assert values.max() <= 1 + 1e-14
    h = np.random.default_rng(2).normal(size=v.shape)
    np.testing.assert_allclose(derivative.apply(h), np.einsum("...ij,...j->...i", D, h), atol=1e-13)
    np.testing.assert_allclose(derivative.apply_root(h), np.einsum("...ij,...j->...i", S, h), atol=1e-13)


@EVERY
def test_derivative_along_v_is_the_projection(name):
    v = points(name)
    projection = CASES[name][0].project_dual(v)
    assert (size(projection.derivative().apply(v) - projection.point) <= 1e-13 * size(v)).all()


@EVERY
def test_derivative_agrees_with_differences(name):
    cone = CASES[name][0]
    v = points(name, seed=3)
    derivative = cone.project_dual(v).derivative()
    clear = derivative.margin > 1e-2 * size(v)
    if name == "power":
        clear &= v[..., 2] != 0  # there D is continuous, but not Lipschitz: see test_power_on_its_edge
    assert clear.mean() > 0.15
    rng = np.random.default_rng(4)
    for _ in range(4):
        h = rng.normal(size=v.shape)
        step = 1e-6 * size(v)[..., None]
        step = np.where(step > 0, step, 1.0)
        ahead, behind = (cone.project_dual(v + sign * step * h).point for sign in (1, -1))
        error = size((ahead - behind) / (2 * step) - derivative.apply(h))
        worst = np.where(clear, error, 0.0)
        assert worst.max() < 1e-5


@EVERY
def test_group_and_batch_equal_one_by_one(name):
    cone = CASES[name][0]
    v = points(name, number=10)
    projection = cone.project_dual(v)
    derivative = projection.derivative()
    for i, k in np.ndindex(*v.shape[:2]):
        one = cone if name == "box" else _single(cone, k)
        alone = one.project_dual(v[i, k][None])
        np.testing.assert_allclose(
            alone.point[0], projection.point[i, k], rtol=1e-12, atol=1e-14 * size(v[i, k])
        )
        np.testing.assert_allclose(alone.derivative().dense()[0][0], derivative.dense()[0][i, k], atol=1e-12)
        np.testing.assert_allclose(
            alone.derivative().margin[0], derivative.margin[i, k], rtol=1e-9, atol=1e-300
        )
    assert cone.project_dual(v[:0]).derivative().dense()[0].shape == (0, *v.shape[1:], cone.dim)
    assert cone.project_dual(v.reshape(2, 5, *v.shape[1:])).point.shape == (2, 5, *v.shape[1:])


def _single(cone, k):
    if isinstance(cone, Power):
        return Power((cone.alphas[k],))
    sizes = [getattr(cone, key) for key in ("dim", "order") if key in type(cone).__dataclass_fields__]
    return type(cone)(1, *sizes)


@EVERY
def test_tangents_broadcast_against_the_batch(name):
    cone = CASES[name][0]
    v = points(name, number=5)
    derivative = cone.project_dual(v).derivative()
    h = np.random.default_rng(5).normal(size=v.shape[1:])
    for operator in (derivative.apply, derivative.apply_root):
        expected = operator(np.broadcast_to(h, v.shape))
        np.testing.assert_array_equal(np.broadcast_to(operator(h), v.shape), expected)


@EVERY
def test_projection_agrees_with_scs(name):
    cone, cones = CASES[name]
    for v in points(name, number=10, seed=6)[:4]:
        v /= np.abs(v).max()
        m = v.size
        data = {"P": sp.eye(m, format="csc"), "A": -sp.eye(m, format="csc"), "b": np.zeros(m), "c": v.ravel()}
        options = {"verbose": False, "eps_abs": 1e-10, "eps_rel": 1e-10, "max_iters": 50000}
        s = scs.solve(data, cones, **options)["s"]
        np.testing.assert_allclose(
            cone.project_dual(v).point.ravel(), v.ravel() + s, atol=2e-7 * np.abs(v).max()
        )


@EVERY
def test_margin_is_zero_at_the_apex_and_positive_elsewhere(name):
    cone = CASES[name][0]
    at_zero = cone.project_dual(np.zeros((1, cone.count, cone.dim))).derivative()
    assert (at_zero.margin == (INF if name == "zero" else 0.0)).all()
    assert np.isin(np.round(np.linalg.eigvalsh(at_zero.dense()[0]), 12), (0.0, 1.0)).all()
    v = np.random.default_rng(7).normal(size=(200, cone.count, cone.dim))
    assert (cone.project_dual(v).derivative().margin > 0).all()


def _region(name, values):
    """What tells the regions of Π apart, given the eigenvalues of D in ascending order."""
    if "psd" in name:
        return np.stack([(values > 1e-9).sum(axis=-1), (values > 1 - 1e-9).sum(axis=-1)], axis=-1)
    return np.round(values[..., [0, -1]])  # in K*, in its polar, or between


@SMOOTH
def test_margin_is_at_most_about_the_distance_to_another_region(name):
    """Between two regions there is a kink; from inside a three-dimensional cone its distance is estimated."""
    cone = CASES[name][0]
    rng = np.random.default_rng(8)
    v = rng.normal(size=(4000, cone.count, cone.dim))
    w = v + rng.normal(size=v.shape) * rng.uniform(0, 1, size=(4000, cone.count, 1))
    regions = [_region(name, values) for values in (eigenvalues(name, v), eigenvalues(name, w))]
    crossed = (regions[0] != regions[1]).any(axis=-1)
    if name != "zero":
        assert crossed.sum() > 100
    margin = cone.project_dual(v).derivative().margin
    estimate = 2 if name in ("exponential", "dual_exponential", "power") else 1 + 1e-12
    assert (margin <= estimate * np.linalg.norm(w - v, axis=-1))[crossed].all()


@EVERY
def test_input_is_left_alone(name):
    v = points(name)
    kept = v.copy()
    projection = CASES[name][0].project_dual(v)
    projection.derivative().dense()
    np.testing.assert_array_equal(v, kept)


@EVERY
def test_not_a_number_spoils_its_own_element_only(name):
    cone = CASES[name][0]
    v = np.random.default_rng(9).normal(size=(3, cone.count, cone.dim))
    expected = cone.project_dual(v).point
    v[1] = np.nan
    with np.errstate(invalid="ignore"):
        point = cone.project_dual(v).point
    np.testing.assert_allclose(point[[0, 2]], expected[[0, 2]], rtol=1e-12)
    assert np.isnan(point[1]).any()


@EVERY
def test_where_a_search_begins_does_not_matter(name):
    cone, v = CASES[name][0], points(name)
    expected, rng = cone.project_dual(v).point, np.random.default_rng(11)
    unit = size(v)[..., None] + 1e-300
    noise = rng.standard_normal(v.shape)
    for near in (expected, expected + 1e-3 * unit * noise, unit * noise, np.full(v.shape, np.nan), 0 * v):
        projection = cone.project_dual(v, near)
        assert (np.abs(projection.point - expected) <= 1e-13 * unit).all()
        assert np.isfinite(projection.derivative().apply(v)).all()


def test_a_known_projection_is_found_at_once(monkeypatch):
    """With about two evaluations a point where the first guess is good, instead of six or so."""
    from conediff.cones import exponential

    calls = []

    def counted(function, *rest):
        return increasing_root(lambda x, which: calls.append(x.size) or function(x, which), *rest)

    increasing_root = exponential.increasing_root
    monkeypatch.setattr(exponential, "increasing_root", counted)
    v = np.random.default_rng(12).standard_normal((200, 1, 3))
    cone = Exponential(1)
    point = cone.project_dual(v).point
    cold, searched = sum(calls), calls[0]
    cone.project_dual(v * (1 + 1e-9), point)
    assert sum(calls) - cold <= 2 * searched < 5 * searched <= cold


MAGNITUDE = st.floats(-1e8, 1e8, allow_subnormal=False) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e-300, -1e-300, 1e-12]
)


@settings(max_examples=150, deadline=None)
@given(v=arrays(np.float64, (1, 3), elements=MAGNITUDE), alpha=st.floats(1e-3, 0.999))
def test_three_dimensional_cones_at_any_point(v, alpha):
    for cone in (Exponential(1), DualExponential(1), Power((alpha,)), Power((-alpha,)), SecondOrder(1, 3)):
        projection = cone.project_dual(v)
        y, unit = projection.point, np.maximum(size(v), 1e-300)
        assert (np.abs((y * (y - v)).sum(axis=-1)) <= 1e-13 * unit**2 + 1e-300).all()
        D, S = projection.derivative().dense()
        assert np.isfinite(D).all()
        np.testing.assert_allclose(S @ S, D, atol=1e-13)
        assert (size(projection.derivative().apply(v) - y) <= 1e-13 * unit).all()
        assert (size(cone.project_dual(y).point - y) <= 1e-13 * unit).all()


def exponential_residual(v):
    """How far the parts of v miss the surface relation log z = log y + x / y, in units of the last place."""
    p = DualExponential(1).project_dual(v[:, None])
    x, y, z = p.point[:, 0].T
    # Subnormal numbers have fewer digits to be right.
    surface = (p.point[:, 0] != v).any(axis=1) & (y > 1e-290) & (z > 1e-290)
    x, y, z = x[surface], y[surface], z[surface]
    return np.abs(np.log(z) - np.log(y) - x / y) / (1 + np.abs(x / y)), surface


def test_exponential_reaches_the_last_digits_over_24_decades():
    rng = np.random.default_rng(10)
    v = rng.normal(size=(3000, 3)) * 10.0 ** rng.uniform(-12, 12, size=(3000, 3))
    residual, surface = exponential_residual(v)
    assert surface.sum() > 500
    assert residual.max() < 1e-14


@pytest.mark.parametrize(
    ("v", "diagonal"),
    [
        ((-1.0, -2.0, 3.0), (1, 0, 1)),
        ((-1.0, -2.0, -3.0), (1, 0, 0)),
        ((0.0, 1.0, 2.0), (1, 1, 1)),
        ((1.0, -1.0, -2.0), (0, 0, 0)),
    ],
)
def test_exponential_off_the_surface(v, diagonal):
    projection = DualExponential(1).project_dual(np.array([v]))
    np.testing.assert_array_equal(projection.point[0], np.array(v) * diagonal)
    np.testing.assert_array_equal(projection.derivative().dense()[0][0], np.diag(diagonal))


@pytest.mark.parametrize(("alpha", "slope"), [(0.8, 1.0), (0.3, 0.0), (0.5, 2 / (2 + 2 * 3))])
def test_power_on_its_edge(alpha, slope):
    """At z = 0 with x, y of different sign D is known, and is the limit from both sides."""
    for order, a in (((0, 1), alpha), ((1, 0), 1 - alpha)):
        v = np.zeros((3, 1, 3))
        v[:, 0, order[0]], v[:, 0, order[1]], v[:, 0, 2] = 2.0, -3.0, (0.0, 1e-30, -1e-30)
        expected = np.zeros(3)
        expected[order[0]], expected[2] = 1, slope
        D = Power((-a,)).project_dual(v).derivative().dense()[0]
        np.testing.assert_allclose(D[:, 0], np.broadcast_to(np.diag(expected), (3, 3, 3)), atol=1e-8)


def test_second_order_with_no_tail_and_at_extreme_scales():
    v = np.array([[[2.0, 0, 0], [-2.0, 0, 0], [1e-200, 3e-200, 0], [1e200, 0, 3e200]]])
    projection = SecondOrder(4, 3).project_dual(v)
    expected = [[2, 0, 0], [0, 0, 0], [2e-200, 2e-200, 0], [2e200, 0, 2e200]]
    np.testing.assert_allclose(projection.point[0], expected, rtol=1e-15)
    D = projection.derivative().dense()[0][0]
    np.testing.assert_array_equal(D[:2], [np.eye(3), np.zeros((3, 3))])
    np.testing.assert_allclose(D[2], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 2 / 3]], rtol=1e-15)


def test_box_with_one_bounded_entry_by_hand():
    # -v = (1, 3) onto {|s| <= t}: to (2, 2), so the dual point is v + (2, 2).
    projection = Box((-1.0,), (1.0,)).project_dual(np.array([[-1.0, -3.0]]))
    np.testing.assert_allclose(projection.point, [[1.0, -1.0]], rtol=1e-15)
    np.testing.assert_allclose(projection.derivative().dense()[0][0], [[0.5, -0.5], [-0.5, 0.5]], rtol=1e-15)
    # An entry with an infinite bound stays free at t = 0.
    projection = Box((0.0,), (INF,)).project_dual(np.array([[5.0, -3.0]]))
    np.testing.assert_array_equal(projection.point, [[5.0, 0.0]])
    # At t = 0 an entry with two bounds is held, at s = 0 also: v is inside the dual cone.
    derivative = Box((-1.0,), (1.0,)).project_dual(np.array([[5.0, 0.0]])).derivative()
    np.testing.assert_array_equal(derivative.dense()[0][0], np.eye(2))
    assert derivative.margin > 1
    # -v = (-5, -3): t = 0, and the entry held.
    projection = Box((-1e15,), (1.0,)).project_dual(np.array([[5.0, 3.0]]))
    np.testing.assert_array_equal(projection.point, [[5.0, 0.0]])


def test_box_agrees_with_bisection():
    rng = np.random.default_rng(11)
    lower = -np.abs(rng.normal(size=40)) * 10.0 ** rng.uniform(-3, 3, 40)
    upper = np.abs(rng.normal(size=40)) * 10.0 ** rng.uniform(-3, 3, 40)
    v = rng.normal(size=(50, 1, 41)) * 10.0 ** rng.uniform(-3, 3, (50, 1, 41))
    t0, s0 = -v[:, 0, 0], -v[:, 0, 1:]
    low, high = np.zeros(50), np.abs(t0) + (np.maximum(-lower, upper) * np.abs(s0)).sum(axis=1)
    for _ in range(200):
        t = (low + high) / 2
        bound = np.where(s0 < t[:, None] * lower, lower, np.where(s0 > t[:, None] * upper, upper, 0))
        force = t - t0 + (bound * (t[:, None] * bound - s0)).sum(axis=1)
        low, high = np.where(force < 0, t, low), np.where(force < 0, high, t)
    s = np.clip(s0, t[:, None] * lower, t[:, None] * upper)
    point = Box(tuple(lower), tuple(upper)).project_dual(v).point[:, 0]
    expected = v[:, 0] + np.column_stack([t, s])
    np.testing.assert_allclose(point, expected, atol=1e-13 * np.abs(v).max())


def test_svec_is_an_isometry_in_scs_order():
    rng = np.random.default_rng(12)
    X = rng.normal(size=(2, 3, 3))
    X = X + np.swapaxes(X, -1, -2)
    np.testing.assert_allclose(smat(svec(X), 3), X, rtol=1e-15)
    np.testing.assert_allclose((svec(X) ** 2).sum(axis=-1), (X**2).sum(axis=(1, 2)), rtol=1e-14)
    a, b, c, d, e, f = svec(X)[0] / [1, np.sqrt(2), np.sqrt(2), 1, np.sqrt(2), 1]
    np.testing.assert_allclose([[a, b, c], [b, d, e], [c, e, f]], X[0], rtol=1e-15)
    Z = X + 1j * (rng.normal(size=(2, 3, 3)) * 0 + np.array([[0, 1, -2], [-1, 0, 3], [2, -3, 0]]))
    np.testing.assert_allclose(complex_smat(complex_svec(Z), 3), Z, rtol=1e-15)
    np.testing.assert_allclose((complex_svec(Z) ** 2).sum(axis=-1), (np.abs(Z) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(
        complex_svec(Z)[0, :3], [Z[0, 0, 0].real, np.sqrt(2) * Z[0, 1, 0].real, np.sqrt(2) * Z[0, 1, 0].imag]
    )


def test_exponential_margin_beside_the_face():
    """Across y = 0 > x, and across x = 0 > y, D jumps: the margin is the distance to there."""
    near = 1e-7
    v = np.array(
        [[-1, near, -2], [-1, -near, -2], [near, -1, 2], [-near, -1, 2], [-1, -1, near], [-1, -2, -near]]
    )
    derivative = DualExponential(6).project_dual(v).derivative()
    np.testing.assert_allclose(derivative.margin, near, rtol=1e-6)
    expected = [(1, 1, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 1), (1, 0, 0)]
    diagonals = np.einsum("kii->ki", derivative.dense()[0])
    np.testing.assert_allclose(diagonals, expected, atol=1e-5)


def test_every_kind_is_in_the_table_above():
    listed = {key for _, dictionary in CASES.values() for key in dictionary}
    assert listed == {key for kind in cones.registry.KINDS for key in kind.keys}


def test_no_module_outside_the_package_names_a_type_of_cone():
    """What others ask of a cone is in its protocol; they know no more of it."""
    general = {f"conediff.cones.{module}" for module in ("base", "automorphism", "forms", "product", "svec")}
    root = Path(conediff.__file__).parent
    seen = set()
    for path in root.rglob("*.py"):
        if path.parent == root / "cones":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("conediff.cones") for alias in node.names), path
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("conediff.cones"):
                if node.module == "conediff.cones.registry":
                    assert [alias.name for alias in node.names] == ["KINDS"], path  # the table of all cones
                    continue
                assert node.module == "conediff.cones", path
                for alias in node.names:
                    seen.add(alias.name)
                    assert getattr(cones, alias.name).__module__ in general, (path, alias.name)
    assert {"Cone", "ProductCone", "LowRankPart"} <= seen
