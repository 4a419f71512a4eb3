"""Moreau's decomposition v = y - s in the plane."""

import matplotlib.pyplot as plt
import numpy as np


def ray(degrees):
    """Return the unit vector of this angle."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
wedges = (-20, 110, "tab:blue", "$K^*$", (0.9, -0.35)), (20, 70, "tab:orange", "$K$", (1.2, 1.2))
for low, high, colour, name, at in wedges:
    corners = np.vstack([np.zeros(2), *(5 * ray(d) for d in np.linspace(low, high, 30))])
    axes.fill(*corners.T, color=colour, alpha=0.25, linewidth=0)
    axes.annotate(name, at, fontsize=16, color=colour)

v = 1.7 * ray(155)
y = max(v @ ray(110), 0) * ray(110)
s = y - v
style = {"length_includes_head": True, "head_width": 0.06, "linewidth": 1.5}
axes.arrow(0, 0, *v, color="black", **style)
axes.arrow(0, 0, *y, color="tab:blue", **style)
axes.arrow(0, 0, *s, color="tab:orange", **style)
axes.arrow(*v, *s, color="tab:orange", linestyle=":", **style)
axes.annotate("$v$", v - np.array([0.18, 0.0]), fontsize=16)
axes.annotate(r"$y = \Pi(v)$", y + np.array([0.02, 0.12]), fontsize=16, color="tab:blue")
axes.annotate(r"$s = \Pi(v) - v$", s - np.array([0.0, 0.22]), fontsize=16, color="tab:orange")
corner = 0.12 * np.array([ray(20), ray(20) + ray(110), ray(110)])
axes.plot(*corner.T, color="black", linewidth=1)
axes.set(xlim=(-1.9, 2.0), ylim=(-0.6, 1.9), aspect="equal")
axes.axis("off")
