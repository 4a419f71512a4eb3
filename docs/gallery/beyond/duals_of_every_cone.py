"""
Dual variables of every cone, and their derivatives
===================================================

Learned: nothing; one problem for each kind of constraint, with the dual variable among the outputs.

Expect: for every cone the dual variable equals the one that cvxpy reports, and its derivative along a
random direction of the parameter agrees with a finite difference to six digits. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

# %%
# One problem for each cone
# -------------------------
# Each is a projection of the parameter onto a set that it lies outside of.

x, X, p, Q = cp.Variable(3), cp.Variable((3, 3), symmetric=True), cp.Parameter(3), cp.Parameter((3, 3))
near, near_matrix = cp.Minimize(cp.sum_squares(x - p)), cp.Minimize(cp.sum_squares(X - Q))
point, matrix = np.array([0.9, -1.2, 0.7]), np.diag([1.0, -2.0, 0.5]) + 0.3
cases = {
    "equality": (near, cp.sum(x) == 1, p, point),
    "inequality": (near, x <= 0.2, p, point),
    "second-order": (near, cp.SOC(x[0], x[1:]), p, point),
    "semidefinite": (near_matrix, X >> 0, Q, matrix),
    "exponential": (near, cp.constraints.ExpCone(x[0], x[1], x[2]), p, np.array([1.0, 0.8, 0.4])),
    "power": (near, cp.constraints.PowCone3D(x[0], x[1], x[2], 0.3), p, np.array([0.5, 0.4, 1.5])),
}
rng = np.random.default_rng(0)

# %%
# Values and derivatives
# ----------------------

errors = {}
for name, (objective, constraint, parameter, value) in cases.items():
    problem = cp.Problem(objective, [constraint])
    duals = constraint.dual_variables
    layer = cd.CvxpyLayer(problem, [parameter], list(duals))
    solution = layer.solve(value)

    parameter.value = value
    problem.solve(solver=cp.CLARABEL)
    theirs = np.concatenate([np.ravel(dual.value) for dual in duals])
    ours = np.concatenate([np.ravel(part) for part in solution.values])
    assert np.abs(ours - theirs).max() < 1e-4, name

    direction = rng.standard_normal(value.shape)
    direction = (direction + direction.T) / 2 if value.ndim == 2 else direction
    moved = np.concatenate([np.ravel(part) for part in solution.jvp(direction)])
    up, down = (
        np.concatenate([np.ravel(part) for part in layer(value + step * direction)]) for step in (1e-5, -1e-5)
    )
    errors[name] = np.abs((up - down) / 2e-5 - moved).max() / np.abs(moved).max()
    print(f"{name:14s} dual {ours.round(4)}, derivative off by {errors[name]:.1e}")
assert max(errors.values()) < 1e-6

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.bar(list(errors), [max(error, 1e-16) for error in errors.values()])
axes.set(yscale="log", ylim=(1e-13, 1e-3), title="Derivatives of dual variables against finite differences")
axes.tick_params(axis="x", rotation=20)
figure.savefig("duals_of_every_cone.png")
