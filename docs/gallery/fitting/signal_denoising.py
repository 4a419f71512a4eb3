"""
Learning a denoiser
===================

Learned: two weights of a denoiser. It finds a signal that is near the measurement and is piecewise constant
(weight of the total variation), smooth (weight of the squared differences), or a mixture of both.

Expect: from 24 pairs of noisy and clean signals, 40 gradient steps find weights as good as the best of a grid
of 13 x 13. On new signals the error is less than half that of the noisy signals.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(0)
n, pairs, steps = 60, 24, 40

# %%
# The denoiser
# ------------

x, measured = cp.Variable(n), cp.Parameter(n)
variation, smoothness = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
objective = cp.sum_squares(x - measured) / 2
objective += variation * cp.tv(x) + smoothness * cp.sum_squares(cp.diff(x))
denoise = CvxpyLayer(cp.Problem(cp.Minimize(objective)), [measured, variation, smoothness], [x])

# %%
# Signals: jumps, and a slow wave
# -------------------------------


def sample(count):
    """Return clean and noisy signals, shape (count, n)."""
    jumps = rng.standard_normal((count, n)) * (rng.random((count, n)) < 0.06)
    wave = 0.5 * np.sin(np.linspace(0, 2 * np.pi, n) + rng.uniform(0, 6, (count, 1)))
    clean = torch.tensor(np.cumsum(jumps, axis=1) + wave)
    return clean, clean + 0.3 * torch.tensor(rng.standard_normal((count, n)))


clean, noisy = sample(pairs)


def error(weights):
    """Return the mean squared error of the training signals, for weights in logarithms."""
    (restored,) = denoise(noisy, *weights.exp())
    return (restored - clean).square().mean()


# %%
# A grid for comparison, and the gradient
# ---------------------------------------

axis = torch.linspace(-5, 1, 13)
with torch.no_grad():
    bar = tqdm(axis, desc="grid")
    grid = torch.stack([torch.stack([error(torch.stack([a, b])) for b in axis]) for a in bar])

weights = torch.tensor([-3.0, -3.0], requires_grad=True)
optimizer = torch.optim.Adam([weights], lr=0.3)
path, losses = [], []
for _ in tqdm(range(steps), desc="gradient"):
    optimizer.zero_grad()
    loss = error(weights)
    loss.backward()
    path.append(weights.detach().clone())
    losses.append(loss.item())
    optimizer.step()

# %%
# The test
# --------

clean_new, noisy_new = sample(50)
(restored,) = denoise(noisy_new, *weights.detach().exp())
test, noise = ((signal - clean_new).square().mean().item() for signal in (restored, noisy_new))
print(f"training error {losses[-1]:.5f}, best of the grid {grid.min():.5f}")
print(f"on new signals: {test:.4f}, noise {noise:.4f}")
assert losses[-1] < 1.01 * grid.min() and test < noise / 2

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
figure.colorbar(left.contourf(axis, axis, grid, levels=20), ax=left, label="mean squared error")
left.plot(*torch.stack(path).T.flip(0), ".-", color="white", markersize=4)
left.set(xlabel="log smoothness", ylabel="log variation", title="Training error, and the descent")
right.plot(noisy_new[0], ".", color="0.6", label="noisy")
right.plot(clean_new[0], color="black", label="clean")
right.plot(restored[0], label="restored")
right.set(xlabel="place", ylabel="signal", title="A new signal")
right.legend()
figure.savefig("signal_denoising.png")
