"""
Learning how somebody drives
============================

Learned: the weights of steering and of changes of steering in a driver's problem, relative to the weight of
the distance from the middle of the lane, from eight paths driven around obstacles. Learning the problem from
its solutions is called inverse optimisation.

Expect: the relative error of the two weights is below 1e-4 from paths without noise, and below 0.1 from paths
with noise. The path around new obstacles then agrees with the driver's. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import conediff as cd

# %%
# The driver's problem
# --------------------
# The variable is the offset from the middle of the lane at 50 places along the road. Obstacles change its
# lower and upper limits. Steering is approximately the second difference, its change the third difference.

n = 50
offset, lower, upper = cp.Variable(n), cp.Parameter(n), cp.Parameter(n)
steering, change = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
effort = steering * cp.sum_squares(cp.diff(offset, 2)) + change * cp.sum_squares(cp.diff(offset, 3))
problem = cp.Problem(cp.Minimize(cp.sum_squares(offset) + effort), [offset >= lower, offset <= upper])
driver = cd.CvxpyLayer(problem, [lower, upper, steering, change], [offset])

# %%
# Roads, and how they were driven
# -------------------------------

rng = np.random.default_rng(0)


def roads(count):
    """Return limits, shape (count, n): a lane from -2 to 2, and obstacles of five places each."""
    lower, upper = np.full((count, n), -2.0), np.full((count, n), 2.0)
    for k in range(count):
        for place in rng.choice(np.arange(5, n - 5, 9), size=3, replace=False):
            if rng.random() < 0.5:
                lower[k, place : place + 5] = rng.uniform(0.3, 1.2)
            else:
                upper[k, place : place + 5] = -rng.uniform(0.3, 1.2)
    return lower, upper


truth = np.array([4.0, 30.0])
limits = roads(8)
(driven,) = driver(*limits, *truth)


def learn(paths):
    """Return the weights whose paths are nearest, and the losses on the way; weights in logarithms."""
    losses = []

    def mismatch(logs):
        solution = driver.solve(*limits, *np.exp(logs))
        difference = solution.values[0] - paths
        _, _, g_steering, g_change = solution.vjp(2 * difference / difference.size)
        losses.append(np.mean(difference**2))
        return losses[-1], np.exp(logs) * np.array([g_steering, g_change])

    result = minimize(mismatch, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-10})
    return np.exp(result.x), losses


exact, losses = learn(driven)
noisy, _ = learn(driven + 0.02 * rng.standard_normal(driven.shape))
print("weights of the driver: ", truth)
print("learned without noise: ", exact.round(4))
print("learned with noise:    ", noisy.round(2))
assert np.abs(exact / truth - 1).max() < 1e-4 and np.abs(noisy / truth - 1).max() < 0.1

# %%
# A road that nobody has driven yet
# ---------------------------------

new = roads(1)
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
axes.fill_between(np.arange(n), -2.2, new[0][0], step="mid", color="0.7")
axes.fill_between(np.arange(n), new[1][0], 2.2, step="mid", color="0.7")
axes.plot(driver(*new, *truth)[0][0], color="black", linewidth=4, alpha=0.3, label="the driver")
axes.plot(driver(*new, *noisy)[0][0], label="learned from paths with noise")
axes.plot(driver(*new, 1.0, 1.0)[0][0], ":", label="before learning")
axes.set(xlabel="place along the road", ylabel="offset from the middle", title="A new road", ylim=(-2.2, 2.2))
figure.legend(loc="outside lower center", ncols=3)
figure.savefig("vehicle_path.png")
