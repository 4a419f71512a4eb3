"""The derivative of a solution: images of small discs of parameters."""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

x, c = cp.Variable(2), cp.Parameter(2)
convex_set = [cp.norm(x) <= 1.5, x[0] + x[1] <= 1.3, x[1] >= -0.7]
layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), convex_set), [c], [x])

angles = np.linspace(0, 2 * np.pi, 201)
circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
(outline,) = layer(5 * np.stack([np.cos(angles), np.sin(angles)], axis=1))
points = np.array([[-0.4, 0.1], [1.6, 1.0], [-2.1, 1.1], [-2.2, -1.6]])
names = (
    "inside: the disc itself",
    "on a face: a segment",
    "on a curve: a shorter one",
    "in a corner: a point",
)

figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
axes.fill(*outline.T, color="tab:blue", alpha=0.15)
axes.plot(*outline.T, color="tab:blue", linewidth=1)
radius = 0.3
for point, name in zip(points, names, strict=True):
    solution = layer.solve(np.tile(point, (len(circle), 1)))
    (moved,) = solution.jvp(radius * circle)
    image = solution.values[0] + moved
    axes.plot(*(point + radius * circle).T, color="0.6")
    axes.plot(*np.stack([point, image.mean(axis=0)]).T, ":", color="0.6")
    axes.plot(*image.T, color="tab:red", linewidth=2)
    axes.plot(*image.mean(axis=0), ".", color="tab:red")
    axes.annotate(name, point + np.array([0, radius + 0.06]), ha="center", fontsize=9)
axes.set(aspect="equal", xlim=(-3, 2.6), ylim=(-2, 1.9))
axes.axis("off")
