"""Saved layers: without pickle, safely, and back without cvxpy; and all that needs a process of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.adapters import contract
from tests.adapters.on_tensorflow import CvxpyLayer, OptLayer, keras, serial, tf

RNG = np.random.default_rng(2)


def rich_layer(**options):
    """Conic, with bounds of parameters, duals, the value, and weights with everything."""
    x, A, b, r = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4), cp.Parameter(bounds=[0.1, 2])
    S = cp.Parameter((3, 3), symmetric=True)
    constraints = [cp.norm(x) <= r, cp.sum(x) == 0.1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.sum(S @ x)), constraints)
    weights = {
        A: {"initializer": "glorot_uniform", "regularizer": "l2"},
        S: {"initializer": np.eye(3), "constraint": keras.constraints.MaxNorm(1.0), "trainable": False},
    }
    duals = [c.dual_variables[0] for c in constraints]
    options = {"weights": weights, "solver_args": {"tol": 1e-9, "threads": 1}, **options}
    return CvxpyLayer(problem, [A, b, r, S], [x, *duals, problem.objective], **options)


def model_of(layer):
    b, r = keras.Input((4,)), keras.Input(())
    outputs = layer(b, r)
    return keras.Model([b, r], keras.layers.Dense(2)(outputs[0]) + outputs[2][:, None] + outputs[3][:, None])


B, R = RNG.standard_normal((5, 4)).astype("float32"), np.full(5, 0.5, "float32")


def fresh(code, **environment):
    """Run code in a process of its own."""
    paths = [p for p in sys.path if p] + [os.getcwd(), os.path.join(os.getcwd(), "adapters")]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_a_fresh_process_needs_no_cvxpy(tmp_path):
    """The outputs are bitwise the same, gradients come, and cvxpy is not even imported."""
    model = model_of(rich_layer())
    model.save(tmp_path / "m.keras")
    expected = model([B, R]).numpy()
    np.save(tmp_path / "expected.npy", expected)
    np.savez(tmp_path / "inputs.npz", B=B, R=R)
    out = fresh(
        f"""
        import sys
        import numpy as np, keras, tensorflow as tf
        import conediff.tensorflow
        model = keras.saving.load_model(r"{tmp_path / "m.keras"}", safe_mode=True)
        data, expected = np.load(r"{tmp_path / "inputs.npz"}"), np.load(r"{tmp_path / "expected.npy"}")
        B, R = tf.constant(data["B"]), tf.constant(data["R"])
        with tf.GradientTape() as tape:
            tape.watch([B, R])
            y = model([B, R])
        assert np.array_equal(y.numpy(), expected)
        gradients = tape.gradient(y, [B, R, *model.trainable_weights])
        assert all(np.isfinite(g.numpy()).all() and np.abs(g).max() > 0 for g in gradients)
        model.compile("adam", "mse")
        model.fit([B, R], expected + 1, epochs=1, verbose=0)
        assert "cvxpy" not in sys.modules
        print("done")
        """
    )
    assert "done" in out


def test_config_holds_everything():
    layer = rich_layer(name="rich")
    config = layer.get_config()
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    assert len(text) < 20_000
    again = CvxpyLayer.from_config(config)
    assert again.get_config() == config == json.loads(json.dumps(config))
    assert again.name == "rich" and len(again.trainable_weights) == 1
    again.set_weights(layer.get_weights())
    for got, expected in zip(again(B, R), layer(B, R), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(again.losses, layer.losses)
    assert again.weights[1].constraint.max_value == 1.0
    assert keras.saving.get_registered_name(CvxpyLayer) == "conediff>CvxpyLayer"


def test_arrays_without_pickle():
    maps = rich_layer()._core.maps
    text = serial.encode(maps)
    assert serial.encode(serial.decode(json.loads(json.dumps(text)))) == text
    assert serial.encode(maps) == text


def test_a_pickle_inside_is_refused():
    text, file = serial.encode(rich_layer()._core.maps), io.BytesIO()
    np.savez(file, **{"dual.0.0.data": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        serial.decode({**text, "arrays": base64.b64encode(file.getvalue()).decode()})


@pytest.mark.parametrize("dtype", [None, "float32", "float64", "mixed_float16"])
def test_dtype_rules_survive(dtype):
    layer = rich_layer(dtype=dtype)
    again = CvxpyLayer.from_config(layer.get_config())
    outputs = [one(B.astype("float64"), R)[0].dtype for one in (layer, again)]
    assert outputs[0] == outputs[1] == {None: "float64", "mixed_float16": "float16"}.get(dtype, dtype)


def test_nested_and_shared(tmp_path):
    """One layer, called twice in a model, which is called in another; by position, list and name."""
    A, b, x = cp.Parameter((2, 3), name="A"), cp.Parameter(2, name="b"), cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [A @ x == b])
    layer = CvxpyLayer(problem, [A, b], [x], single_output=True)
    first, second = keras.Input((2, 3)), keras.Input((2,))
    outputs = layer(first, second) + layer({"A": first, "b": 2 * second}, solver_args={"tol": 1e-9})
    inner = keras.Model([first, second], outputs - layer([first, second]))
    outer_input = keras.Input((2, 3))
    model = keras.Model(outer_input, inner([outer_input, outer_input[:, :, 0]]))
    data = RNG.standard_normal((4, 2, 3)).astype("float32")
    expected = model.predict(data, verbose=0)
    alone = layer(data, 2 * data[:, :, 0])
    np.testing.assert_allclose(expected, alone, rtol=1e-3, atol=1e-4)
    model.save(tmp_path / "m.keras")
    for again in (
        keras.saving.load_model(tmp_path / "m.keras"),
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
    ):
        np.testing.assert_array_equal(again.predict(data, verbose=0), expected)


def test_opt_layer_comes_back(tmp_path):
    z, x, h = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    inequalities = [lambda z, x, h: h - z]
    objective = lambda z, x, h: cp.sum_squares(z - x)  # noqa: E731
    settings = {"tol": np.float32(1e-8), "threads": np.int64(1)}
    layer = OptLayer([z], [x, h], objective, inequalities, weights={h: "ones"}, name="opt", **settings)
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.set_weights([np.array([0.5, -0.5])])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    (loaded,) = again.layers
    assert type(loaded) is OptLayer and loaded.name == "opt"
    assert loaded.get_config()["solver_args"] == {"tol": pytest.approx(1e-8), "threads": 1}
    np.testing.assert_array_equal(again(-B[:, :2]), model(-B[:, :2]))


def test_clone_pickle_and_weights(tmp_path):
    model = model_of(rich_layer())
    clone = keras.models.clone_model(model)
    assert not np.array_equal(clone([B, R]), model([B, R]))
    model.save_weights(tmp_path / "m.weights.h5")
    clone.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(clone([B, R]), model([B, R]))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))([B, R]), model([B, R]))


def test_an_executor_stays_behind(tmp_path):
    with contract.Counting(2) as executor:
        model = model_of(rich_layer(solver_args={"executor": executor, "tol": 1e-9}))
        expected = model([B, R])
        assert executor.jobs > 0
        with pytest.warns(cd.ConediffWarning, match="executor stays behind"):
            model.save(tmp_path / "m.keras")
        executor.jobs = 0
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(loaded([B, R]), expected, rtol=1e-6, atol=1e-6)
        assert executor.jobs == 0
        (layer,) = (layer for layer in loaded.layers if isinstance(layer, CvxpyLayer))
        assert layer.get_config()["solver_args"] == {"tol": pytest.approx(1e-9)}


@keras.saving.register_keras_serializable(package="test_conediff")
def accept(solution):
    return "zero_grad"


def test_callables_are_saved_by_their_registered_names():
    layer = rich_layer(solver_args={"on_failure": accept})
    again = CvxpyLayer.from_config(json.loads(json.dumps(layer.get_config())))
    assert again._core.settings.on_failure is accept


def test_optimiser_state_and_checkpoints(tmp_path):
    model = model_of(rich_layer())
    model.compile("adam", "mse")
    model.fit([B, R], np.zeros((5, 2)), verbose=0)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    other = keras.models.clone_model(model)
    tf.train.Checkpoint(model=other).restore(path).expect_partial()
    np.testing.assert_array_equal(other([B, R]), model([B, R]))


def test_saved_model_is_refused(tmp_path):
    """Also where Keras (before 3.14), or a function, hides the layer, and TensorFlow wraps the error."""
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
    model, hidden = model_of(rich_layer()), tf.Module()
    hidden.function = tf.function(lambda p: layer(p), [tf.TensorSpec((5, 2))], autograph=False)
    for saved, export in ((model, model.export), (model, None), (hidden, None)):
        export = export or (lambda path, saved=saved: tf.saved_model.save(saved, path))
        with pytest.raises((NotImplementedError, ValueError)) as caught:
            export(str(tmp_path / "exported"))
        error = caught.value
        if isinstance(error, ValueError):
            assert "conediff" in str(error)
            error = error.__cause__
        assert isinstance(error, NotImplementedError)
        assert "cannot be exported" in str(error) and "Use model.save('model.keras')" in str(error)


TRAIN = """
    import numpy as np, keras, cvxpy as cp
    from conediff_tensorflow import CvxpyLayer
    x, p, h = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= h])
    layer = CvxpyLayer(problem, [p, h], [x], weights={h: "zeros"}, single_output=True)
    model = keras.Sequential([layer])
    X = np.random.default_rng(0).standard_normal((64, 2)).astype("float32")
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(X, np.maximum(X, 0.5), epochs=20, batch_size=32, verbose=0)
    assert np.abs(layer.get_weights()[0] - 0.5).max() < 0.05, layer.get_weights()
    model.save("PATH")
    again = keras.saving.load_model("PATH")
    assert np.array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    print("done")
