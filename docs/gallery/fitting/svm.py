"""
A support vector machine, and the points that hold it up
========================================================

Learned: the scales of ten features of a support vector machine, from its loss on held-out points, by the
gradient through the fit. Two of the features are informative, the others are noise.

Expect: the classifier depends on its support vectors only. The gradient with respect to every other training
point is zero, and moving these points a little does not change the classifier at all. Following the gradient
in the scales enlarges these two features and lowers the loss on new points by 10 % or more. NumPy and SciPy
are enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import conediff as cd

# %%
# The classifier
# --------------
# Minimise ``|w|^2 / 2 + C sum_i max(0, 1 - y_i (x_i'w + b))^2``. The rows of Z are y_i x_i. The hinge is
# squared: with a plain hinge, three points on the margin determine the boundary of a plane, as active
# constraints determine the vertex of a linear program, and the gradient in the scales below is zero.

m, n, C = 40, 10, 0.1
rng = np.random.default_rng(2)
labels = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)
w, b, Z = cp.Variable(n), cp.Variable(), cp.Parameter((m, n))
hinge = cp.sum_squares(cp.pos(1 - Z @ w - labels * b))
layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(w) / 2 + C * hinge)), [Z], [w, b])


def sample(labels):
    """Draw points: the features 0 and 1 depend on the label, the others do not."""
    return rng.standard_normal((len(labels), n)) + np.outer(labels, [0.9, 0.6] + [0.0] * (n - 2))


def logistic(w, b, X, y):
    """Return the mean logistic loss, and its gradients with respect to w, b and X."""
    margins = y * (X @ w + b)
    slopes = -y / (1 + np.exp(margins)) / len(y)
    return np.log1p(np.exp(-margins)).mean(), X.T @ slopes, slopes.sum(), slopes[:, None] * w


X = sample(labels)
held_out_labels, new_labels = np.repeat([1.0, -1.0], 200), np.repeat([1.0, -1.0], 1000)
held_out, new = sample(held_out_labels), sample(new_labels)

# %%
# Support vectors
# ---------------
# The gradient of the held-out loss with respect to every training point.

solution = layer.solve(labels[:, None] * X)
weights, offset = solution.values
_, g_w, g_b, _ = logistic(weights, offset, held_out, held_out_labels)
(g_Z,) = solution.vjp(g_w, g_b)
size = np.linalg.norm(g_Z, axis=1)
support = labels * (X @ weights + offset) < 1
print(f"{support.sum()} of {m} are support vectors; the others' gradient is {size[~support].max():.0e}")
assert size[~support].max() < 1e-9 < size[support].min()

moved = X + 0.02 * rng.standard_normal(X.shape) * ~support[:, None]
again, offset_again = layer(labels[:, None] * moved)
assert np.abs(again - weights).max() < 1e-7 and abs(offset_again - offset) < 1e-7

# %%
# Tuning the scales
# -----------------
# The features are multiplied by their scales before the fit. A small penalty keeps the scales near one.


def validation(logs):
    """Return the held-out loss with the penalty, and its gradient for logarithms of the scales."""
    scales = np.exp(logs)
    solution = layer.solve(labels[:, None] * (X * scales))
    loss, g_w, g_b, g_scaled = logistic(*solution.values, held_out * scales, held_out_labels)
    (g_Z,) = solution.vjp(g_w, g_b)
    g_scales = np.sum(g_Z * labels[:, None] * X, axis=0) + np.sum(g_scaled * held_out, axis=0)
    return loss + 0.003 * logs @ logs, g_scales * scales + 0.006 * logs


result = minimize(validation, np.zeros(n), jac=True, method="L-BFGS-B")
scales = np.exp(result.x)
tuned = layer(labels[:, None] * (X * scales))
before = logistic(weights, offset, new, new_labels)[0]
after = logistic(*tuned, new * scales, new_labels)[0]
print(f"scales {scales.round(3)}; loss on new points {before:.4f} before, {after:.4f} after")
assert after < 0.9 * before and scales[2:].max() < scales[:2].min()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for label, colour in ((1, "tab:blue"), (-1, "tab:orange")):
    left.scatter(*X[labels == label, :2].T, s=14, color=colour, label=f"label {label}")
left.scatter(*X[support, :2].T, s=90, facecolor="none", edgecolor="black", label="support vector")
left.set(xlabel="feature 0", ylabel="feature 1", title="Points with a gradient are circled")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
right.bar(range(n), scales, color=["tab:blue"] * 2 + ["0.6"] * (n - 2))
right.axhline(1, color="black", linestyle="--", linewidth=1, label="before")
right.set(xticks=range(n), xlabel="feature", ylabel="scale", title="The informative features (blue) grow")
right.legend()
figure.savefig("svm.png")
