"""A linear program over the simplex, and two smoothed versions of it."""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

w, e = cp.Variable(3), cp.Parameter(3)
sum_to_one, nonnegative = cp.sum(w) == 1, w >= 0
objectives = {
    "linear program": cp.Maximize(e @ w),
    "quadratic term": cp.Maximize(e @ w - 0.5 * cp.sum_squares(w)),
    "entropy": cp.Maximize(e @ w + 0.5 * cp.sum(cp.entr(w))),
}
first = np.linspace(-1.5, 2, 141) + 1e-3  # not at the jump itself
scores = np.stack([first, np.full_like(first, 0.3), np.full_like(first, -0.2)], axis=1)
direction = np.tile([1.0, 0.0, 0.0], (len(first), 1))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for (name, objective), style in zip(objectives.items(), ("k-", "-", "-"), strict=True):
    constraints = [sum_to_one] if name == "entropy" else [sum_to_one, nonnegative]
    solution = cd.CvxpyLayer(cp.Problem(objective, constraints), [e], [w]).solve(scores)
    left.plot(first, solution.values[0][:, 0], style, label=name)
    right.plot(first, solution.jvp(direction)[0][:, 0], style)
left.set(xlabel="first score", ylabel="$w_0$", title="First entry of the solution")
right.set(xlabel="first score", ylabel="derivative of $w_0$", title="Its derivative")
left.legend()
