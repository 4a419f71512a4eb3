"""Projections onto the second-order cone, and the eigenvalues of their derivatives."""

import matplotlib.pyplot as plt
import numpy as np

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")

across, up = np.meshgrid(np.linspace(1e-9, 2, 300), np.linspace(-1.4, 2, 510))
eigenvalue = np.clip((1 + up / across) / 2, 0, 1)
shown = left.imshow(eigenvalue, origin="lower", extent=(0, 2, -1.4, 2), cmap="Blues", alpha=0.8)
figure.colorbar(shown, ax=left, label="eigenvalue orthogonal to the plane")
left.plot([0, 2], [0, 2], color="black")
left.plot([0, 1.4], [0, -1.4], "--", color="black")
for v1, v0 in ((1.7, 0.6), (1.6, -0.4), (1.3, -0.9), (0.6, 0.1), (1.0, 1.5), (0.5, -1.1)):
    a = v0 / v1
    y = np.array([v1, v0]) if a >= 1 else np.zeros(2) if a <= -1 else (v0 + v1) / 2 * np.ones(2)
    left.plot(v1, v0, "o", color="tab:red", markersize=4)
    if a < 1:
        left.annotate("", y, (v1, v0), arrowprops={"arrowstyle": "->", "color": "tab:red"})
left.text(0.65, 1.35, "K", fontsize=14, color="white")
left.text(0.65, -1.2, "-K", fontsize=14)
left.set(xlim=(0, 2), ylim=(-1.4, 2), xlabel="$|v_1|$", ylabel="$v_0$", title="Second-order cone")

values = np.array([3.0, 1.0, -0.5, -2.0])
above, gaps = np.maximum(values, 0), values[:, None] - values
np.fill_diagonal(gaps, 1)
omega = (above[:, None] - above) / gaps + np.diag(values > 0)
right.imshow(omega, cmap="Blues", vmin=0, vmax=1, alpha=0.8)
for (i, j), entry in np.ndenumerate(omega):
    right.text(j, i, f"{entry:.2f}", ha="center", va="center", color="white" if entry > 0.7 else "black")
right.set(xticks=range(4), yticks=range(4), xticklabels=values, yticklabels=values)
right.set(title="Semidefinite cone: Ω", xlabel="eigenvalues", ylabel="eigenvalues")