"""


def test_torch_backend(tmp_path):
    pytest.importorskip("torch")
    code = TRAIN.replace("PATH", str(tmp_path / "m.keras"))
    code = code.replace(
        "    x, p, h", "    import sys\n    assert 'tensorflow' not in sys.modules\n    x, p, h", 1
    )
    assert "done" in fresh(code, KERAS_BACKEND="torch")


TORCH = """
    import numpy as np, keras, torch, cvxpy as cp, conediff as cd
    from conediff_tensorflow import CvxpyLayer
    x, A, b = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [A @ x == b])
    layer, oracle = CvxpyLayer(problem, [A, b], [x]), cd.CvxpyLayer(problem, [A, b], [x])
    rng = np.random.default_rng(0)
    values, w = [rng.standard_normal((2, 3)), rng.standard_normal((4, 2))], rng.standard_normal((4, 3))
    solution = oracle.solve(*values)
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    (y,) = layer(*tensors)
    (y * torch.tensor(w)).sum().backward()
    np.testing.assert_allclose(y.detach(), solution.values[0], rtol=1e-9)
    for tensor, expected in zip(tensors, solution.vjp(w)):
        np.testing.assert_allclose(tensor.grad, expected, rtol=1e-9, atol=1e-12)
    for name in ("float16", "bfloat16", "float32", "float64"):
        given = [torch.tensor(value, dtype=getattr(torch, name)) for value in values]
        assert layer(*given)[0].dtype == given[0].dtype, name
        (symbol,) = layer(keras.KerasTensor((2, 3), name), keras.KerasTensor((None, 2), name))
        assert symbol.dtype == name
    low = [torch.tensor(values[0], dtype=torch.float32), tensors[1]]
    assert layer(*low)[0].dtype == torch.float64
    assert CvxpyLayer(problem, [A, b], [x], dtype="float64")(*low)[0].dtype == torch.float64
    try:
        layer(tensors[0], torch.ones(3))
    except ValueError as error:
        assert "Invalid parameter shape" in str(error)
        print("done")
