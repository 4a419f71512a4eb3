"""
A Keras model whose constraints are learned
===========================================

Learned: the half-planes ``G z <= h`` of a projection layer, which are weights of a Keras model. ``fit``
learns them from points and their projections onto a triangle.

Expect: the loss falls by a factor of a hundred or more. The model predicts the same after saving and loading.
The learned region is the triangle.
"""

import tempfile
from pathlib import Path

import cvxpy as cp
import keras
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import conediff as cd
from conediff.tensorflow import CvxpyLayer

faces, points = 6, 200
keras.utils.set_random_seed(0)
z, x = cp.Variable(2), cp.Parameter(2)
G, h = cp.Parameter((faces, 2)), cp.Parameter(faces, nonneg=True)
projection = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [G @ z <= h])

# %%
# Data: projections onto a triangle that is given
# -----------------------------------------------

rng = np.random.default_rng(0)
corners = np.array([[1.0, -0.6], [-1.0, -0.6], [0.0, 1.0]])
edges = np.roll(corners, -1, axis=0) - corners
normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) * -1
normals /= np.linalg.norm(normals, axis=1, keepdims=True)
normals *= np.sign((normals * corners).sum(axis=1, keepdims=True))
offsets = (normals * corners).sum(axis=1)
true_layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [normals @ z <= offsets]), [x], [z])
inputs = rng.uniform(-2, 2, (points, 2))
(targets,) = true_layer(inputs)

# %%
# The model: one layer, two weights
# ---------------------------------

angles = 2 * np.pi * np.arange(faces) / faces
start = np.stack([np.cos(angles), np.sin(angles)], axis=1)
layer = CvxpyLayer(
    projection,
    [x, G, h],
    [z],
    single_output=True,
    weights={G: start, h: {"initializer": "ones", "constraint": keras.constraints.NonNeg()}},
)
model = keras.Sequential([keras.Input((2,)), layer])
model.compile(keras.optimizers.Adam(0.03), "mse")
with tqdm(total=40, desc="learning a triangle") as bar:
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update())
    fit = model.fit(inputs, targets, epochs=40, batch_size=50, verbose=0, callbacks=[count])
history = fit.history["loss"]
print(f"loss: {history[0]:.1e} in the first epoch, {history[-1]:.1e} in the last")
assert history[-1] < history[0] / 100

# %%
# Saved and loaded
# ----------------

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "triangle.keras")
    loaded = keras.saving.load_model(Path(folder) / "triangle.keras")
np.testing.assert_allclose(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-6)

# %%
# The picture: a fine grid of points, projected
# ---------------------------------------------

grid = rng.uniform(-2, 2, (1500, 2))
projected = model.predict(grid, verbose=0)
error = np.linalg.norm(projected - true_layer(grid)[0], axis=1)
print(f"projections of new points are off by {error.mean():.4f} on average")
assert error.mean() < 0.05

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.fill(*corners.T, color="0.85")
left.scatter(*projected.T, s=3)
left.set(aspect="equal", xticks=[-1, 0, 1], yticks=[-0.5, 0, 0.5, 1], xlabel="$z_0$", ylabel="$z_1$")
left.set(title="Triangle, and projected points")
right.semilogy(history)
right.set(xlabel="epoch", ylabel="mean squared error", title="Training")
figure.savefig("keras_constraints.png")
