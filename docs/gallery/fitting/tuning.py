"""
Tuning forty hyperparameters without any framework
==================================================

Learned: 40 weights that set the smoothness of a curve at 40 places, from the error on held-out measurements.
The weights are hyperparameters of a smoothing problem; the gradient through its solution tunes them.

Expect: a single weight, the best of 60, is a compromise between a fast and a slow part of the curve. Forty
weights avoid the compromise, and their error against the true curve is lower by 10 % or more. NumPy and SciPy
are enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

import conediff as cd

# %%
# Measurements of a chirp
# -----------------------
# Every third measurement is held out for tuning. The true curve is known and serves as the test.

n, places = 160, 40
rng = np.random.default_rng(0)
t = np.linspace(0, 1, n)
truth = np.sin(12 * np.pi * t**3) * (0.5 + t)
measured = truth + 0.25 * rng.standard_normal(n)
held_out = np.arange(n) % 3 == 1

# %%
# The fit
# -------
# The penalty is the sum of squared second differences. Each has its own weight, interpolated between 40
# places.

curve, roots = cp.Variable(n), cp.Parameter(n - 2, nonneg=True)
fit = cp.sum_squares((curve - measured)[~held_out]) + cp.sum_squares(cp.multiply(roots, cp.diff(curve, 2)))
layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(fit)), [roots], [curve])
at = np.linspace(0, n - 3, places)
interpolate = np.stack([np.interp(np.arange(n - 2), at, unit) for unit in np.eye(places)], axis=1)


def validation(logs):
    """Return the error on the held-out measurements, and its gradient, for logarithms of the weights."""
    root = np.exp(interpolate @ logs)
    solution = layer.solve(root)
    difference = np.where(held_out, solution.values[0] - measured, 0)
    (gradient,) = solution.vjp(2 * difference / held_out.sum())
    # A little smoothness of the logarithms themselves, against overfitting.
    rough = np.diff(logs)
    penalty = 2e-4 * np.concatenate([[0], rough]) - 2e-4 * np.concatenate([rough, [0]])
    error = np.sum(difference**2) / held_out.sum()
    return error + 1e-4 * rough @ rough, interpolate.T @ (gradient * root) + penalty


# %%
# One weight, the best of 60 in one batch; then forty, starting from it
# ----------------------------------------------------------------------

logs = np.linspace(-1, 6, 60)
(curves,) = layer(np.exp(logs)[:, None] * np.ones(n - 2))
errors = np.mean((curves - measured)[:, held_out] ** 2, axis=1)
best = errors.argmin()
losses = []
with tqdm(desc="tuning forty weights") as bar:
    result = minimize(
        validation,
        np.full(places, logs[best]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-2, 7)] * places,
        options={"maxiter": 60},
        callback=lambda intermediate_result: (losses.append(intermediate_result.fun), bar.update()),
    )
(tuned,) = layer(np.exp(interpolate @ result.x))
one, forty = (np.mean((fitted - truth) ** 2) for fitted in (curves[best], tuned))
print(f"error against the truth: {one:.5f} with one weight, {forty:.5f} with forty")
assert forty < 0.9 * one and losses[-1] < errors[best]

figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), layout="constrained", sharex=True)
top.plot(t, measured, ".", color="0.7", markersize=3)
top.plot(t, truth, color="black", linewidth=1, label="truth")
top.plot(t, curves[best], label="one weight")
top.plot(t, tuned, label="forty weights")
top.set(ylabel="signal", title="The fits")
top.legend()
bottom.semilogy(t[1:-1], np.exp(interpolate @ result.x), label="forty")
bottom.axhline(np.exp(logs[best]), color="tab:blue", linestyle="--", label="one")
bottom.set(xlabel="time t", ylabel="root of the weight", title="The weights")
bottom.legend()
figure.savefig("tuning.png")
