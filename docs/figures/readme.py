"""The README's picture: ``python docs/figures/readme.py``; needs the ``demo`` extra.

A polygon {z : G z <= h} is learned from points and their projections onto the unit disc, by the gradient of
its own projection in G and h.
"""

import sys
from pathlib import Path

import cvxpy as cp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import conediff as cd

OUTPUT = Path(__file__).parents[1] / "_static" / "readme.png"
FACES, POINTS = 7, 60
CODE = """\
z, x = cp.Variable(2), cp.Parameter(2)
G, h = cp.Parameter((7, 2)), cp.Parameter(7)
problem = cp.Problem(
    cp.Minimize(cp.sum_squares(z - x)),
    [G @ z <= h])
layer = cd.CvxpyLayer(problem, [x, G, h], [z])

solution = layer.solve(points, G0, h0)

_, dG, dh = solution.vjp(dloss)"""
BLUE, RED, GREEN, INK = "#2b6cb0", "#c53030", "#2f855a", "#1a202c"

z, x = cp.Variable(2), cp.Parameter(2)
G, h = cp.Parameter((FACES, 2)), cp.Parameter(FACES)
layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [G @ z <= h]), [x, G, h], [z])


def data(seed=69):
    """Return points, their projections onto the disc, and an irregular polygon to start from."""
    rng = np.random.default_rng(seed)
    turn, radius = 2 * np.pi * rng.uniform(size=POINTS), rng.uniform(0.75, 1.35, POINTS)
    points = radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    angles = 2 * np.pi * (np.arange(FACES) + 0.35 * rng.uniform(-1, 1, FACES)) / FACES
    start = np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.6 + 0.15 * rng.uniform(-1, 1, FACES)
    return points, points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1), start


def loss_and_gradient(G0, h0, points, targets):
    """Return the mean squared error of the projections, their values, and the gradients in G and h."""
    solution = layer.solve(points, G0, h0)
    off = solution.values[0] - targets
    _, dG, dh = solution.vjp(2 * off / len(points))
    return np.mean(np.sum(off**2, axis=1)), solution.values[0], dG, dh


def learn(start, points, targets, steps=300, rate=0.01):
    """Follow the gradient by Adam. h is an exponential, so it is positive and the polygon is never empty."""
    G0, log_h = start[0].copy(), np.log(start[1])
    mean, square = np.zeros((FACES, 3)), np.zeros((FACES, 3))
    for step in range(1, steps + 1):
        _, _, dG, dh = loss_and_gradient(G0, np.exp(log_h), points, targets)
        g = np.column_stack([dG, dh * np.exp(log_h)])
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        move = rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        G0, log_h = G0 - move[:, :2], log_h - move[:, 2]
    return G0, np.exp(log_h)


def outline(G0, h0):
    """Return the boundary of a polygon around the origin: in each direction, the nearest face."""
    angles = np.linspace(0, 2 * np.pi, 1441)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    along = circle @ G0.T
    return circle * np.min(np.where(along > 1e-9, h0 / np.maximum(along, 1e-9), np.inf), axis=1)[:, None]


def polygon(axes, G0, h0, title, **style):
    """Draw the outline of the disc and fill a polygon."""
    angles = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(angles), np.sin(angles), "--", color="0.45", linewidth=1)
    axes.fill(*outline(G0, h0).T, facecolor=BLUE, alpha=0.25)
    axes.plot(*outline(G0, h0).T, color=BLUE, linewidth=1.6)
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", anchor="N")
    axes.set_title(title, fontsize=11.5, color=INK)
    axes.axis("off")


def faces(G0, h0):
    """Yield number, midpoint of the edge and outer normal of each face that has a visible edge."""
    edge = outline(G0, h0)
    owner = np.argmin(np.abs(edge @ G0.T - h0), axis=1)
    for k in range(FACES):
        if (owner == k).sum() > 20:
            yield k, edge[owner == k].mean(axis=0), G0[k] / np.linalg.norm(G0[k])


def draw(path):
    """Draw the problem, its solutions, the gradient and the learned polygon; return both losses."""
    points, targets, start = data()
    before, values, _, dh = loss_and_gradient(*start, points, targets)
    learned = learn(start, points, targets)
    after, values_after, _, _ = loss_and_gradient(*learned, points, targets)

    figure = Figure(figsize=(8, 5.9), facecolor="white")
    text = figure.add_axes((0.01, 0.52, 0.53, 0.43))
    text.axis("off")
    text.set_title("1. state a convex problem in cvxpy", fontsize=11.5, color=INK)
    box = {"boxstyle": "round,pad=0,rounding_size=0.03", "facecolor": "#edf2f7", "edgecolor": "#cbd5e0"}
    text.add_patch(FancyBboxPatch((0.01, 0.01), 0.98, 0.98, transform=text.transAxes, **box))
    code = {"family": "monospace", "fontsize": 9.6, "linespacing": 1.5}
    text.text(0.035, 0.5, CODE, va="center", color=INK, transform=text.transAxes, **code)
    corners = ((0.57, 0.5), (0.07, 0.0), (0.57, 0.0))  # beside the code, and below
    panels = [figure.add_axes((*corner, 0.4, 0.45)) for corner in corners]

    polygon(panels[0], *start, f"2. solve: {POINTS} points at once")
    for point, value in zip(points, values, strict=True):
        panels[0].plot(*np.stack([point, value]).T, color="0.6", linewidth=0.8, zorder=1)
    panels[0].scatter(*points.T, s=9, color="0.35", zorder=3)
    panels[0].scatter(*values.T, s=14, color=RED, zorder=4)

    polygon(panels[1], *start, "3. differentiate: $-\\partial$loss$/\\partial h$")
    for k, middle, normal in faces(*start):
        arrow = {"arrowstyle": "-|>,head_width=0.3,head_length=0.6", "color": GREEN, "lw": 2.2}
        panels[1].annotate("", middle - 4 * dh[k] * normal, middle, arrowprops=arrow)

    polygon(panels[2], *learned, f"4. learn: loss {before:.3f} → {after:.4f}")
    panels[2].scatter(*values_after.T, s=14, color=RED, zorder=4)
    figure.savefig(path, dpi=110)
    return before, after


if __name__ == "__main__":
    print("loss before and after:", *draw(Path(sys.argv[1]) if sys.argv[1:] else OUTPUT))
