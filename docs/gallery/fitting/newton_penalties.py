"""
Newton's method on the penalties of a classifier
================================================

Learned: four penalties of a logistic regression, one for each group of its features, from the loss on
held-out points. Newton's method has the gradient and the Hessian of this loss, both through the fit.

Expect: all methods start from the best single penalty and reach the same loss. Newton's method needs at most
a tenth of the fits of gradient descent, and less time. L-BFGS, which guesses the Hessian from gradients,
takes more fits than Newton's method, and about as much time. The loss on new points is lower after tuning.
"""

from time import perf_counter

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

import conediff as cd

# %%
# Minimise the mean logistic loss of ``y_i w'x_i``, plus ``sum_j (root_j w_j)^2``. The points of a set are
# stored as the products y_i x_i. Logistic loss is smooth, so the fit is a smooth function of the penalties.

rng, groups = np.random.default_rng(0), np.repeat(np.arange(4), 3)  # four groups of three features
truth = np.array([0.8, 0.8, 0.2, 0.2])[groups] * rng.choice([-1, 1], 12)


def sample(count):
    """Return points times their labels, which the logistic model draws."""
    points = rng.standard_normal((count, 12))
    return points * np.where(rng.random(count) < expit(points @ truth), 1.0, -1.0)[:, None]


train, held_out, new = sample(40), sample(500), sample(10000)
w, roots = cp.Variable(12), cp.Parameter(12, nonneg=True)
fit = cp.sum(cp.logistic(-train @ w)) / len(train) + cp.sum_squares(cp.multiply(roots, w))
layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(fit)), [roots], [w])


def loss(logs, points):
    """Return the mean loss at logarithms of penalties, which may be a batch."""
    return np.logaddexp(0, -layer(np.exp(logs / 2)[..., groups])[0] @ points.T).mean(axis=-1)


class Validation:
    """The held-out loss as a function of the logarithms; it remembers its values and their times."""

    def __init__(self):
        self.losses, self.times, self.start = [], [], perf_counter()

    def __call__(self, logs):
        self.root = np.exp(logs / 2)[groups]
        self.solution = layer.solve(self.root)
        margins = held_out @ self.solution.values[0]
        self.slopes = expit(-margins)
        self.g = -held_out.T @ self.slopes / len(held_out)
        (self.g_root,) = self.solution.vjp(self.g)
        self.losses.append(np.logaddexp(0, -margins).mean())
        self.times.append(perf_counter() - self.start)
        return self.losses[-1], np.bincount(groups, self.g_root * self.root / 2)

    def hessian(self):
        """Return the Hessian where the loss was last evaluated."""
        own = (held_out.T * (self.slopes * (1 - self.slopes) / len(held_out))) @ held_out  # in w
        moved = np.where(groups == np.arange(4)[:, None], self.root / 2, 0)
        columns = [self.solution.hvp([self.g], [move], lambda dw: [own @ dw])[0] for move in moved]
        return moved @ np.transpose(columns) + np.diag(np.bincount(groups, self.g_root * self.root / 4))


singles = np.linspace(-7, 0, 15)
start, f = np.full(4, singles[loss(singles[:, None] * np.ones(4), held_out).argmin()]), Validation()
differences = [(f(start + 1e-4 * unit)[1] - f(start - 1e-4 * unit)[1]) / 2e-4 for unit in np.eye(4)]

# %%
# Newton's step goes down along negative curvature too. The rate of descent is one over the largest curvature.

logs, newton, descent = start, Validation(), Validation()
value, gradient = newton(logs)
assert np.abs(newton.hessian() - differences).max() < 1e-6 * np.abs(differences).max()
while np.abs(gradient).max() > 1e-8:
    curvatures, axes = np.linalg.eigh(newton.hessian())
    step = np.clip(-axes @ (axes.T @ gradient / np.maximum(np.abs(curvatures), 1e-6)), -4, 4)
    while (trial := newton(logs + step))[0] > value + 1e-14:
        step /= 2
    logs, (value, gradient) = logs + step, trial
tuned, rate, lbfgs = logs, 1 / np.linalg.eigvalsh(newton.hessian()).max(), Validation()
minimize(lbfgs, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-15})
logs, descent.start = start, perf_counter()
for _ in range(250):
    logs = logs - rate * descent(logs)[1]

runs = {"Newton": newton, "L-BFGS": lbfgs, "gradient descent": descent}
lowest = min(min(run.losses) for run in runs.values())
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for (name, run), style in zip(runs.items(), ("o-", "s-", "-"), strict=True):
    above = np.maximum(np.array(run.losses) - lowest, 1e-12)
    run.fits = int(np.flatnonzero(above < 1e-7)[0]) + 1
    print(f"{name:16s} {run.fits:4d} fits, {run.times[run.fits - 1]:.2f} s to 1e-7 above the lowest loss")
    panels[0].loglog(np.arange(1, len(above) + 1), above, style, markersize=4, label=name)
    panels[1].loglog(run.times, above, style, markersize=4)
print(f"loss on new points {loss(start, new):.4f} with one penalty, {loss(tuned, new):.4f} with four")
assert newton.fits < lbfgs.fits and newton.fits <= descent.fits / 10 and loss(tuned, new) < loss(start, new)
assert newton.times[-1] < descent.times[descent.fits - 1]
panels[0].set(xlabel="fits", ylabel="held-out loss above the lowest")
panels[1].set(xlabel="time (s)")
figure.legend(loc="outside lower center", ncols=3)
figure.savefig("newton_penalties.png")
