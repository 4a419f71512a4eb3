"""The layer as Keras uses it: calls, shapes before data, dtypes, weights, models."""

from __future__ import annotations

import copy
import importlib
import threading

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.adapters.on_tensorflow import CvxpyLayer, OptLayer, keras, tf

RNG = np.random.default_rng(1)
A, B = RNG.standard_normal((2, 3)), RNG.standard_normal((5, 2))
# Least norm: x = A' (A A')^-1 b.
X = np.linalg.solve(A @ A.T, B.T).T @ A


def least_norm(**options):
    a, b, x = cp.Parameter((2, 3), name="A"), cp.Parameter(2, name="b"), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [a @ x == b])
    weights = {(a if key == "A" else b): value for key, value in options.pop("weights", {}).items()}
    return CvxpyLayer(problem, [a, b], [x], weights=weights, **options)


def projection(size=4, **options):
    z, x = cp.Variable(size), cp.Parameter(size)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [z >= 0]), [x], [z], **options)


def test_alias():
    alias = importlib.import_module("conediff.tensorflow")
    assert alias.CvxpyLayer is CvxpyLayer and alias.OptLayer is OptLayer
    assert issubclass(CvxpyLayer, keras.layers.Layer)


@pytest.mark.parametrize("form", [(A, B), ([A, B],), ((A, B),), ({"b": B, "A": A},)])
def test_call_forms(form):
    (x,) = least_norm()(*form)
    np.testing.assert_allclose(x, X, rtol=1e-9)
    (x,) = least_norm()(*form, solver_args={"tol": 1e-8, "threads": 1})
    np.testing.assert_allclose(x, X, rtol=1e-6)


def test_a_tuple_in_the_middle_of_a_sequential_model_is_refused_with_advice():
    with pytest.raises(ValueError, match="tuple of 1.*single_output=True"):
        keras.Sequential([keras.Input((4,)), projection(), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="tuple of 1.*single_output=True"):
        keras.Sequential([keras.layers.Dense(4), projection(), keras.layers.Dense(1)])(tf.ones((2, 3)))
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)))
    two = CvxpyLayer(problem, [p], [x, problem.objective])
    for following in (keras.layers.Dense(1), keras.layers.Dropout(0.5), keras.layers.Add()):
        with pytest.raises(ValueError, match=r"tuple of 2.*keras\.Model"):
            keras.Sequential([keras.Input((2,)), two, following])
    inner = keras.Sequential([projection(), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="tuple of 1.*single_output=True"):
        keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(1)])
    last = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), projection()])
    assert last(tf.ones((2, 4))).shape == (2, 4)  # Keras unpacks what is last
    model = keras.Sequential([keras.Input((4,)), projection(single_output=True), keras.layers.Dense(1)])
    assert model(tf.ones((2, 4))).shape == (2, 1)


@pytest.mark.parametrize(
    ("tensor", "advice"),
    [
        (tf.ragged.constant([[1.0, 2, 3, 4], [1.0]]), r"RaggedTensor: pass tensor\.to_tensor"),
        (tf.sparse.from_dense(tf.ones((2, 4))), r"SparseTensor: pass tf\.sparse\.to_dense"),
    ],
)
def test_tensors_that_are_not_dense_are_refused_with_advice(tensor, advice):
    with pytest.raises(TypeError, match=advice):
        projection()(tensor)


def test_variables_are_taken_as_tensors():
    (x,) = least_norm()(tf.Variable(A), keras.Variable(B, dtype="float64"))
    np.testing.assert_allclose(x, X, rtol=1e-9)
    variable = tf.Variable(B)
    with tf.GradientTape() as tape:
        (x,) = least_norm()(A, variable)
    assert tape.gradient(x, variable).shape == (5, 2)


# ------------------------------------------------------------------ before there are data


def test_symbolic_call():
    (x,) = least_norm()(keras.Input((2, 3)), keras.Input((2,)))
    assert x.shape == (None, 3) and x.dtype == "float32"
    (x,) = least_norm()(keras.Input((7, 2, 3)), keras.Input((1, 2), dtype="float64"))
    assert x.shape == (None, 7, 3) and x.dtype == "float64"


