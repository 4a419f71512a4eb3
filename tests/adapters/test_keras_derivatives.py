"""Derivatives of the Keras layer in every mode of TensorFlow; what is not there is refused."""

from __future__ import annotations

import gc
import tracemalloc
import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.adapters.on_tensorflow import CvxpyLayer, tf

RNG = np.random.default_rng(0)
# One matrix for four right-hand sides, with tangents and a cotangent.
A, B, DA, DB = (tf.constant(RNG.standard_normal(shape)) for shape in [(2, 3), (4, 2), (2, 3), (4, 2)])
W = RNG.standard_normal((4, 3))


def _layers():
    a, b, x = cp.Parameter((2, 3)), cp.Parameter(2), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.sum(x)), [a @ x == b])
    core = cd.CvxpyLayer(problem, [a, b], [x])
    return CvxpyLayer(problem, [a, b], [x], single_output=True), core.solve(A.numpy(), B.numpy())


LAYER, SOLUTION = _layers()
GA, GB = SOLUTION.vjp(W)
(DX,) = SOLUTION.jvp(DA.numpy(), DB.numpy())
GRAPH = tf.function(lambda a, b: LAYER(a, b), autograph=False)
BOTH = pytest.mark.parametrize("layer", [LAYER, GRAPH], ids=["eager", "graph"])


def in_graph(function):
    """Run the whole function, tapes included, in one graph."""
    return lambda *args: tf.function(function, autograph=False)(*args)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@BOTH
def test_persistent_tape(layer):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([A, B])
        x = layer(A, B)
        loss = tf.reduce_sum(x * W)
        other = tf.reduce_sum(x**2)
    for _ in range(2):
        a, b = tape.gradient(loss, [A, B])
        close(a, GA)
        close(b, GB)
    close(tape.gradient(other, B), SOLUTION.vjp(2 * SOLUTION.values[0])[1])


@BOTH
@pytest.mark.parametrize("pfor", [True, False], ids=["pfor", "loop"])
def test_jacobians(layer, pfor):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([A, B])
        x = layer(A, B)
    by_b = tape.batch_jacobian(x, B, experimental_use_pfor=pfor)
    by_a = tape.jacobian(x, A, experimental_use_pfor=pfor)
    close(np.einsum("bij,bi->bj", by_b, W), GB)
    close(np.einsum("bikl,bi->kl", by_a, W), GA)
    close(np.einsum("bikl,kl->bi", by_a, DA) + np.einsum("bij,bj->bi", by_b, DB), DX)


@BOTH
def test_forward_mode(layer):
    with tf.autodiff.ForwardAccumulator([A, B], [DA, DB]) as accumulator:
        x = layer(A, B)
    close(accumulator.jvp(x), DX)
    with tf.autodiff.ForwardAccumulator(B, DB) as accumulator:
        x = layer(A, B)
    close(accumulator.jvp(x), SOLUTION.jvp(None, DB.numpy())[0])


def test_forward_mode_within_a_graph():
    def push(a, b, da, db):
        with tf.autodiff.ForwardAccumulator([a, b], [da, db]) as accumulator:
            x = LAYER(a, b)
        return x, accumulator.jvp(x)

    x, dx = in_graph(push)(A, B, DA, DB)
    close(x, SOLUTION.values[0])
    close(dx, DX)


@BOTH
def test_both_modes_at_once(layer):
    with tf.GradientTape() as tape, tf.autodiff.ForwardAccumulator([A, B], [DA, DB]) as accumulator:
        tape.watch([A, B])
        x = layer(A, B)
    close(tape.gradient(x, B, W), GB)
    close(accumulator.jvp(x), DX)


def _loss(x):
    return tf.reduce_sum(x**3)


def _twice(a, b, layer=LAYER):
    with tf.GradientTape() as outer:
        outer.watch([a, b])
        with tf.GradientTape() as inner:
            inner.watch([a, b])
            loss = _loss(layer(a, b))
        gradients = inner.gradient(loss, [a, b])
    return outer.gradient(gradients, [a, b], [DA, DB])


def _forward_over_reverse(a, b):
    with tf.autodiff.ForwardAccumulator([a, b], [DA, DB]) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            loss = _loss(LAYER(a, b))
        gradients = tape.gradient(loss, [a, b])
    return [accumulator.jvp(g) for g in gradients]


