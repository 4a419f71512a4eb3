"""Models with the layer inside learn what they should."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from tests.adapters.on_tensorflow import CvxpyLayer, keras, tf

datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def nearest(size, constraints, objective=None):
    """Build the layer that maps a point to the nearest, in a sense, of those allowed."""
    z, x = cp.Variable(size), cp.Parameter(size)
    objective = objective(z, x) if objective else cp.sum_squares(z - x)
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints(z)), [x], [z], single_output=True)


def softmax(size):
    return nearest(size, lambda z: [cp.sum(z) == 1], lambda z, x: -x @ z - cp.sum(cp.entr(z)))


def sparsemax(size):
    return nearest(size, lambda z: [cp.sum(z) == 1, z >= 0])


def iris():
    X, y = datasets.load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X = (X - X.mean(0)) / X.std(0)
    return X[order].astype("float32"), y[order]


def test_case_k(tmp_path):
    """Minimise |z - x|, z >= 0, inside Sequential, after a float32 Dense; fit, a graph, save and load."""
    z, x = cp.Variable(20), cp.Parameter(20)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.norm(z - x)), [z >= 0]), [x], [z], single_output=True)
    model = keras.Sequential([keras.layers.Dense(20), layer, keras.layers.Dense(1)])
    model.build((300, 20))
    assert model.output_shape == (300, 1)
    model.compile("adam", "mse")
    X = np.random.default_rng(0).standard_normal((300, 20)).astype("float32")
    y = np.maximum(X, 0).sum(1, keepdims=True)
    history = model.fit(X, y, epochs=3, batch_size=100, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert np.isfinite(model.evaluate(X, y, verbose=0))
    call = tf.function(model, autograph=False)
    np.testing.assert_allclose(call(X[:7]), model.predict(X[:7], verbose=0), rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "k.keras")
    again = keras.saving.load_model(tmp_path / "k.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


def test_projection_inside_a_classifier():
    """Iris through two Dense layers, and between them a projection onto the box and halfspace."""
    X, y = iris()
    layer = nearest(6, lambda z: [z >= 0, z <= 1, cp.sum(z) <= 2.5])
    model = keras.Sequential([keras.layers.Dense(6), layer, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((X[:120], y[:120])).shuffle(120, seed=0).batch(32)
    before = model.layers[0](X[:1]), model.evaluate(X[120:], y[120:], verbose=0)[1]
    model.fit(data, epochs=15, validation_data=(X[120:], y[120:]), verbose=0)
    assert model.evaluate(X[120:], y[120:], verbose=0)[1] >= max(0.9, before[1])
    assert model.predict(X[120:], verbose=0).shape == (30, 3)


@pytest.mark.parametrize("attention", [softmax, sparsemax])
def test_attention(attention):
    """Learned scores attend to the one position in five that carries the answer."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((256, 5)).astype("float32")
    inputs = keras.Input((5,))
    scores = keras.layers.Dense(5, kernel_initializer="zeros", bias_initializer="zeros")(0 * inputs)
    weights = attention(5)(scores)
    model = keras.Model(inputs, keras.ops.sum(weights * inputs, axis=1, keepdims=True))
    model.compile(keras.optimizers.Adam(0.2), "mse")
    model.fit(X, X[:, 3:4], batch_size=64, epochs=12, verbose=0)
    learned = keras.Model(inputs, weights).predict(X[:2], verbose=0)
    assert (learned.argmax(1) == 3).all() and learned[:, 3].min() > 0.9
    np.testing.assert_allclose(learned.sum(1), 1, atol=1e-6)
    if attention is softmax:
        values = rng.standard_normal((3, 5))
        np.testing.assert_allclose(attention(5)(values), tf.nn.softmax(values), atol=1e-8)


def test_gradients_are_kerass_own():
    """Against Keras's softmax, one step of training is the same."""
    X, y = iris()
    steps = []
    for activation in (softmax(3), keras.layers.Softmax()):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(3), activation])
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.fit(X, y, epochs=1, batch_size=50, shuffle=False, verbose=0)
        steps.append(model.get_weights())
    for got, expected in zip(*steps, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 2}], ids=str)
def test_other_loops_train_the_same(options):
    X, y = iris()
    losses = []
    for chosen in ({}, options):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(3), sparsemax(3), keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, **chosen)
        losses.append(model.fit(X, y, epochs=2, batch_size=75, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_mixed_precision_trains():
    X, y = iris()
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = keras.Sequential(
            [keras.layers.Dense(4), sparsemax(4), keras.layers.Dense(3, dtype="float32")]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.05), loss)
        history = model.fit(X, y, epochs=5, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy(before)
    assert history[-1] < 0.7 * history[0]


def test_elements_without_a_solution():
    """Their rows are NaN and pull nothing back; a loss that leaves them out trains."""
    x, p = cp.Variable(2), cp.Parameter(2, name="p")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    points = np.array([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]], "float32")

    def loss(y, x):
        return tf.reduce_sum(tf.where(tf.math.is_finite(x), x, 0.0))

    layer = CvxpyLayer(problem, [p], [x], single_output=True, solver_args={"on_failure": "zero_grad"})
    model = keras.Sequential([keras.layers.Dense(2, kernel_initializer="identity"), layer])
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(points, points, verbose=0)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(bias, [-0.2, -0.2], atol=1e-5)
    np.testing.assert_allclose(kernel, np.eye(2) - 0.1 * np.array([[0.4, 0.4], [0.3, 0.3]]), atol=1e-5)
    refusing = keras.Sequential([CvxpyLayer(problem, [p], [x], single_output=True)])
    with pytest.raises(tf.errors.UnknownError, match=r"1 of 3 elements have no solution: 1 \(infeasible\)"):
        refusing.predict(points, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"parameter 'p' is not finite: p\[1, 0\]"):
        refusing.predict(np.array([[0, 0], [np.nan, 0]]), verbose=0)


def test_jit_is_declined():
    X, y = iris()
    model = keras.Sequential([keras.layers.Dense(3), softmax(3)])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
        model.fit(X[:8], y[:8], verbose=0)