"""


def test_torch_backend_against_oracle():
    """Also float64, which Keras's own promotion takes down to float32 there."""
    pytest.importorskip("torch")
    assert "done" in fresh(TORCH, KERAS_BACKEND="torch")


def test_other_backends_are_refused():
    code = """
    import keras
    keras.backend.backend = lambda: "numpy"
    try:
        import conediff.tensorflow
    except ImportError as error:
        assert "tensorflow and torch, but Keras uses 'numpy'" in str(error)
        print("done")
    """
    assert "done" in fresh(code)


MIRRORED = """
    import numpy as np, keras, cvxpy as cp, tensorflow as tf
    from conediff_tensorflow import CvxpyLayer
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert mirrored.num_replicas_in_sync == 2
    X = np.random.default_rng(0).standard_normal((150, 4)).astype("float32")
    y = X[:, :3].argmax(1)
    finals = []
    for strategy in (mirrored, tf.distribute.get_strategy()):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            z, x, h = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
            problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [z >= h, cp.sum(z) <= 5])
            layer = CvxpyLayer(problem, [x, h], [z], weights={h: "zeros"}, single_output=True)
            model = keras.Sequential([keras.layers.Dense(3), layer, keras.layers.Dense(3)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.1), loss)
        model.fit(X, y, epochs=2, batch_size=50, shuffle=False, verbose=0)
        finals.append(model.get_weights())
    assert np.abs(finals[0][2]).max() > 0.01
    for got, expected in zip(*finals, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    print("done")
"""


def test_mirrored_strategy():
    """Two replicas, on two virtual devices, train what one does."""
    assert "done" in fresh(MIRRORED)
