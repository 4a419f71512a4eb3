"""
Regression with monotone outputs
================================

Learned: a linear model of ten outputs that are known to be in increasing order, from 40 noisy examples with
15 features. The model's prediction is projected onto the increasing vectors, and the model is trained through
this projection.

Expect: predictions are always in order. The test error is lower than that of least squares, and lower than
that of least squares with predictions projected afterwards.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from conediff.torch import OptLayer

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
features, outputs, examples, steps = 15, 10, 40, 100

# %%
# The layer: the nearest increasing vector
# ----------------------------------------

monotone = OptLayer(
    [cp.Variable(outputs)],
    [cp.Parameter(outputs)],
    objective=lambda y, x: cp.sum_squares(y - x),
    inequalities=[lambda y, x: -cp.diff(y)],
)

# %%
# Data
# ----
# The truth is a model of the same form. The noise is added before the projection, so many outputs are equal.

truth = torch.randn(features, outputs) + torch.linspace(-1, 1, outputs)


def sample(count):
    """Return features and monotone outputs."""
    X = torch.randn(count, features) / features**0.5
    return X, monotone(X @ truth + 0.3 * torch.randn(count, outputs)).detach()


X, Y = sample(examples)
X_test, Y_test = sample(500)


def error(prediction):
    """Return the mean squared error on the test set."""
    return (prediction - Y_test).square().mean().item()


# %%
# Training
# --------

plain = torch.linalg.lstsq(X, Y).solution
weights = plain.clone().requires_grad_()
optimizer = torch.optim.Adam([weights], lr=0.05)
losses, test_errors = [], []
for _ in tqdm(range(steps), desc="training through the projection"):
    optimizer.zero_grad()
    loss = (monotone(X @ weights) - Y).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    with torch.no_grad():
        test_errors.append(error(monotone(X_test @ weights)))

errors = {
    "least squares": error(X_test @ plain),
    "projected afterwards": error(monotone(X_test @ plain)),
    "through the projection": test_errors[-1],
}
for name, value in errors.items():
    print(f"{name:24s} test error {value:.4f}")
assert monotone(X_test @ weights).diff(dim=1).min() > -1e-8
assert errors["through the projection"] < errors["projected afterwards"] < errors["least squares"]

figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(losses, label="training")
axes.plot(test_errors, label="test, through the projection")
axes.axhline(errors["projected afterwards"], color="0.5", linestyle="--", label="test, projected afterwards")
axes.axhline(errors["least squares"], color="0.5", linestyle=":", label="test, least squares")
axes.set(xlabel="step", ylabel="mean squared error", title="Ten outputs in increasing order", ylim=(0, 0.95))
axes.legend(loc="upper right")
figure.savefig("monotone_regression.png")
