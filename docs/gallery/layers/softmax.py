"""
Sigmoid and softmax are optimisation problems
=============================================

Learned: nothing is trained here. Sigmoid and softmax are solutions of convex problems with an entropy in the
objective; layers of these problems return the functions and their derivatives.

Expect: values and derivatives agree with the closed forms to nine digits. NumPy is enough.
"""

# %%
# Sigmoid
# -------
# Maximise ``x p + H(p)`` over probabilities p of one event, where H is the binary entropy. Setting the
# derivative to zero gives ``log(p / (1 - p)) = x``, so p is the sigmoid of x.

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

p, x = cp.Variable(), cp.Parameter()
binary_entropy = cp.entr(p) + cp.entr(1 - p)
sigmoid = cd.CvxpyLayer(cp.Problem(cp.Maximize(x * p + binary_entropy)), [x], [p])

inputs = np.linspace(-6, 6, 121)
solution = sigmoid.solve(inputs)  # 121 problems in one call
(values,) = solution.values
(slopes,) = solution.jvp(np.ones_like(inputs))

exact = 1 / (1 + np.exp(-inputs))
value_error = np.abs(values - exact).max()
slope_error = np.abs(slopes - exact * (1 - exact)).max()
print(f"sigmoid: value off by at most {value_error:.1e}, derivative by {slope_error:.1e}")
assert value_error < 1e-9 and slope_error < 1e-8

# %%
# Softmax
# -------
# Softmax is the same with n events: maximise ``x'p + H(p)`` over the simplex.

n = 5
p, x = cp.Variable(n), cp.Parameter(n)
problem = cp.Problem(cp.Maximize(x @ p + cp.sum(cp.entr(p))), [cp.sum(p) == 1])
softmax = cd.CvxpyLayer(problem, [x], [p])

scores = np.random.default_rng(0).standard_normal((100, n))
solution = softmax.solve(scores)
(values,) = solution.values
exact = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
value_error = np.abs(values - exact).max()

# %%
# The Jacobian of softmax is ``diag(p) - p p'``. The layer computes it row by row:

rows = [solution.vjp(np.tile(unit, (100, 1)))[0] for unit in np.eye(n)]
jacobian = np.stack(rows, axis=1)
exact_jacobian = exact[:, :, None] * (np.eye(n) - exact[:, None, :])
jacobian_error = np.abs(jacobian - exact_jacobian).max()
print(f"softmax: value off by at most {value_error:.1e}, Jacobian by {jacobian_error:.1e}")
assert value_error < 1e-9 and jacobian_error < 1e-8

# %%
# The picture shows the sigmoid and its derivative as the layer returns them.

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(inputs, exact := 1 / (1 + np.exp(-inputs)), color="0.75", linewidth=6, label="closed form")
axes.plot(inputs, exact * (1 - exact), color="0.75", linewidth=6)
axes.plot(inputs, sigmoid(inputs)[0], label="layer: value")
axes.plot(inputs, slopes, label="layer: derivative")
axes.set(
    xlabel="score x", ylabel="probability, derivative", title="Sigmoid, as the solution of an entropy problem"
)
axes.legend()
figure.savefig("softmax.png")