def test_output_shapes():
    layer = least_norm()
    assert layer.compute_output_shape([(2, 3), (None, 2)]) == ((None, 3),)
    assert layer.compute_output_shape((2, 3), (7, 1, 2)) == ((7, 1, 3),)
    assert layer.compute_output_shape({"A": (9, 1, 2, 3), "b": (1, 4, 2)}) == ((9, 4, 3),)
    assert projection(single_output=True).compute_output_shape((None, 4)) == (None, 4)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 4), (2,)], "Invalid parameter shape for parameter 'A'"),
        ([(3,), (2,)], "Invalid parameter dimensionality"),
        ([(5, 2, 3), (4, 2)], "Inconsistent batch sizes"),
        ([(2, 3)], "received 1 tensors, expected 2: .*'A', 'b'"),
        ({"A": (2, 3), "c": (2,)}, "by the names"),
    ],
)
def test_bad_shapes_are_found_before_data(shapes, message):
    with pytest.raises(ValueError, match=message):
        least_norm().build(shapes)
    with pytest.raises(ValueError, match=message):
        least_norm().compute_output_shape(shapes)
    symbols = keras.tree.map_shape_structure(lambda s: keras.KerasTensor((None, *s[1:])), shapes)
    if "Inconsistent" not in message and all(len(s) > 1 for s in keras.tree.flatten(shapes) if np.ndim(s)):
        with pytest.raises(ValueError):
            least_norm()(symbols)


def test_none_is_no_value():
    layer, message = least_norm(), "A tensor must be provided for each CVXPY parameter: got None for 'b'"
    for values, shapes in (([A, None], [(2, 3), None]), ({"A": A, "b": None}, {"A": (2, 3), "b": None})):
        with pytest.raises(ValueError, match=message):
            layer.call(values)
        with pytest.raises(ValueError, match=message):
            layer.build(shapes)


def test_functional_and_subclassed_models():
    a, b = keras.Input((2, 3)), keras.Input((2,))
    (x,) = least_norm()(a, b)
    model = keras.Model([a, b], keras.layers.Dense(1, kernel_initializer="ones")(x))
    many = np.broadcast_to(A, (5, 2, 3)).astype("float32")
    expected = X.sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict([many, B], verbose=0), expected, rtol=1e-4, atol=1e-5)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = least_norm()

        def call(self, inputs):
            return self.layer(inputs)[0]

    np.testing.assert_allclose(Model().predict([many, B], verbose=0), X, rtol=1e-4, atol=1e-5)


def test_time_distributed():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.layers.TimeDistributed(projection(single_output=True))(inputs))
    assert model.output_shape == (None, 5, 4)
    x = RNG.standard_normal((2, 5, 4)).astype("float32")
    np.testing.assert_allclose(model.predict(x, verbose=0), x.clip(0), atol=1e-6)


def test_batch_sizes_change():
    """One trace serves batches of every size; the static shape is kept as far as it is known."""
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)], autograph=False)
    def call(x):
        traces.append(1)
        (z,) = layer(x)
        assert z.shape.as_list() == [None, 4]
        return z

    layer = projection()
    for size in (3, 1, 0, 8):
        x = RNG.standard_normal((size, 4)).astype("float32")
        np.testing.assert_allclose(call(x), x.clip(0), atol=1e-6)
    assert len(traces) == 1


def test_tf_data():
    data = tf.data.Dataset.from_tensor_slices(RNG.standard_normal((6, 4))).batch(4)
    layer = projection(single_output=True)
    for x, z in data.map(lambda x: (x, layer(x)), num_parallel_calls=2):
        np.testing.assert_allclose(z, np.clip(x, 0, None), atol=1e-9)


# ------------------------------------------------------------------ dtypes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_is_the_inputs(dtype):
    z, *_ = projection()(tf.cast(RNG.standard_normal((3, 4)), dtype))
    assert z.dtype == dtype


@pytest.mark.parametrize(("given", "real"), [("complex64", "float32"), ("complex128", "float64")])
def test_complex_dtypes(given, real):
    x, p = cp.Variable(2, complex=True), cp.Parameter(2, complex=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)))
    layer = CvxpyLayer(problem, [p], [x, problem.objective])
    value = tf.constant([1 + 2j, 3], given)
    for function in (layer, tf.function(lambda p: layer(p), autograph=False)):
        with tf.GradientTape() as tape:
            tape.watch(value)
            outputs = function(value)
            loss = tf.reduce_sum(tf.math.real(outputs[0]))
        assert [output.dtype for output in outputs] == [given, real]
        gradient = tape.gradient(loss, value)
        assert gradient.dtype == given
        np.testing.assert_allclose(gradient, np.ones(2), atol=1e-6)


def test_policies():
    x = RNG.standard_normal((3, 4))
    assert projection(dtype="float32")(x)[0].dtype == "float32"
    assert projection(dtype="mixed_float16")(x)[0].dtype == "float16"
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        layer = projection(weights={})
        assert layer(x)[0].dtype == "bfloat16"
        model = keras.Sequential([keras.layers.Dense(4), projection(single_output=True)])
        assert model(x).dtype == "bfloat16"
        layer = least_norm(weights={"A": "glorot_uniform"})
        assert layer(tf.cast(B, "bfloat16"))[0].dtype == "bfloat16"
        assert layer.weights[0].dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