def _reverse_over_forward(a, b):
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        with tf.autodiff.ForwardAccumulator([a, b], [DA, DB]) as accumulator:
            loss = _loss(LAYER(a, b))
        change = accumulator.jvp(loss)
    return tape.gradient(change, [a, b])


def _through_a_graph(a, b):
    return _twice(a, b, GRAPH)


def _forward_over_forward(a, b):
    with tf.autodiff.ForwardAccumulator([a, b], [DA, DB]) as accumulator:
        with tf.autodiff.ForwardAccumulator([a, b], [DA, DB]) as inner:
            loss = _loss(LAYER(a, b))
        change = inner.jvp(loss)
    return [accumulator.jvp(change)]


SECOND = [_twice, _forward_over_reverse, _reverse_over_forward, _through_a_graph]


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
def test_second_derivatives(second, run):
    """Of a loss that is curved itself, in a parameter that the batch shares and one that it does not."""
    (x,) = SOLUTION.values
    expected = SOLUTION.hvp([3 * x**2], [DA.numpy(), DB.numpy()], lambda dx: [6 * x * dx])
    for got, exact in zip(run(second)(A, B), expected, strict=True):
        close(got, exact)


@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
def test_forward_over_forward(run):
    (x,) = SOLUTION.values
    along = DA.numpy(), DB.numpy()
    hvp = SOLUTION.hvp([3 * x**2], along, lambda dx: [6 * x * dx])
    close(run(_forward_over_forward)(A, B)[0], sum(np.sum(g * d) for g, d in zip(hvp, along, strict=True)))


@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
@pytest.mark.parametrize("pfor", [True, False], ids=["pfor", "loop"])
def test_the_jacobian_of_a_gradient(run, pfor):
    def hessian(a, b):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(b)
            with tf.GradientTape() as inner:
                inner.watch(b)
                loss = _loss(LAYER(a, b))
            gradient = inner.gradient(loss, b)
        return outer.jacobian(gradient, b, experimental_use_pfor=pfor)

    (x,) = SOLUTION.values
    H = np.reshape(run(hessian)(A, B), (8, 8))
    for k, unit in enumerate(np.eye(8)):
        column = SOLUTION.hvp([3 * x**2], [None, unit.reshape(4, 2)], lambda dx: [6 * x * dx])
        close(H[:, k], column[1].ravel())


def test_a_gradient_penalty_trains_what_comes_before_the_layer():
    w = tf.Variable(2.0, dtype=tf.float64)
    with tf.GradientTape() as outer:
        b = w * B
        with tf.GradientTape() as inner:
            inner.watch(b)
            loss = _loss(LAYER(A, b))
        penalty = tf.reduce_sum(inner.gradient(loss, b) ** 2)
    got = outer.gradient(penalty, w)
    core = LAYER._core

    def value(w):
        solution = core.solve(A.numpy(), w * B.numpy())
        return np.sum(solution.vjp(3 * solution.values[0] ** 2)[1] ** 2)

    close(got, (8 * (value(2 + 1e-3) - value(2 - 1e-3)) - (value(2 + 2e-3) - value(2 - 2e-3))) / 12e-3)


def test_a_first_derivative_computes_no_second_one(monkeypatch):
    """In eager mode; a graph leaves out what it does not use."""
    calls = []
    monkeypatch.setattr(cd.LayerSolution, "hvp", lambda *_, **__: calls.append("hvp"))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([A, B])
        loss = _loss(LAYER(A, B))
    tape.gradient(loss, [A, B])
    in_graph(lambda a, b: tf.gradients(_loss(LAYER(a, b)), [a, b]))(A, B)
    assert not calls


THIRD = [_twice, _forward_over_reverse, _reverse_over_forward]


