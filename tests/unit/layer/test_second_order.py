"""Second derivatives of layers: all maps, all modes, batches, failed elements, closed forms."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.derivative import StackDerivative

TIGHT = {"tol": 1e-13}


def qp():
    """Every kind of data is a parameter; x, a dual and the value are outputs."""
    x = cp.Variable(4)
    P, c = cp.Parameter((4, 4), PSD=True), cp.Parameter(4)
    A, b = cp.Parameter((3, 4)), cp.Parameter(3)
    rows, ball = A @ x <= b, cp.norm(x) <= 1
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, P) + c @ x + cp.sum(cp.exp(x))), [rows, ball])
    outputs = [x, rows.dual_variables[0], ball.dual_variables[0], problem.objective]
    layer = cd.CvxpyLayer(problem, [P, c, A, b], outputs, solver_args=TIGHT)
    rng = np.random.default_rng(3)
    L = rng.standard_normal((4, 4))
    values = [L @ L.T + np.eye(4), 8 * rng.standard_normal(4), rng.standard_normal((3, 4)), np.full(3, 0.1)]
    return layer, values


def geometric():
    """Logarithms of parameters, exponentials of outputs, and the exponential of the value."""
    x, y = cp.Variable(pos=True), cp.Variable(pos=True)
    a, b, e = cp.Parameter(pos=True), cp.Parameter(2, pos=True), cp.Parameter(value=0.5)
    problem = cp.Problem(
        cp.Minimize(a * x + b[0] / (x * y**e) + b[1] * y**2), [x * y >= 0.5 * a, x <= 10, y <= 5]
    )
    layer = cd.CvxpyLayer(problem, [a, b, e], [x, y, problem.objective], gp=True, solver_args=TIGHT)
    return layer, [np.array(1.3), np.array([0.8, 1.7]), np.array(0.5)]


def maximised():
    """A maximisation: the sense is a factor of the value."""
    x, mu, g = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    S = np.diag([1.0, 2.0, 3.0]) + 0.3
    problem = cp.Problem(
        cp.Maximize(mu @ x - g * cp.quad_form(x, S) + cp.sum(cp.log(x + 1))), [cp.sum(x) == 1]
    )
    layer = cd.CvxpyLayer(problem, [mu, g], [x, problem.objective], solver_args=TIGHT)
    return layer, [np.array([0.3, -0.2, 0.6]), np.array(0.7)]


def semidefinite():
    """The nearest PSD matrix, and its dual."""
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    psd = X >> 0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [psd])
    layer = cd.CvxpyLayer(problem, [C], [X, psd.dual_variables[0], problem.objective], solver_args=TIGHT)
    M = np.random.default_rng(0).standard_normal((3, 3))
    return layer, [M + M.T]


def complex_():
    """A complex parameter and output."""
    x, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.norm(x)))
    return cd.CvxpyLayer(problem, [c], [x], solver_args=TIGHT), [np.array([1.0 + 2j, -0.5 + 0.3j])]


def exponential_of_a_value():
    """An exponential of a value with a quadratic part, which log-log convex programs do not have."""
    layer, values = maximised()
    maps = replace(layer.maps, log_objective=True)
    return cd.CvxpyLayer.from_maps(maps, TIGHT), values


CASES = {f.__name__: f for f in (qp, geometric, maximised, exponential_of_a_value, semidefinite, complex_)}
EVERY = pytest.mark.parametrize("name", CASES)


def symmetric_if(spec, direction):
    """Perturb symmetric parameters symmetrically."""
    both = {"PSD", "symmetric"} & set(spec.attributes)
    return (direction + np.swapaxes(direction, -1, -2)) / 2 if both else direction


def random_like(rng, arrays):
    return [
        rng.standard_normal(a.shape) + (1j * rng.standard_normal(a.shape) if np.iscomplexobj(a) else 0)
        for a in arrays
    ]


def directions(rng, layer, values):
    found = random_like(rng, values)
    return [symmetric_if(spec, d) * 0.3 for spec, d in zip(layer.parameters, found, strict=True)]


def inner(left, right):
    return sum(float(np.real(np.conj(a) * b).sum()) for a, b in zip(left, right, strict=True))


def fourth_order(function, h=2e-4):
    f = {k: function(k * h) for k in (-2, -1, 1, 2)}
    return [
        (8 * (p - m) - (pp - mm)) / (12 * h) for p, m, pp, mm in zip(f[1], f[-1], f[2], f[-2], strict=True)
    ]


def close(found, expected, tolerance):
    size = max(np.abs(e).max(initial=0) for e in expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max(initial=0) <= tolerance * size


def solved(name, seed=0):
    layer, values = CASES[name]()
    rng = np.random.default_rng(seed)
    solution = layer.solve(*values)
    return layer, values, solution, rng


def loss(weights):
    """Gradient and Hessian of Σ w v + |v|² / 2 + the sum of the cubes of their real parts."""

    def gradient(values):
        return [w + v + np.real(v) ** 2 for w, v in zip(weights, values, strict=True)]

    def curvature(values):
        return lambda *dv: [d + 2 * np.real(v) * np.real(d) for v, d in zip(values, dv, strict=True)]

    return gradient, curvature


@EVERY
def test_hvp_against_differences_of_gradients(name):
    layer, values, solution, rng = solved(name)
    gradient, curvature = loss(random_like(rng, solution.values))
    w = directions(rng, layer, values)

    def at(t):
        moved = layer.solve(*(v + t * d for v, d in zip(values, w, strict=True)))
        return moved.vjp(*gradient(moved.values))

    found = solution.hvp(gradient(solution.values), w, curvature(solution.values))
    close(found, fourth_order(at), 1e-7)


@EVERY
def test_each_output_by_itself(name):
    """Without curvature of the loss, one output at a time; the others None."""
    layer, values, solution, rng = solved(name, 1)
    w = directions(rng, layer, values)
    for k, g in enumerate(random_like(rng, solution.values)):
        cotangents = [g if i == k else None for i in range(len(solution.values))]
        found = solution.hvp(cotangents, w)

        def at(t, cotangents=cotangents):
            moved = layer.solve(*(v + t * d for v, d in zip(values, w, strict=True)))
            return moved.vjp(*cotangents)

        close(found, fourth_order(at), 1e-7)


@EVERY
def test_hessians_are_symmetric_and_products_of_them(name):
    _, values, solution, rng = solved(name, 2)
    gradient, curvature = loss(random_like(rng, solution.values))
    g, own = gradient(solution.values), curvature(solution.values)
    u, w = random_like(rng, values), random_like(rng, values)
    one, two = inner(solution.hvp(g, u, own), w), inner(solution.hvp(g, w, own), u)
    assert abs(one - two) < 1e-11 * (abs(one) + 1)
    if name == "complex_":
        for matrix in (solution.jacobian, lambda: solution.hessian(g, own)):
            with pytest.raises(ValueError, match="complex.*jvp, vjp or hvp"):
                matrix()
        return
    H, J = solution.hessian(g, own), solution.jacobian()
    product, pushed = solution.hvp(g, u, own), solution.jvp(*u)
    for i, (block, v) in enumerate(zip(H, values, strict=True)):
        rows = [np.tensordot(part, d, d.ndim) for part, d in zip(block, u, strict=True)]
        np.testing.assert_allclose(sum(rows), product[i], atol=1e-11 * (1 + np.abs(product[i]).max()))
        for j, other in enumerate(values):
            left, right = H[i][j].reshape(v.size, -1), H[j][i].reshape(other.size, -1).T
            np.testing.assert_allclose(left, right, atol=1e-11 * (1 + np.abs(left).max()))
    for block, value in zip(J, pushed, strict=True):
        rows = [np.tensordot(part, d, d.ndim) for part, d in zip(block, u, strict=True)]
        np.testing.assert_allclose(sum(rows), value, atol=1e-11 * (1 + np.abs(value).max()))


@EVERY
def test_the_four_modes_are_readings_of_one_scalar(name):
    """curve is the gradient of <ω, pull(g)> in parameters and point, turns are directional derivatives."""
    layer, values, solution, rng = solved(name, 3)
    D = solution.derivative
    w, u = directions(rng, layer, values), directions(rng, layer, values)
    g, gz = random_like(rng, solution.values), 0.1 * rng.standard_normal(D.point.shape)
    pulled, pushed, moved = D.pull(g, gz), D.push(w), D.push(u)
    assert abs(inner(pulled.parameters, w) - inner([*pushed.values, pushed.point], [*g, gz])) < 1e-11 * (
        1 + abs(inner(pulled.parameters, w))
    )
    # Reverse over reverse, and reverse over forward: the derivative of the scalar along u.
    curved = D.curve(w, pushed.point, g, gz, pulled.multipliers)
    total = D.pull([None] * len(g), curved.point).parameters
    reverse = inner(curved.parameters, u) + inner(total, u)
    # Forward over reverse.
    turned = D.turn_pull(u, moved.point, g, gz, pulled.multipliers)
    rest = D.pull([None] * len(g), turned.point).parameters
    forward = inner(turned.parameters, w) + inner(rest, w)
    # Forward over forward.
    second = D.turn_push(u, moved.point, w, pushed.point)
    close(D.turn(u, w), second.values, 1e-10)
    both = inner([*second.values, second.point], [*g, gz])
    size = 1 + abs(reverse)
    assert abs(reverse - forward) < 1e-9 * size and abs(reverse - both) < 1e-9 * size
    # A change of the directions is pushed along.
    more = directions(rng, layer, values)
    changed, plain = D.turn_push(u, moved.point, w, pushed.point, more), D.push(more)
    close(
        [*changed.values, changed.point],
        [a + b for a, b in zip([*second.values, second.point], [*plain.values, plain.point], strict=True)],
        1e-10,
    )
    np.testing.assert_allclose(D.multipliers(g, gz), pulled.multipliers)


@EVERY
def test_turns_off_the_solution(name):
    """Parameters and point are independent arguments: differences along lines on which nothing is solved."""
    layer, values, solution, rng = solved(name, 4)
    w, u, g = (
        directions(rng, layer, values),
        directions(rng, layer, values),
        random_like(rng, solution.values),
    )
    x, y, s, outcome = solution.state
    at = [part + 1e-3 * rng.standard_normal(part.shape) for part in (x, y, s)]
    dz = [rng.standard_normal(part.shape) for part in at]
    gz = rng.standard_normal(solution.derivative.point.shape)

    def derivative(t):
        state = [part + t * d for part, d in zip(at, dz, strict=True)]
        return layer.resume([v + t * d for v, d in zip(values, u, strict=True)], [*state, outcome]).derivative

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cd.DegeneracyWarning)
        D, moved = derivative(0.0), np.concatenate(dz, axis=1)[0]
        pulled, pushed = D.pull(g, gz), D.push(w)
        turned = D.turn_pull(u, moved, g, gz, pulled.multipliers)
        rest = D.pull([None] * len(g), turned.point)
        found = [a + b for a, b in zip(turned.parameters, rest.parameters, strict=True)]
        expected = fourth_order(lambda t: derivative(t).pull(g, gz).parameters, 1e-5)
        close(found, expected, 1e-6)
        second = D.turn_push(u, moved, w, pushed.point)

        def push(t):
            there = derivative(t).push(w)
            return [*there.values, there.point]

        close([*second.values, second.point], fourth_order(push, 1e-5), 1e-6)
        # And curve, as the gradient of the scalar in its two arguments.
        curved = D.curve(w, pushed.point, g, gz, pulled.multipliers)
        along = inner(curved.parameters, u) + inner([curved.point], [moved])
        (difference,) = fourth_order(
            lambda t: [np.array(inner(derivative(t).pull(g, gz).parameters, w))], 1e-5
        )
        assert abs(along - difference) < 1e-6 * (1 + abs(difference))


def test_the_hessian_of_an_optimal_value_costs_no_solve_of_its_own(monkeypatch):
    layer, values, solution, rng = solved("qp")
    w = directions(rng, layer, values)
    expected = solution.hvp([None, None, None, 1.0], w)
    calls, original = [], StackDerivative._answer

    def counted(self, mode, arguments):
        calls.append(mode)
        return original(self, mode, arguments)

    monkeypatch.setattr(StackDerivative, "_answer", counted)
    close(solution.hvp([None, None, None, 1.0], w), expected, 1e-12)
    assert calls == ["jvp"]
    for _ in range(3):
        solution.hvp([w[1], None, None, None], w)
    assert calls == ["jvp", "jvp", "vjp", "vjp", *["jvp", "vjp"] * 2]  # three solves, then two
    calls.clear()
    again = layer.solve(*values)
    again.vjp(w[1], None, None, None)
    again.hvp([w[1], None, None, None], w)
    assert calls == ["vjp", "jvp", "vjp"]


@EVERY
def test_a_batch_is_its_elements_and_shared_parameters_sum(name):
    layer, values = CASES[name]()
    rng = np.random.default_rng(5)
    (shift,) = random_like(rng, [np.zeros((2, 3, *values[0].shape), values[0].dtype)])
    first = values[0] + 0.01 * symmetric_if(layer.parameters[0], shift)
    solution = layer.solve(first, *values[1:])
    gradient, curvature = loss(random_like(rng, [v[0, 0] for v in solution.values]))
    g = gradient(solution.values)
    w = [rng.standard_normal(first.shape), *random_like(rng, values[1:])]
    found = solution.hvp(g, w, curvature(solution.values))
    apart = solution.hvp(g, w, curvature(solution.values), summed=False)
    skipped = solution.hvp(g, w, curvature(solution.values), needed=[True] + [False] * (len(values) - 1))
    np.testing.assert_array_equal(skipped[0], found[0])
    assert skipped[1:] == (None,) * (len(values) - 1)
    for i, j in np.ndindex(2, 3):
        one = layer.solve(first[i, j], *values[1:])
        alone = one.hvp([part[i, j] for part in g], [w[0][i, j], *w[1:]], curvature(one.values))
        close([part[i, j] for part in apart], alone, 1e-7)
    close(found, [apart[0], *(part.sum(axis=(0, 1)) for part in apart[1:])], 1e-10)
    assert solution.values[0].shape[:2] == (2, 3)
    own = [w[0], *(np.broadcast_to(d, (2, 3, *d.shape)) for d in w[1:])]  # tangents of each element's own
    close(solution.hvp(g, own, curvature(solution.values)), found, 1e-12)


@pytest.mark.parametrize("answer", ["nan", "zero_grad"])
@pytest.mark.parametrize("failed", [[0], [2], [1, 3], [0, 1, 2, 3]])
def test_failed_elements(answer, failed):
    """Filled where something is asked of them, zero where not; the others are as without them."""
    x, c, t = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.sum(cp.exp(x))), [x <= t, x >= 0])
    layer = cd.CvxpyLayer(problem, [c, t], [x], solver_args={"on_failure": answer, **TIGHT})
    rng = np.random.default_rng(6)
    bad = np.isin(np.arange(4), failed)
    values = rng.standard_normal((4, 2)) + 3, np.where(bad, -1.0, 5.0)
    solution = layer.solve(*values)
    w = random_like(rng, values)
    ones = np.ones((4, 2))
    hc, ht = solution.hvp([ones], w, lambda dx: [2 * np.nan_to_num(dx)])
    assert (np.isnan(hc[bad]) if answer == "nan" else hc[bad] == 0).all()
    assert (np.isnan(ht[bad]) if answer == "nan" else ht[bad] == 0).all()
    masked = np.where(bad[:, None], 0.0, ones)
    quiet = solution.hvp([masked], w, lambda dx: [2 * np.where(bad[:, None], 0.0, dx)])
    assert all((part[bad] == 0).all() for part in quiet)
    for i in np.flatnonzero(~bad):
        one = layer.solve(values[0][i], values[1][i])
        alone = one.hvp([ones[i]], [w[0][i], w[1][i]], lambda dx: [2 * dx])
        close([hc[i], ht[i]], alone, 1e-8)
        close([part[i] for part in quiet], alone, 1e-8)
    D = solution.derivative
    pushed = D.push(w)
    assert np.isnan(pushed.point[bad]).all() and np.isfinite(pushed.point[~bad]).all()
    second = D.turn_push(w, pushed.point, w, pushed.point)
    assert np.isnan(second.values[0][bad]).all() and np.isfinite(second.values[0][~bad]).all()
    pulled = D.pull([ones])
    curved = D.curve(w, pushed.point, [ones], None, pulled.multipliers)
    assert (np.isnan(curved.point[bad]) if answer == "nan" else curved.point[bad] == 0).all()


def test_an_empty_batch():
    layer, (P, _, A, b) = qp()
    solution = layer.solve(P, np.zeros((0, 4)), A, b)
    g = [np.zeros(v.shape) for v in solution.values]
    w = [P, np.zeros((0, 4)), A, b]
    assert [h.shape for h in solution.hvp(g, w)] == [(4, 4), (0, 4), (3, 4), (3,)]
    assert [h.shape for h in solution.jacobian()[0]] == [(0, 4, 4, 4), (0, 4, 4), (0, 4, 3, 4), (0, 4, 3)]


def test_single_precision_in_and_out():
    layer, values = qp()
    rng = np.random.default_rng(7)
    w = directions(rng, layer, values)
    double, single = (layer.solve(*(v.astype(t) for v in values)) for t in (np.float64, np.float32))
    g = [np.ones(v.shape) for v in double.values]
    expected = double.hvp(g, w)
    found = single.hvp([part.astype(np.float32) for part in g], [d.astype(np.float32) for d in w])
    assert all(h.dtype == np.float32 for h in found)
    close([h.astype(float) for h in found], expected, 1e-4)
    assert single.derivative.push(w).point.dtype == np.float64


def test_a_resumed_and_a_pickled_solution_have_the_same_second_derivatives():
    layer, values, solution, rng = solved("qp")
    w, g = directions(rng, layer, values), random_like(rng, solution.values)
    expected = solution.hvp(g, w)
    resumed = layer.resume(values, solution.state)
    copied = pickle.loads(pickle.dumps(solution))
    for other in (resumed, copied):
        close(other.hvp(g, w), expected, 1e-9)


def test_wrong_arguments_are_refused():
    layer, values, solution, rng = solved("maximised")
    w, g = directions(rng, layer, values), random_like(rng, solution.values)
    with pytest.raises(ValueError, match="expected 2 cotangents"):
        solution.hvp(g[:1], w)
    with pytest.raises(ValueError, match="expected 2 tangents"):
        solution.hvp(g, w[:1])
    with pytest.raises(ValueError, match="expected 2 cotangents"):
        solution.hvp(g, w, lambda *dv: dv[:1])
    with pytest.raises(ValueError, match="needed must say"):
        solution.hvp(g, w, needed=[True])
    with pytest.raises(ValueError, match="a point must have shape"):
        solution.derivative.pull(g, np.zeros(3))
    with pytest.raises(ValueError, match="multipliers must have shape"):
        solution.derivative.curve(w, solution.derivative.push(w).point, g, None, np.zeros(3))


def test_inputs_stay_as_they_were_and_repeated_calls_agree_bit_for_bit():
    layer, values, solution, rng = solved("qp")
    w, g = directions(rng, layer, values), random_like(rng, solution.values)
    kept = [a.copy() for a in (*w, *g)]
    first = solution.hvp(g, w)
    for a, b in zip(kept, (*w, *g), strict=True):
        np.testing.assert_array_equal(a, b)
    g[0][:] = 7.0  # what the last pull-back was remembered by is a copy
    changed = solution.hvp(g, w)
    assert not np.array_equal(changed[0], first[0])
    g[0][:] = kept[len(w)]
    for _ in range(2):
        for a, b in zip(solution.hvp(g, w), first, strict=True):
            np.testing.assert_array_equal(a, b)
