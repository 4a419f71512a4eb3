"""The embedding of: minimise (x - 1)^2 / 2 subject to x <= b. Rays of zeros, cut by the plane w = 1."""

import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

figure = plt.figure(figsize=(6, 5), layout="constrained")
axes = figure.add_subplot(projection="3d", computed_zorder=False)
axes.plot_surface(*np.meshgrid([0, 1.25], [-0.6, 1.1]), np.ones((2, 2)), color="tab:blue", alpha=0.15)


def pierced(b):
    """Return (x, v) of the solution: where the ray meets the plane w = 1."""
    solution = cd.solve(cd.ConeProgram([[1.0]], [b], [-1.0], {"l": 1}, P=[[1.0]]))
    return solution.x[0], (solution.y - solution.s)[0]


for b, colour in zip(np.linspace(0.1, 1.5, 8), plt.cm.viridis(np.linspace(0, 0.9, 8)), strict=True):
    x, v = pierced(b)
    axes.plot([0, 1.25 * x], [0, 1.25 * v], [0, 1.25], color=colour, linewidth=1.2)
    axes.scatter([x], [v], [1], color=[colour], s=18)
    axes.text(x + 0.06, v, 1.0, f"b = {b:.1f}", fontsize=8)
axes.plot(*np.array([[*pierced(b), 1.0] for b in np.linspace(0.05, 1.55, 31)]).T, color="black", linewidth=2)
axes.set(xlabel="u", ylabel="v", zlabel="w", xlim=(0, 1.4), ylim=(-0.7, 1.2), zlim=(0, 1.25))
axes.view_init(elev=24, azim=-62)
