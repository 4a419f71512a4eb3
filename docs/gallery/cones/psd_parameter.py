"""
The exact derivative with respect to a covariance matrix
========================================================

Learned: nothing is trained here. The example is the portfolio of least variance as a function of the
covariance matrix itself, a PSD parameter P in ``quad_form(w, P)``, and not of a square root of it.

Expect: without active bounds the weights are ``P^-1 1``, scaled to sum one. The gradient of any function of
the weights with respect to P is a symmetric matrix of rank two at most, with a closed form. The layer agrees
with it to eight digits. With bounds, the gradient agrees with a finite difference. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

n = 8
w, P = cp.Variable(n), cp.Parameter((n, n), PSD=True)
fully_invested = cp.sum(w) == 1
free = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(w, P)), [fully_invested]), [P], [w])
long_only = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(w, P)), [fully_invested, w >= 0]), [P], [w])

rng = np.random.default_rng(1)
factors = rng.standard_normal((3, n)) + np.array([[2.0], [0.0], [0.0]])
covariance = factors.T @ factors + np.diag(rng.uniform(0.5, 1.5, n))
cotangent = rng.standard_normal(n)

# %%
# Without bounds
# --------------
# With the inverse V and the vector of ones e, w = V e / (e'V e). A change dP gives dw = -(V - w (V e)') dP w.
# The adjoint at a cotangent g is minus the symmetric part of (V - V e w') g w'.

solution = free.solve(covariance)
(gradient,) = solution.vjp(cotangent)
V = np.linalg.inv(covariance)
weights = V.sum(axis=1) / V.sum()
outer = -np.outer(V @ cotangent - V.sum(axis=1) * (weights @ cotangent), weights)
exact = (outer + outer.T) / 2
error = np.abs(gradient - exact).max() / np.abs(exact).max()
print(f"weights differ by {np.abs(solution.values[0] - weights).max():.1e}, gradients by {error:.1e}")
assert np.abs(solution.values[0] - weights).max() < 1e-9 and error < 1e-8
assert np.array_equal(gradient, gradient.T)
assert np.linalg.matrix_rank(gradient, tol=1e-8) <= 2

# %%
# With bounds
# -----------

solution = long_only.solve(covariance)
(bounded,) = solution.vjp(cotangent)
direction = rng.standard_normal((n, n))
direction = (direction + direction.T) / 2
up, down = (long_only(covariance + step * direction)[0] @ cotangent for step in (1e-6, -1e-6))
measured, predicted = (up - down) / 2e-6, np.sum(bounded * direction)
print("weights:", solution.values[0].round(3) + 0.0)
print(f"directional derivative: {predicted:.8f} predicted, {measured:.8f} measured")
assert abs(measured - predicted) < 1e-6 * np.abs(bounded).sum()
out = solution.values[0] < 1e-9
assert out.any() and np.abs(bounded[np.ix_(out, out)]).max() < 1e-9

figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
shown = {"covariance P": covariance, "gradient, no bounds": gradient, "gradient, w >= 0": bounded}
for axes, (name, matrix) in zip(panels, shown.items(), strict=True):
    size = np.abs(matrix).max()
    figure.colorbar(axes.imshow(matrix, cmap="RdBu", vmin=-size, vmax=size), ax=axes, shrink=0.8)
    axes.set(title=name, xlabel="asset", xticks=range(n), yticks=range(n))
panels[0].set_ylabel("asset")
figure.savefig("psd_parameter.png")