def test_mixed_and_integer_inputs():
    layer = least_norm()
    assert layer(A.astype("float32"), B)[0].dtype == "float64"
    assert layer(tf.cast(A, "float16"), tf.cast(B, "bfloat16"))[0].dtype == "float32"
    assert projection()(tf.constant([1, -2, 3, 4]))[0].dtype == "float32"


def test_rank_deficient_psd_in_low_precision():
    """Attributes are checked with a tolerance to match the precision of what was passed."""
    x, P = cp.Variable(3), cp.Parameter((3, 3), PSD=True)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, P) + cp.sum_squares(x - 1)))
    layer, v = CvxpyLayer(problem, [P], [x]), RNG.standard_normal((3, 1))
    for dtype in ("bfloat16", "float16", "float32"):
        assert layer(tf.cast(v @ v.T, dtype))[0].dtype == dtype


# ------------------------------------------------------------------ weights


def test_weights():
    start = keras.constraints.NonNeg()
    layer = least_norm(
        weights={"A": A, "b": {"initializer": "ones", "regularizer": "l2", "constraint": start}}
    )
    assert [w.path.split("/")[-1] for w in layer.trainable_weights] == ["A", "b"]
    (x,) = layer()
    assert x.shape == (3,)
    np.testing.assert_allclose(A @ x.numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(layer.losses, [0.01 * 2], rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer()[0])
    gradients = tape.gradient(loss, [w.value for w in layer.trainable_weights])
    assert [g.shape.as_list() for g in gradients] == [[2, 3], [2]]
    expected = cd.CvxpyLayer.from_maps(layer._core.maps).solve(A.astype("float32"), np.ones(2, "float32"))
    for got, exact in zip(gradients, expected.vjp(np.ones(3)), strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-5)


def test_frozen_weights_stay():
    layer = least_norm(weights={"A": A}, single_output=True)
    model = keras.Sequential([keras.layers.Dense(2), layer])
    for trainable in (False, True):
        layer.trainable = trainable
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(B, np.ones((5, 3)), verbose=0)
        assert np.array_equal(layer.get_weights()[0], A.astype("float32")) is not trainable


def test_weights_leave_the_other_parameters_to_calls():
    layer = least_norm(weights={"A": {"initializer": A, "trainable": False}}, single_output=True)
    assert not layer.trainable_weights and len(layer.non_trainable_weights) == 1
    for form in (B, [B], {"b": B}):
        np.testing.assert_allclose(layer(form), X, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape((None, 2)) == (None, 3)
    with pytest.raises(ValueError, match=r"received 2 tensors, expected 1: .*\('b'\)"):
        layer(A, B)
    model = keras.Sequential([keras.Input((2,)), layer])
    assert model.output_shape == (None, 3)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({cp.Parameter(2): "ones"}, ValueError, "not one of the parameters A, b"),
        ({"c": "ones"}, ValueError, "not one of the parameters A, b"),
        ({"A": "onez"}, ValueError, "the options of 'A' are invalid: .*onez"),
        ({"A": {"init": "ones"}}, TypeError, "the options of 'A' are invalid: .*'init'"),
        (["b"], TypeError, "a mapping from parameters to initializers"),
        ({"b": np.ones(3)}, ValueError, r"initial value of 'b' must have shape \(2,\), but has \(3,\)"),
        ({"A": [1.0, 2.0, 3.0]}, ValueError, r"initial value of 'A' must have shape \(2, 3\)"),
        ({"b": {"initializer": ["1", "2"]}}, TypeError, "initial value of 'b' must hold real numbers"),
        ({"b": np.array([1, 1j])}, TypeError, "initial value of 'b' must hold real numbers"),
        ({"b": "onez"}, ValueError, "onez"),
    ],
)
def test_bad_weights(weights, error, message):
    a, b, x = cp.Parameter((2, 3), name="A"), cp.Parameter(2, name="b"), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [a @ x == b])
    with pytest.raises(error, match=message):
        CvxpyLayer(problem, [a, b], [x], weights=weights)


@pytest.mark.parametrize("kind", ["serialized", "None"])
def test_options_of_weights(kind):
    ones = keras.initializers.serialize(keras.initializers.Ones())
    layer = least_norm(
        weights={"b": ones if kind == "serialized" else {"initializer": "ones", "regularizer": None}}
    )
    again = CvxpyLayer.from_config(layer.get_config())
    assert again.get_weights()[0].tolist() == [1, 1] and again.get_config() == layer.get_config()


