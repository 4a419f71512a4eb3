"""
Dual variables of every cone, and their derivatives
===================================================

Learned: nothing is trained here. The example solves problems with every kind of constraint, with the dual
variables among the outputs.

Expect: the duals of cvxpy's constraints equal those that cvxpy reports with another solver, to four digits.
For every cone that SCS accepts, the derivative of the dual along a random direction agrees with a finite
difference to six digits. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

rng = np.random.default_rng(0)
steps, errors = np.array([-1e-5, 0, 1e-5]), {}


def compare(name, duals, moved):
    """Store the largest difference between a derivative and the central difference of the duals."""
    difference = (duals[2] - duals[0]) / (steps[2] - steps[0])
    errors[name] = np.abs(difference - moved).max() / np.abs(moved).max()
    print(f"{name:25s} dual {duals[1].round(4) + 0.0}, derivative off by {errors[name]:.1e}")


def flat(arrays):
    """Return all entries in one vector."""
    return np.concatenate([np.ravel(array) for array in arrays])


# %%
# Constraints of cvxpy
# --------------------
# Each problem projects its parameter, which lies outside, onto a set.

x, X, p, Q = cp.Variable(3), cp.Variable((3, 3), symmetric=True), cp.Parameter(3), cp.Parameter((3, 3))
near, near_matrix = cp.Minimize(cp.sum_squares(x - p)), cp.Minimize(cp.sum_squares(X - Q))
point, matrix = np.array([0.9, -1.2, 0.7]), np.diag([1.0, -2.0, 0.5]) + 0.3
constraints = {
    "equality": (near, cp.sum(x) == 1, p, point),
    "inequality": (near, x <= 0.2, p, point),
    "SOC": (near, cp.SOC(x[0], x[1:]), p, point),
    "PSD": (near_matrix, X >> 0, Q, matrix),
    "ExpCone": (near, cp.constraints.ExpCone(x[0], x[1], x[2]), p, np.array([1.0, 0.8, 0.4])),
    "PowCone3D": (near, cp.constraints.PowCone3D(x[0], x[1], x[2], 0.3), p, np.array([0.5, 0.4, 1.5])),
}
for name, (objective, constraint, parameter, value) in constraints.items():
    problem = cp.Problem(objective, [constraint])
    layer = cd.CvxpyLayer(problem, [parameter], list(constraint.dual_variables))
    direction = rng.standard_normal(value.shape)
    direction = (direction + direction.T) / 2 if value.ndim == 2 else direction
    moved = flat(layer.solve(value).jvp(direction))
    duals = [flat(layer(value + step * direction)) for step in steps]
    compare(name, duals, moved)

    parameter.value = value
    problem.solve(solver=cp.CLARABEL)
    theirs = flat(dual.value for dual in constraint.dual_variables)
    assert np.abs(duals[1] - theirs).max() < 1e-4, name

# %%
# Cones of SCS
# ------------
# The problem is the projection of a point a onto a cone K: minimise ``|x - a|^2 / 2`` over x in K. Its dual
# variable is the difference x - a.

cones = {
    "zero": {"z": 3},
    "nonnegative": {"l": 3},
    "box": {"bl": [-1.0, -0.5, -1.0], "bu": [0.1, 1.0, 0.2]},
    "second-order": {"q": [4]},
    "semidefinite": {"s": [3]},
    "complex semidefinite": {"cs": [2]},
    "exponential": {"ep": 1},
    "dual exponential": {"ed": 1},
    "power": {"p": [0.3]},
    "dual power": {"p": [-0.3]},
}
points = {"box": [1.0, 0.4, 0.3, 0.5], "exponential": [1.0, 0.8, 0.4], "dual exponential": [-0.4, 0.8, -0.2]}
for name, cone in cones.items():
    size = {"second-order": 4, "semidefinite": 6, "complex semidefinite": 4}.get(name, 3)
    a = np.array(points.get(name, rng.standard_normal(size)))
    size, direction = a.size, rng.standard_normal(a.size)
    found = [
        cd.solve(cd.ConeProgram(-np.eye(size), np.zeros(size), -a - step * direction, cone, P=np.eye(size)))
        for step in steps
    ]
    assert np.abs(found[1].y - (found[1].x - a)).max() < 1e-8, name
    _, moved, _ = found[1].derivative().jvp(dc=-direction)
    compare(f"{name} cone", [solution.y for solution in found], moved)

assert max(errors.values()) < 1e-6

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.barh(list(errors), [max(error, 1e-16) for error in errors.values()])
axes.set(xscale="log", xlim=(1e-16, 1), xlabel="relative difference from finite differences")
axes.set(title="Derivatives of dual variables")
axes.invert_yaxis()
figure.savefig("duals_of_every_cone.png")
