"""
Quantile regression: gradients that are exactly zero
====================================================

Learned: nothing is trained here. The example fits a line to the q-th quantile of noisy measurements, as a
function of the level q and of the measurements. The fit is a linear program.

Expect: the fitted line passes through two of the measurements. It does not move as q changes a little, and
then jumps, so its derivative with respect to q is exactly zero. Only these two measurements have a gradient.
Both results are right, and useless for tuning q. A quadratic term rounds the corner of the loss: the
derivative is then positive and agrees with a finite difference. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

# %%
# The linear program
# ------------------
# The loss of a residual r is ``|r| / 2 + (q - 1/2) r``: above the line it costs q, below it 1 - q. The
# residual is a variable, because q may not be multiplied by an expression that contains another parameter
# (DPP).

m = 60
rng = np.random.default_rng(0)
t = np.sort(rng.uniform(0, 1, m))
measured = 1 + t + (0.2 + 0.6 * t) * rng.standard_normal(m)
line, r, q, y = cp.Variable(2), cp.Variable(m), cp.Parameter(), cp.Parameter(m)
fit = r == y - line[0] - line[1] * t
loss = cp.sum(cp.abs(r)) / 2 + (q - 0.5) * cp.sum(r)
linear = cd.CvxpyLayer(cp.Problem(cp.Minimize(loss), [fit]), [q, y], [line])

solution = linear.solve(0.8, measured)
intercept, slope = solution.values[0]
through = np.abs(measured - intercept - slope * t) < 1e-7
at_one = np.array([1.0, 1.0])  # the value of the line at t = 1
g_q, g_y = solution.vjp(at_one)
print(f"the line passes through {through.sum()} measurements; derivative with respect to q: {g_q:.0e}")
print("measurements with a gradient:", np.flatnonzero(np.abs(g_y) > 1e-9))
print("measurements on the line:", np.flatnonzero(through))
assert abs(g_q) < 1e-9 and through.sum() == 2
assert np.array_equal(np.abs(g_y) > 1e-9, through)

# %%
# A rounded corner
# ----------------
# A residual is split into two parts, and the second part is charged by its square. The loss is then quadratic
# near zero, as in a Huber loss, and has the same slopes far away.

width = 0.2
rest = cp.Variable(m)
rounded_loss = (
    cp.sum(cp.abs(r - rest)) / 2 + (q - 0.5) * cp.sum(r - rest) + cp.sum_squares(rest) / (2 * width)
)
rounded = cd.CvxpyLayer(cp.Problem(cp.Minimize(rounded_loss), [fit]), [q, y], [line])
solution = rounded.solve(0.8, measured)
g_q, g_y = solution.vjp(at_one)
up, down = (rounded(0.8 + step, measured)[0] @ at_one for step in (1e-6, -1e-6))
print(f"rounded: derivative {g_q:.6f}, finite difference {(up - down) / 2e-6:.6f}")
assert g_q > 0 and abs((up - down) / 2e-6 - g_q) < 1e-5 * g_q
assert (np.abs(g_y) > 1e-9).sum() > 5

# %%
# Both lines for many levels, in one call each

levels = np.linspace(0.1, 0.9, 161)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(t, measured, ".", color="0.6")
for level in (0.2, 0.5, 0.8):
    (pair,) = linear(level, measured)
    left.plot(t, pair[0] + pair[1] * t, label=f"q = {level}")
left.set(xlabel="t", ylabel="measurement", title="Fitted quantiles")
left.legend()
for name, layer in (("linear program", linear), ("rounded corner", rounded)):
    right.plot(levels, layer(levels, measured)[0] @ at_one, label=name)
right.set(xlabel="level q", ylabel="value of the line at t = 1", title="Steps, and a slope")
right.legend()
figure.savefig("quantile_regression.png")