def test_solver_args_are_the_layers_own():
    given = {"tol": 1e-8}
    layer = least_norm(solver_args=given)
    given["tol"] = 1e-3
    layer(A, B, solver_args={"tol": 1e-6})
    assert layer.get_config()["solver_args"] == {"tol": 1e-8}


def test_all_parameters_may_be_weights():
    layer = least_norm(weights={"A": A, "b": "ones"}, single_output=True)
    for form in ((), ([],), ({},)):
        assert layer(*form).shape == (3,)
        assert layer.compute_output_shape(*form) == (3,)


def test_names_tell_parameters_apart():
    a, b, x = cp.Parameter(2, name="p"), cp.Parameter(2, name="p"), cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a + b)))
    layer = CvxpyLayer(problem, [a, b], [x], single_output=True)
    np.testing.assert_allclose(layer(np.ones(2), np.zeros(2)), np.ones(2), atol=1e-9)
    message = "more than one parameter is named 'p'"
    with pytest.raises(ValueError, match=message):
        layer({"p": np.ones(2)})
    with pytest.raises(ValueError, match=message):
        CvxpyLayer(problem, [a, b], [x], weights={a: "ones"})


def test_complex_weights_are_refused():
    """Else their imaginary parts would be left out without a word."""
    x, p = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, name="p")
    with pytest.raises(ValueError, match="'p' is complex, but Keras's weights are real"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x], weights={p: "ones"})


@pytest.mark.parametrize("value", [0.5, [1.0, 2.0], np.array([1, 2]), tf.constant([1.0, 2.0])])
def test_initial_values(value):
    layer = least_norm(weights={"b": value})
    for copied in (layer, CvxpyLayer.from_config(layer.get_config())):
        np.testing.assert_array_equal(copied.get_weights()[0], np.broadcast_to(value, 2))


def test_a_layer_learns_its_constraints():
    """The right-hand side of a halfspace is found from points projected onto it."""
    z, x, g, h = cp.Variable(2), cp.Parameter(2), cp.Parameter(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [g @ z <= h])
    options = {"weights": {g: np.array([1.0, 0.0]), h: "zeros"}, "single_output": True}
    layer = CvxpyLayer(problem, [x, g, h], [z], **options)
    points = RNG.standard_normal((256, 2)).astype("float32") * 2
    normal, level = np.array([0.6, 0.8]), 0.5
    target = points - np.clip(points @ normal - level, 0, None)[:, None] * normal
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(points, target, epochs=25, batch_size=64, verbose=0)
    G, H = (w.numpy() for w in layer.weights)
    np.testing.assert_allclose(G / np.linalg.norm(G), normal, atol=0.02)
    np.testing.assert_allclose(H / np.linalg.norm(G), level, atol=0.02)


# ------------------------------------------------------------------ the common interface


def test_info_and_failures():
    layer = least_norm()
    layer(A, B)
    assert layer.info["status"].shape == (5,) and (layer.info["residual"] < 1e-9).all()
    tf.function(lambda b: layer(A, b), autograph=False)(B[:2])
    assert layer.info["iterations"].shape == (2,)
    with pytest.raises(TypeError, match="unknown solver argument 'epz'"):
        layer(A, B, solver_args={"epz": 1})


def test_opt_layer():
    z, x = cp.Variable(2), cp.Parameter(2)
    layer = OptLayer([z], [x], lambda z, x: cp.sum_squares(z - x), [lambda z, x: -z], name="opt", tol=1e-9)
    assert layer.name == "opt"
    other = OptLayer([z], [x], lambda z, x: cp.sum_squares(z - x), dtype="float64", trainable=False)
    assert other(np.ones(2, "float32")).dtype == "float64" and not other.trainable
    np.testing.assert_allclose(layer(np.array([1.0, -1.0])), [1, 0], atol=1e-8)
    again = OptLayer.from_config(layer.get_config())
    np.testing.assert_array_equal(again(np.array([1.0, -1.0])), layer(np.array([1.0, -1.0])))


def test_copies():
    layer = least_norm()
    np.testing.assert_array_equal(copy.deepcopy(layer)(A, B)[0], layer(A, B)[0])


def test_threads():
    """Calls from many threads do not disturb each other."""
    layer, results = least_norm(), {}

    def run(k):
        with tf.GradientTape() as tape:
            b = tf.constant(B * k)
            tape.watch(b)
            (x,) = layer(A, b)
        results[k] = (x.numpy(), tape.gradient(x, b).numpy())

    threads = [threading.Thread(target=run, args=(k,)) for k in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, (x, g) in results.items():
        np.testing.assert_allclose(x, k * X, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(g, results[1][1], rtol=1e-8)