@pytest.mark.parametrize("second", THIRD)
@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
def test_third_derivatives_are_refused(second, run):
    """Never half of them: what cannot be computed is an error."""

    def third(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            found = second(a, b)
        return tape.gradient(found, [a, b])

    with pytest.raises((NotImplementedError, tf.errors.UnimplementedError), match="third derivatives"):
        run(third)(A, B)


@pytest.mark.parametrize("second", [*THIRD, _forward_over_forward])
@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
def test_third_derivatives_in_forward_mode_are_refused(second, run):
    def third(a, b):
        with tf.autodiff.ForwardAccumulator([a, b], [DA, DB]) as accumulator:
            found = second(a, b)
        return [accumulator.jvp(g) for g in found]

    # TensorFlow's own InternalError where it fails before it asks the layer.
    message = "third derivatives|returned too few gradients"
    with pytest.raises((NotImplementedError, tf.errors.OpError), match=message):
        run(third)(A, B)


@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
def test_nested_tapes_where_defined(run):
    """The gradient is linear in what the outputs are multiplied with."""

    def nested(a, b, w):
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as inner:
                inner.watch(b)
                loss = tf.reduce_sum(w * LAYER(a, b))
            gradient = inner.gradient(loss, b)
        return outer.gradient(gradient, w, DB)

    close(run(nested)(A, B, tf.constant(W)), SOLUTION.jvp(None, DB.numpy())[0])


@pytest.mark.parametrize("run", [lambda f: f, in_graph], ids=["eager", "graph"])
@pytest.mark.parametrize("each", [tf.map_fn, tf.vectorized_map])
def test_mapped(run, each):
    """Loops over the layer, and vectorised loops, have its gradient."""

    def mapped(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            x = each(lambda row: LAYER(a, row), b)
        return x, *tape.gradient(x, [a, b], W)

    for got, expected in zip(run(mapped)(A, B), (SOLUTION.values[0], GA, GB), strict=True):
        close(got, expected)


def test_loop_in_a_graph():
    def loop(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            zero = tf.zeros((4, 3), tf.float64)
            _, x = tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, x + LAYER(a, b)), (0, zero))
        return tape.gradient(x, [a, b], W)

    for got, expected in zip(in_graph(loop)(A, B), (GA, GB), strict=True):
        close(got, 2 * expected)


def test_second_derivatives_of_vectorised_jacobians():
    with tf.GradientTape() as outer:
        outer.watch(B)
        with tf.GradientTape() as inner:
            inner.watch(B)
            x = LAYER(A, B) ** 3
        jacobian = inner.batch_jacobian(x, B)
    got = outer.gradient(jacobian, B)
    (x,) = SOLUTION.values
    ones = np.ones((4, 2))
    close(got, SOLUTION.hvp([3 * x**2], [None, ones], lambda dx: [6 * x * dx])[1])


def test_an_eager_tape_inside_a_graph():
    """The graph owns the solution that its backward pass needs, also when the tape is gone."""

    def begin():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(B)
            x = LAYER(A, B)
        function = tf.function(lambda w: tape.gradient(x, B, w), autograph=False)
        return function.get_concrete_function(tf.TensorSpec((4, 3), tf.float64))

    pull = begin()
    for _ in range(2):
        gc.collect()
        close(pull(tf.constant(W)), GB)


def test_an_eager_tape_inside_a_nested_graph():
    """Also when the inner function, the tape and the output are gone."""

    def begin():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(B)
            x = LAYER(A, B)

        def outer(w):
            return tf.function(lambda w: tape.gradient(x, B, w), autograph=False)(w)

        return tf.function(outer, autograph=False).get_concrete_function(tf.TensorSpec((4, 3), tf.float64))

    pull = begin()
    gc.collect()
    close(pull(tf.constant(W)), GB)


def test_a_tape_outlives_its_function():
    function = tf.function(lambda a, b: LAYER(a, b), autograph=False)
    with tf.GradientTape() as tape:
        tape.watch(B)
        x = function(A, B)
    del function
    gc.collect()
    close(tape.gradient(x, B, W), GB)


def test_only_what_is_needed(monkeypatch):
    asked = []
    original = cd.LayerSolution.vjp

    def spy(self, *cotangents, needed=None, **options):
        asked.append(list(needed))
        return original(self, *cotangents, needed=needed, **options)

    monkeypatch.setattr(cd.LayerSolution, "vjp", spy)
    with tf.GradientTape() as tape:
        tape.watch(B)
        x = LAYER(A, B)
    close(tape.gradient(x, B, W), GB)
    assert asked == [[False, True]]

    def constant_matrix(b):
        with tf.GradientTape() as tape:
            tape.watch(b)
            x = LAYER(tf.constant(A.numpy()), b)
        return tape.gradient(x, b, W)

    close(in_graph(constant_matrix)(B), GB)
    assert asked[1:] == [[False, True]]

    def whole_numbers(a, b):
        with tf.GradientTape() as tape:
            tape.watch(a)
            x = LAYER(a, b)
        return tape.gradient(x, a)

    in_graph(whole_numbers)(A, tf.constant([[1, 2]]))
    assert asked[2:] == [[True, False]]


def test_integers_have_no_gradient():
    b = tf.constant([[1, 2], [3, 4]])
    with tf.GradientTape() as tape:
        tape.watch(A)
        x = LAYER(A, b)
    assert x.dtype == "float64"
    assert tape.gradient(x, A).shape == A.shape


@BOTH
def test_compute_gradient(layer):
    theory, numbers = tf.test.compute_gradient(layer, [A, B], delta=1e-5)
    for exact, estimate in zip(theory, numbers, strict=True):
        np.testing.assert_allclose(exact, estimate, rtol=1e-6, atol=1e-8)


def test_complex_gradients_are_tensorflows():
    """TensorFlow's convention: the gradient of a real function is dL/dRe + i dL/dIm."""
    X, C = cp.Variable((2, 2), hermitian=True), cp.Parameter((2, 2), complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.real(cp.trace(X)) == 1])
    layer = CvxpyLayer(problem, [C], [X], single_output=True)
    c = tf.constant(RNG.standard_normal((2, 2)) + 1j * RNG.standard_normal((2, 2)))
    weight = tf.constant(RNG.standard_normal((2, 2)) + 1j * RNG.standard_normal((2, 2)))

    def closed(c):
        hermitian = (c + tf.linalg.adjoint(c)) / 2
        shift = (1 - tf.linalg.trace(hermitian)) / 2
        return hermitian + shift * tf.eye(2, dtype=c.dtype)

    gradients = []
    for function in (layer, closed):
        with tf.GradientTape() as tape:
            tape.watch(c)
            loss = tf.math.real(tf.reduce_sum(weight * function(c)))
        gradients.append(tape.gradient(loss, c))
    close(*gradients)
    # A real value of a complex parameter has the real part of the gradient, taken and not cast away.
    real = tf.math.real(c)
    gradients = []
    for function in (layer, lambda r: closed(tf.cast(r, c.dtype))):
        with tf.GradientTape() as tape, warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            tape.watch(real)
            loss = tf.math.real(tf.reduce_sum(weight * function(real)))
            gradients.append(tape.gradient(loss, real))
    assert gradients[0].dtype == "float64"
    close(*gradients)


