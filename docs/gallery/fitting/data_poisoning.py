"""
Poisoning the data of a logistic regression
===========================================

Learned: the small change of the training points of a classifier by which an adversary raises its loss on test
data the most.

Expect: the gradient of the test loss with respect to all training features, through the fitted problem,
agrees with a finite difference to six digits. Moving every point by 0.2 along its gradient raises the test
loss several times more than moving the points in random directions. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

# %%
# The classifier
# --------------
# Labels are 1 and -1. The features X are a parameter, the weights and the intercept are variables.

m, n = 60, 2
w, intercept, X = cp.Variable(n), cp.Variable(), cp.Parameter((m, n))
rng = np.random.default_rng(0)
labels = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)
losses = cp.logistic(cp.multiply(-labels, X @ w + intercept))
objective = cp.sum(losses) / m + 0.05 * cp.sum_squares(w)
classifier = cd.CvxpyLayer(cp.Problem(cp.Minimize(objective)), [X], [w, intercept])


def sample(labels):
    """Draw points of two classes that overlap."""
    return 0.8 * labels[:, None] + rng.standard_normal((len(labels), n))


X_train, test_labels = sample(labels), np.where(np.arange(400) % 2 == 0, 1.0, -1.0)
X_test = sample(test_labels)


def test_loss(w, intercept):
    """Return the loss, and its gradient with respect to w and the intercept."""
    margins = test_labels * (X_test @ w + intercept)
    slopes = -test_labels / (1 + np.exp(margins)) / len(margins)
    return np.log1p(np.exp(-margins)).mean(), X_test.T @ slopes, slopes.sum()


# %%
# The gradient
# ------------

solution = classifier.solve(X_train)
clean, g_w, g_intercept = test_loss(*solution.values)
(gradient,) = solution.vjp(g_w, g_intercept)

direction = rng.standard_normal((m, n))
up, down = (test_loss(*classifier(X_train + step * direction))[0] for step in (1e-5, -1e-5))
measured, predicted = (up - down) / 2e-5, np.sum(gradient * direction)
print(f"directional derivative: {predicted:.9f} predicted, {measured:.9f} measured")
assert abs(measured - predicted) < 1e-6 * np.abs(gradient).sum()

# %%
# The attack
# ----------
# Every point moves by the same distance: along its own gradient, or in a random direction (100 times, in one
# batch).


def unit(vectors):
    """Scale every vector to length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


reach = 0.2
poisoned, _, _ = test_loss(*classifier(X_train + reach * unit(gradient)))
random_moves = reach * unit(rng.standard_normal((100, m, n)))
ws, intercepts = classifier(X_train + random_moves)
random_losses = np.array([test_loss(*pair)[0] for pair in zip(ws, intercepts, strict=True)])
print(f"test loss: {clean:.4f} clean, {poisoned:.4f} poisoned, at most {random_losses.max():.4f} at random")
assert poisoned - clean > 3 * (random_losses.max() - clean) and poisoned > clean

figure, axes = plt.subplots(figsize=(6, 5.2), layout="constrained")
for label, colour in ((1, "tab:blue"), (-1, "tab:orange")):
    points, arrows = X_train[labels == label], unit(gradient)[labels == label]
    axes.scatter(*points.T, s=14, color=colour, label=f"label {label}")
    axes.quiver(*points.T, *arrows.T, color=colour, width=0.003, scale=18)
ends = np.array([-3.5, 3.5])
fits = {"before": solution.values, "after": classifier(X_train + reach * unit(gradient))}
for (name, (weights, offset)), style in zip(fits.items(), ("-", "--"), strict=True):
    line = -(offset + weights[0] * ends) / weights[1]
    axes.plot(ends, line, style, color="black", linewidth=1, label=f"boundary {name}")
axes.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xlabel="feature 0", ylabel="feature 1")
axes.set(title="The direction in which each point does the most harm")
figure.legend(loc="outside lower center", ncols=2)
figure.savefig("data_poisoning.png")
