"""
Learning a polytope from projections onto it
============================================

Learned: the 20 faces ``G z <= h`` of a polygon, from 100 points and their projections onto the unit disc.

Expect: the polygon is small and irregular at first and becomes round. The mean squared error of the
projections falls by a factor of at least thirty in 150 steps of Adam. Only the projection onto the polygon is
differentiated, never the projection onto the disc. (About half of the faces are used in the end. A face onto
which no point is projected has a gradient of zero and does not move.)
"""

# %%
# The layer
# ---------
# The projection of x onto the polygon, differentiable in x, G and h.

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
faces, points, steps = 20, 100, 150
z, x = cp.Variable(2), cp.Parameter(2)
G, h = cp.Parameter((faces, 2)), cp.Parameter(faces)
problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [G @ z <= h])
project = CvxpyLayer(problem, [x, G, h], [z], solver_args={"warm_start": True})

# %%
# Data: points around the disc, and where they are projected to.

inputs = 2 * torch.randn(points, 2)
targets = inputs / inputs.norm(dim=1, keepdim=True).clamp(min=1)

# %%
# Training
# --------
# The learned weights are the logarithms of h, so h stays positive. The origin is then always inside, and
# every element of every batch has a solution.

G_weights = torch.nn.functional.normalize(torch.randn(faces, 2)).requires_grad_()
log_h = torch.full((faces,), -0.7, requires_grad=True)
before = G_weights.detach().clone(), log_h.exp().detach()
optimizer = torch.optim.Adam([G_weights, log_h], lr=0.05)
losses = []
for _ in (bar := tqdm(range(steps), desc="learning 20 faces")):
    optimizer.zero_grad()
    (projected,) = project(inputs, G_weights, log_h.exp())
    loss = (projected - targets).square().sum(dim=1).mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    bar.set_postfix(loss=f"{losses[-1]:.5f}")
after = G_weights.detach(), log_h.exp().detach()
print(f"mean squared error: {losses[0]:.4f} before, {losses[-1]:.6f} after")
assert losses[-1] < losses[0] / 30

# %%
# Before and after
# ----------------

angles = np.linspace(0, 2 * np.pi, 2000)
circle = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def outline(G, h):
    """Return the boundary: along each direction, the first face that is met."""
    along = circle @ G.T
    reach = torch.where(along > 1e-9, h / along, torch.inf).amin(dim=1, keepdim=True)
    return (reach.clamp(max=6) * circle).numpy()


figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
for axes, polygon, title in zip(panels[:2], (before, after), ("Before", "After"), strict=True):
    axes.fill(*outline(*polygon).T, alpha=0.3, label="polygon")
    axes.plot(*circle.T, color="black", linewidth=1, label="unit circle")
    axes.scatter(*targets.T, s=8, color="tab:red", label="projections")
    axes.set(
        xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1], title=title
    )
panels[2].semilogy(losses)
panels[2].set(xlabel="step", ylabel="mean squared error", title="Training")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
figure.savefig("polytope.png")