@pytest.mark.parametrize("layer", [LAYER, GRAPH], ids=["eager", "graph"])
@pytest.mark.parametrize("steps", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_is_flat(layer, steps):
    """Neither calls under a tape nor those without leave anything behind."""

    def step():
        with tf.GradientTape() as tape:
            tape.watch([A, B])
            loss = tf.reduce_sum(layer(A, B) * W)
        tape.gradient(loss, [A, B])
        with tf.GradientTape() as tape:
            tape.watch(B)
            layer(A, B)
        layer(A, B)

    def live():
        gc.collect()
        return tracemalloc.get_traced_memory()[0], len(gc.get_objects())

    tracemalloc.start()
    try:
        for _ in range(200):
            step()
        start = live()
        for _ in range(steps):
            step()
        end = live()
    finally:
        tracemalloc.stop()
    assert end[0] - start[0] < 50_000
    assert end[1] - start[1] < 200


def test_jacobians_leave_nothing_behind():
    def step():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(B)
            x = LAYER(A, B)
        tape.batch_jacobian(x, B)

    for _ in range(3):
        step()
    gc.collect()
    before = sum(isinstance(o, cd.LayerSolution) for o in gc.get_objects())
    for _ in range(5):
        step()
    gc.collect()
    assert sum(isinstance(o, cd.LayerSolution) for o in gc.get_objects()) <= before


def test_warnings_point_at_the_users_line():
    x, p = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize((x - p) ** 2), [x >= 0]), [p], [x], single_output=True)
    v = tf.Variable(0.0, dtype="float64")
    with tf.GradientTape() as tape:
        y = layer(v)
    with pytest.warns(cd.DegeneracyWarning) as caught:
        tape.gradient(y, v)
    assert caught[0].filename == __file__


def test_xla_says_what_to_do():
    with pytest.raises(tf.errors.InvalidArgumentError, match="pass_jit_compile_False"):
        tf.function(lambda a, b: LAYER(a, b), jit_compile=True, autograph=False)(A, B)
