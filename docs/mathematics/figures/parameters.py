"""The three maps from parameters to outputs, forward and in reverse."""

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
boxes = (
    ("parameters\n$\\theta$", "$d\\theta$", "$g_\\theta$"),
    ("data\n$P, A, b, c$", "$dP, dA, db, dc$", "$g_P, g_A, g_b, g_c$"),
    ("solution\n$x, y, s$", "$dx, dy, ds$", "$g_x, g_y, g_s$"),
    ("outputs\nvariables, duals, value", "their tangents", "their cotangents"),
)
places = 0, 3, 6, 9.6
maps = ("affine,\nby cvxpy", "solve,\nreduced system", "linear,\nby cvxpy")
for place, (name, tangent, cotangent) in zip(places, boxes, strict=True):
    style = {"boxstyle": "round,pad=0.5", "facecolor": "tab:blue", "alpha": 0.15, "edgecolor": "none"}
    axes.text(place, 0, name, ha="center", va="center", fontsize=11, bbox=style)
    axes.text(place, 0.95, tangent, ha="center", va="center", color="tab:orange")
    axes.text(place, -0.95, cotangent, ha="center", va="center", color="tab:green")
for middle, name in zip((1.5, 4.5, 7.35), maps, strict=True):
    axes.text(middle, 0.18, name, ha="center", va="bottom", fontsize=9)
    for height, ends, colour in ((0, (-0.4, 0.4), "black"), (0.95, (-0.4, 0.4), "tab:orange")):
        arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.5}
        axes.annotate("", (middle + ends[1], height), (middle + ends[0], height), arrowprops=arrow)
    arrow = {"arrowstyle": "->", "color": "tab:green", "linewidth": 1.5}
    axes.annotate("", (middle - 0.4, -0.95), (middle + 0.4, -0.95), arrowprops=arrow)
axes.text(-1.0, 0.95, "forward", ha="right", va="center", color="tab:orange")
axes.text(-1.0, -0.95, "reverse", ha="right", va="center", color="tab:green")
axes.set(xlim=(-2, 11.2), ylim=(-1.3, 1.3))
axes.axis("off")
