"""Error of solutions and gradients against the tolerance, with refinement and without."""

import warnings

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

warnings.simplefilter("ignore", cd.AccuracyWarning)
n, m, count = 20, 30, 40
rng = np.random.default_rng(0)
x, A, b = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m)
objective = cp.sum(cp.huber(A @ x - b)) + cp.norm(x) + 0.1 * cp.sum_squares(x)
problem = cp.Problem(cp.Minimize(objective), [x >= -0.3, cp.sum(cp.exp(x)) <= n])
layer = cd.CvxpyLayer(problem, [A, b], [x])
A_value, b_value = rng.standard_normal((count, m, n)), rng.standard_normal((count, m))
cotangent = rng.standard_normal((count, n))


def solved(order=slice(None), **settings):
    """Return the solutions and the gradients with respect to b, for A and b with permuted rows."""
    data = A_value[:, order], b_value[:, order]
    solution = layer.solve(*data, solver_args={"on_failure": "nan", **settings})
    return solution.values[0], solution.vjp(cotangent)[1]


def errors(found, exact):
    """Return the relative errors, element by element, but at least 1e-16."""
    return np.maximum(np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1), 1e-16)


# The reference permutes the rows, so that its rounding errors differ.
order = rng.permutation(m)
x_exact, gradient = solved(order, tol=1e-13)
exact = x_exact, gradient[:, np.argsort(order)]
tolerances = 10.0 ** np.arange(-2, -12, -1)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
for axes, k, title in zip(panels, (0, 1), ("Solutions", "Gradients"), strict=True):
    for refine, colour, label in ((False, "tab:orange", "SCS alone"), (True, "tab:blue", "refined")):
        found = np.stack([errors(solved(tol=tol, refine=refine)[k], exact[k]) for tol in tolerances])
        axes.loglog(tolerances, np.median(found, axis=1), color=colour, label=f"{label}: median")
        axes.loglog(tolerances, found.max(axis=1), "--", color=colour, label=f"{label}: worst")
    axes.loglog(tolerances, tolerances, ":", color="0.5", label="error = tolerance")
    axes.set(xlabel="tol", title=title)
panels[0].set(ylabel="relative error")
panels[0].invert_xaxis()
panels[1].invert_xaxis()
panels[1].legend(fontsize=8)
