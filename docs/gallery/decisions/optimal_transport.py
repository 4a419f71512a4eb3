"""
Moving a cloud of points by optimal transport
=============================================

Learned: the positions of 16 points. They start in a cluster, and the gradient of the transport cost moves
them onto a ring.

Expect: the optimal value of a linear program has a gradient even where its solution has none; here it is the
transport plan applied to the gradients of the distances. At every step the cost equals that of the best
assignment (found by SciPy). Gradient descent lowers the cost to less than 1 % of its initial value.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
count, steps = 16, 40

# %%
# The layer: the optimal value
# ----------------------------

plan, distances = cp.Variable((count, count)), cp.Parameter((count, count))
mass = np.full(count, 1 / count)
limits = [cp.sum(plan, axis=1) == mass, cp.sum(plan, axis=0) == mass, plan >= 0]
problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(distances, plan))), limits)
transport = CvxpyLayer(problem, [distances], [problem.objective])

# %%
# Descent
# -------

angles = 2 * torch.pi * torch.arange(count) / count
ring = torch.stack([angles.cos(), angles.sin()], dim=1)
points = (0.3 * torch.randn(count, 2) + torch.tensor([1.5, 1.0])).requires_grad_()
start = points.detach().clone()
optimizer = torch.optim.SGD([points], lr=0.1 * count)
costs, paths = [], [start]
for _ in (bar := tqdm(range(steps), desc="moving points")):
    optimizer.zero_grad()
    squared = (points[:, None] - ring[None, :]).square().sum(dim=2)
    (cost,) = transport(squared)
    cost.backward()
    rows, columns = linear_sum_assignment(squared.detach().numpy())
    best = squared.detach()[rows, columns].mean()
    assert abs(cost.item() - best.item()) < 1e-7
    assert torch.allclose(points.grad[rows], 2 * (points - ring[columns]).detach()[rows] / count, atol=1e-6)
    optimizer.step()
    costs.append(cost.item())
    paths.append(points.detach().clone())
    bar.set_postfix(cost=f"{costs[-1]:.4f}")
print(f"transport cost: {costs[0]:.4f} before, {costs[-1]:.6f} after")
assert costs[-1] < 0.01 * costs[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.plot(*torch.stack(paths).permute(2, 0, 1), color="0.7", linewidth=1)
left.scatter(*start.T, label="start")
left.scatter(*points.detach().T, label="end")
left.scatter(*ring.T, marker="+", color="black", label="ring")
left.set(aspect="equal", xlabel="first coordinate", ylabel="second coordinate", title="Paths of the points")
left.legend()
right.semilogy(costs)
right.set(xlabel="step", ylabel="mean squared distance", title="Transport cost")
figure.savefig("optimal_transport.png")
