"""
A batch with an element that has no solution
============================================

Learned: a scale for 20 pairs of bounds. Some of the pairs are infeasible, and training continues in spite of
that.

Expect: with ``on_failure="nan"`` the values of an infeasible element are NaN, and all others are exact. The
gradient of a loss that leaves the NaN rows out is exact too. Without this setting, a SolverError names the
infeasible elements.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

import conediff as cd
from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)

# %%
# The problem
# -----------
# Find the smallest x with x >= p and a limit on its sum. If the sum of p exceeds the limit, the problem is
# infeasible.

x, p, limit = cp.Variable(2), cp.Parameter(2), cp.Parameter()
problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= limit])
layer = CvxpyLayer(problem, [p, limit], [x], solver_args={"on_failure": "nan"})

torch.manual_seed(0)
bounds = torch.rand(20, 2) * 1.2
feasible = bounds.sum(dim=1) < 1
scale = torch.ones((), requires_grad=True)
(solutions,) = layer(scale * bounds, torch.tensor(1.0))
assert torch.equal(solutions.isnan().any(dim=1), ~feasible)
assert torch.allclose(solutions[feasible], bounds[feasible], atol=1e-8)
print(f"{feasible.sum()} of 20 elements have a solution")
print("statuses:", sorted(set(layer.info["status"].tolist())))

# %%
# Gradients
# ---------
# All elements share the scale. The solution of a feasible element is scale times p.

(gradient,) = torch.autograd.grad(solutions[feasible].sum(), scale)
assert torch.allclose(gradient, bounds[feasible].sum())
print(f"gradient of the shared scale: {gradient:.6f}, exact {bounds[feasible].sum():.6f}")

# %%
# Without it, an error names the elements
# ---------------------------------------

try:
    layer(bounds, torch.tensor(1.0), solver_args={"on_failure": "raise"})
    raise AssertionError("there should have been an error")
except cd.SolverError as error:
    print("SolverError:", str(error)[:150])
    assert {index[0] for index in error.indices} == set((~feasible).nonzero().ravel().tolist())

# %%
# Training continues
# ------------------
# The loss is the squared difference of the sums from 0.3. As the scale shrinks, more elements have a
# solution.

optimizer = torch.optim.Adam([scale], lr=0.02)
solved, scales = [], []
for _ in tqdm(range(40), desc="learning a scale"):
    optimizer.zero_grad()
    (solutions,) = layer(scale * bounds, torch.tensor(1.0))
    good = ~solutions.isnan().any(dim=1)
    loss = (solutions[good].sum(dim=1) - 0.3).square().mean()
    loss.backward()
    optimizer.step()
    solved.append(good.sum().item())
    scales.append(scale.item())
assert solved[-1] > solved[0] and torch.isfinite(scale)

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(solved, color="tab:blue")
axes.set(xlabel="step", title="A batch with infeasible elements")
axes.set_ylabel("elements with a solution, of 20", color="tab:blue")
twin = axes.twinx()
twin.plot(scales, color="tab:orange")
twin.set_ylabel("scale", color="tab:orange")
figure.savefig("infeasible_element.png")
