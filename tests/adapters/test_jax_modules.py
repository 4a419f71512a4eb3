"""The layer inside modules of Equinox and Flax, trained; and compiled code on one processor."""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy
cj = importlib.import_module("conediff.jax")


def simplex(**options):
    """Project onto the simplex shifted by a learned bound."""
    z, x, low = cp.Variable(4), cp.Parameter(4), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= low])
    return cj.CvxpyLayer(problem, [x, low], [z], **options)


def data():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((16, 3))
    targets = np.abs(rng.standard_normal((16, 4)))
    return jnp.asarray(inputs), jnp.asarray(targets / targets.sum(1, keepdims=True))


def descend(loss, parameters, steps=15, rate=0.3):
    """Descend along gradients, compiled; return the losses and the parameters."""
    step = jax.jit(jax.value_and_grad(loss))
    losses = []
    for _ in range(steps):
        value, gradients = step(parameters)
        parameters = jax.tree.map(lambda p, g: p - rate * g, parameters, gradients)
        losses.append(float(value))
    return losses, parameters


def test_a_layer_is_a_pytree_without_leaves():
    layer = simplex()
    assert jax.tree.leaves(layer) == []
    assert jax.tree.map(lambda x: x + 1, layer) is layer
    assert jax.jit(lambda layer, x: layer(x, -x)[0])(layer, jnp.ones(4)).shape == (4,)
    # Copies fit together, as a moving average of a model's weights needs it.
    models = [{"layer": other, "w": jnp.ones(2)} for other in (layer, copy.deepcopy(layer))]
    assert jax.tree.map(jnp.add, *models)["w"].tolist() == [2, 2]


def test_equinox():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        linear: eqx.nn.Linear
        low: jax.Array
        layer: cj.CvxpyLayer

        def __call__(self, x):
            return self.layer(self.linear(x), self.low)[0]

    model = Model(eqx.nn.Linear(3, 4, key=jax.random.key(0)), -jnp.ones(4), simplex())
    x, y = data()

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model):
        return ((jax.vmap(model)(x) - y) ** 2).mean()

    losses = []
    for _ in range(10):
        value, gradients = loss(model)
        model = eqx.apply_updates(model, jax.tree.map(lambda g: -0.3 * g, gradients))
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0] and isinstance(model.layer, cj.CvxpyLayer)
    assert model.layer.info["status"].shape == (16,)
    arrays, rest = eqx.partition(model, eqx.is_array)
    assert len(jax.tree.leaves(arrays)) == 3
    assert jnp.isfinite(eqx.combine(arrays, rest)(x[0])).all()


def test_equinox_and_sequential(tmp_path):
    eqx = pytest.importorskip("equinox")
    z, x = cp.Variable(4), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= 0])
    project = eqx.nn.Lambda(cj.CvxpyLayer(problem, [x], [z], single_output=True))
    model = eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=jax.random.key(0)), project])
    inputs, _ = data()
    out = eqx.filter_jit(eqx.filter_vmap(model))(inputs)
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-5)
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", model)
    other = jax.tree.map(lambda leaf: 0 * leaf if eqx.is_array(leaf) else leaf, model)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", other)
    np.testing.assert_array_equal(jax.vmap(loaded)(inputs), jax.vmap(model)(inputs))


def test_flax_linen():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        layer: cj.CvxpyLayer

        @nn.compact
        def __call__(self, x):
            low = self.param("low", nn.initializers.constant(-1.0), (4,))
            return self.layer(nn.Dense(4)(x), low)[0]

    model, (x, y) = Model(simplex()), data()
    parameters = model.init(jax.random.key(0), x)
    losses, parameters = descend(lambda p: ((model.apply(p, x) - y) ** 2).mean(), parameters)
    assert losses[-1] < 0.8 * losses[0]
    static = jax.jit(lambda model, p: model.apply(p, x), static_argnums=0)
    np.testing.assert_allclose(static(model, parameters), model.apply(parameters, x), rtol=1e-5)


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 4, rngs=rngs)
            self.low = nnx.Param(-jnp.ones(4))
            self.layer = simplex()

        def __call__(self, x):
            return self.layer(self.linear(x), self.low[...])[0]

    model, (x, y) = Model(nnx.Rngs(0)), data()
    optimizer = nnx.Optimizer(model, pytest.importorskip("optax").sgd(0.3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        value, gradients = nnx.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
        optimizer.update(model, gradients)
        return value

    losses = [float(step(model, optimizer)) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    definition, state = nnx.split(model)
    np.testing.assert_array_equal(nnx.merge(definition, state)(x), model(x))


def test_warm_starts_and_failures_in_a_training_loop():
    layer = simplex(solver_args={"warm_start": True, "on_failure": "zero_grad"})
    x, y = data()

    def loss(p):
        out = layer(x @ p["w"], p["low"])[0]
        solved = jnp.isfinite(out).all(-1, keepdims=True)
        return (jnp.where(solved, out - y, 0) ** 2).mean()

    low = jnp.full((16, 4), -0.1).at[3].set(1.0)  # one element is infeasible
    losses, parameters = descend(loss, {"w": jnp.ones((3, 4)), "low": low})
    assert losses[-1] < losses[0] and (parameters["low"][3] == 1).all()
    assert layer.info["status"][3] == "infeasible" and (layer.info["iterations"][:3] == 0).all()


ONE_PROCESSOR = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, cvxpy as cp
from conediff.jax import CvxpyLayer

z, x = cp.Variable(3), cp.Parameter(3)
layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [z >= 0]), [x], [z])
many = jax.random.normal(jax.random.key(0), (20000, 3))
loss = jax.jit(jax.grad(lambda x: layer(x)[0].sum()))
for _ in range(3):
    assert loss(many).shape == (20000, 3)
loop = jax.jit(lambda x: jax.lax.scan(lambda c, row: (c + layer(row)[0], None), jnp.zeros(3), x)[0])
assert loop(many[:50]).shape == (3,)
assert len([loss(many[:k + 1]).block_until_ready() for k in range(3)]) == 3
print("done")
"""


def test_one_processor_is_enough():
    """A callback that waits for a thread of XLA's, which waits for the callback, would never end."""
    root = os.getcwd()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.path.join(root, "adapters")])}
    command = [sys.executable, "-c", ONE_PROCESSOR]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "done" in result.stdout, result.stderr
