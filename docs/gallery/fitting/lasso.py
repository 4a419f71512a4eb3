"""
Nonnegative least squares with an l1 term, and its dual variables
=================================================================

Learned: nothing is trained here. The example is a regression with 50 measurements and 10 features, whose
coefficients are nonnegative and mostly zero, as a function of all of its data.

Expect: the layer returns the coefficients and the dual variables of their bounds. Both satisfy the conditions
of optimality. A coefficient is zero exactly where its dual is positive. The gradients of both agree with
finite differences. NumPy is enough.
"""

# %%
# The problem
# -----------
# Minimise ``|A x - b|^2 + penalty * |x|_1`` over x >= 0. The dual variable of the bound is among the
# ``variables``. For x >= 0 the l1 norm is the sum of x. It is written as a sum because the duals are outputs:
# at x = 0 the multipliers of the norm and of the bound would be determined only as a sum.

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

m, n = 50, 10
rng = np.random.default_rng(0)
x = cp.Variable(n)
A, b, penalty = cp.Parameter((m, n)), cp.Parameter(m), cp.Parameter(nonneg=True)
bound = x >= 0
objective = cp.sum_squares(A @ x - b) + penalty * cp.sum(x)
problem = cp.Problem(cp.Minimize(objective), [bound])
layer = cd.CvxpyLayer(problem, [A, b, penalty], [x, bound.dual_variables[0]])

A_value = rng.standard_normal((m, n))
truth = np.maximum(rng.standard_normal(n), 0)
b_value = A_value @ truth + 0.1 * rng.standard_normal(m)
solution = layer.solve(A_value, b_value, 5.0)
coefficients, multipliers = solution.values

# %%
# The conditions of optimality
# ----------------------------
# The gradient of the objective equals the multipliers. Coefficients and multipliers are nonnegative, and one
# of each pair is zero.

gradient = 2 * A_value.T @ (A_value @ coefficients - b_value) + 5.0
print("coefficients:", coefficients.round(3) + 0.0)
print("multipliers: ", multipliers.round(3) + 0.0)
assert np.abs(gradient - multipliers).max() < 1e-7
assert coefficients.min() > -1e-9 and multipliers.min() > -1e-9
assert np.abs(coefficients * multipliers).max() < 1e-8

# %%
# Derivatives of both
# -------------------
# The gradient of a combination of coefficients and multipliers, in reverse mode, is compared with the change
# of the combination along a random direction of all data.

w_x, w_y = rng.standard_normal(n), rng.standard_normal(n)
g_A, g_b, g_penalty = solution.vjp(w_x, w_y)
d_A, d_b, d_penalty = rng.standard_normal((m, n)), rng.standard_normal(m), rng.standard_normal()


def combination(step):
    """Return the same combination, with the data moved along the direction."""
    x_star, y_star = layer(A_value + step * d_A, b_value + step * d_b, 5.0 + step * d_penalty)
    return w_x @ x_star + w_y @ y_star


predicted = np.sum(g_A * d_A) + g_b @ d_b + g_penalty * d_penalty
measured = (combination(1e-6) - combination(-1e-6)) / 2e-6
print(f"predicted {predicted:.8f}, measured {measured:.8f}")
assert abs(predicted - measured) < 1e-6 * abs(measured)

# %%
# The path of the penalty
# -----------------------
# As the penalty grows, coefficients become zero. Where a coefficient reaches zero, its multiplier becomes
# positive. One call solves all 200 problems.

penalties = np.linspace(0, 150, 200)
x_path, y_path = layer(A_value, b_value, penalties)
assert not np.any((x_path > 1e-6) & (y_path > 1e-6))

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot(penalties, x_path)
left.set(xlabel="penalty", ylabel="coefficient", title="Coefficients")
right.plot(penalties, y_path)
right.set(xlabel="penalty", ylabel="dual variable", title="Dual variables of their bounds")
figure.savefig("lasso.png")
