"""
ReLU layers as projections
==========================

Learned: a small network that fits a curve, with 20 hidden units.

Expect: ``max(x, 0)`` is the projection onto the nonnegative vectors. A network in which this problem
replaces every ReLU has the same losses as the original to six digits. With one more constraint, a budget for
the sum of all units, the layer no longer acts on each unit by itself. This network fits the curve too, and
never exceeds its budget.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
hidden, budget, steps = 20, 3.0, 120

# %%
# Three activations
# -----------------

z, x = cp.Variable(hidden), cp.Parameter(hidden)
distance = cp.Minimize(cp.sum_squares(z - x))
projection = CvxpyLayer(cp.Problem(distance, [z >= 0]), [x], [z])
budgeted = CvxpyLayer(cp.Problem(distance, [z >= 0, cp.sum(z) <= budget]), [x], [z])
activations = {
    "torch.relu": torch.relu,
    "projection": lambda values: projection(values)[0],
    "with a budget": lambda values: budgeted(values)[0],
}

# %%
# Training
# --------
# Every network starts from the same weights and sees the same data.

torch.manual_seed(0)
inputs = torch.linspace(-3, 3, 60)[:, None]
targets = torch.sin(2 * inputs) + 0.3 * inputs
start = [torch.randn(1, hidden), torch.randn(hidden), torch.randn(hidden, 1) / 4, torch.zeros(1)]


def train(activation, name):
    """Return the losses, the fit and the hidden values after training."""
    W1, b1, W2, b2 = weights = [part.clone().requires_grad_() for part in start]
    optimizer = torch.optim.Adam(weights, lr=0.05)
    losses = []
    for _ in tqdm(range(steps), desc=name):
        optimizer.zero_grad()
        units = activation(inputs @ W1 + b1)
        fit = units @ W2 + b2
        loss = (fit - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, fit.detach(), units.detach()


results = {name: train(activation, name) for name, activation in activations.items()}
for name, (losses, _, units) in results.items():
    most = units.sum(dim=1).max()
    print(f"{name:14s} loss {losses[0]:.3f} -> {losses[-1]:.4f}, largest sum of units {most:.3f}")

# %%
# The checks: ReLU and projection have equal losses, and the third network stays within its budget.

difference = max(abs(a - b) for a, b in zip(results["torch.relu"][0], results["projection"][0], strict=True))
print(f"losses of ReLU and projection differ by at most {difference:.1e}")
assert difference < 1e-6
assert results["with a budget"][2].sum(1).max() < budget + 1e-8
assert results["with a budget"][0][-1] < 0.1 * results["with a budget"][0][0]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, style in zip(results, ("-", "--", "-"), strict=True):
    left.semilogy(results[name][0], style, label=name)
    right.plot(inputs, results[name][1], style)
right.plot(inputs, targets, ".", color="black", markersize=3, label="data")
right.legend()
left.set(xlabel="step", ylabel="mean squared error", title="Training")
right.set(xlabel="input", ylabel="output", title="Fits")
left.legend()
figure.savefig("relu_layers.png")
