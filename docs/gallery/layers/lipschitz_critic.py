"""
A gradient penalty through a projection
=======================================

Learned: a function of the plane, a critic, that is as large as possible on one set of points and as small as
possible on another, with slopes of about one at most. Its hidden units are projected onto the unit ball.

Expect: where no slope exceeds one, the difference of the critic's means on the two sets is at most their
Wasserstein distance (Kantorovich and Rubinstein's duality). With a penalty on slopes above one (as Gulrajani
et al. 2017, Improved training of Wasserstein GANs) it comes within 10 % of this distance. Without, it is more
than ten times as large. The penalty is a function of a gradient through the projection, so its own gradient
needs second derivatives of the projection.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
units, count, steps = 6, 64, 150
# %%
# The critic: the projection stands after an affine map, whose weights move with the slopes.

z, x = cp.Variable(units), cp.Parameter(units)
square, ball = cp.sum_squares(z - x), cp.SOC(cp.Constant(1.0), z)  # |z| <= 1
project = CvxpyLayer(cp.Problem(cp.Minimize(square), [ball]), [x], [z])


def critic(weights, points):
    """Return the critic's value at each point."""
    W1, b1, W2, w3 = weights
    return torch.tanh(project(points @ W1 + b1)[0] @ W2) @ w3


def penalty(weights, points):
    """Return the mean square of what slopes exceed one by, and the largest slope."""
    points = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(weights, points).sum(), points, create_graph=True)
    slopes = gradient.norm(dim=1)
    return (slopes - 1).clamp(min=0).square().mean(), slopes.max().item()


# %%
# Two sets of points, a cloud and a ring around it, and points between them, where slopes are penalised.

torch.manual_seed(0)
inside, angles = 0.5 * torch.randn(count, 2), 2 * torch.pi * torch.rand(count)
ring = 2 * torch.stack([angles.cos(), angles.sin()], dim=1) + 0.2 * torch.randn(count, 2)
costs = torch.cdist(inside, ring)
distance = costs[linear_sum_assignment(costs)].mean().item()
start = [torch.randn(2, units), torch.randn(units) / 2, torch.randn(units, 16), torch.randn(16) / 4]


def between():
    """Draw points on lines from the cloud to the ring."""
    share = torch.rand(count, 1)
    return share * inside[torch.randperm(count)] + (1 - share) * ring


# %%
# The derivative of the penalty in the first weights, along a random direction, against a central difference.

points, direction, h = between(), torch.randn(2, units), 1e-5
W1 = start[0].clone().requires_grad_()
exact = (torch.autograd.grad(penalty([W1, *start[1:]], points)[0], W1)[0] * direction).sum().item()
up, down = (penalty([W1 + s * h * direction, *start[1:]], points)[0].item() for s in (1, -1))
print(f"derivative of the penalty: {exact:.7f}, by differences {(up - down) / (2 * h):.7f}")
assert abs(exact) > 1e-3 and abs(exact - (up - down) / (2 * h)) < 1e-5 * abs(exact)


def train(factor, name):
    """Return the weights and the difference of the critic's means in each step."""
    weights, differences = [part.clone().requires_grad_() for part in start], []
    optimizer = torch.optim.Adam(weights, lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in tqdm(range(steps), desc=name):
        optimizer.zero_grad()
        values = critic(weights, torch.cat([ring, inside]))
        difference = values[:count].mean() - values[count:].mean()
        (factor * penalty(weights, between())[0] - difference).backward()
        optimizer.step()
        schedule.step()
        differences.append(difference.item())
    return weights, differences


(limited, estimates), (free, larger) = train(20.0, "with the penalty"), train(0.0, "without")
steep = [penalty(weights, between())[1] for weights in (limited, free)]
print(f"distance {distance:.3f}; with the penalty {estimates[-1]:.3f}, largest slope {steep[0]:.2f}")
print(f"without the penalty {larger[-1]:.1f}, largest slope {steep[1]:.1f}")
assert abs(estimates[-1] - distance) < 0.1 * distance and larger[-1] > 10 * distance and steep[0] < 1.3

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
line = torch.linspace(-2.7, 2.7, 60)
values = critic(limited, torch.cartesian_prod(line, line)).detach().reshape(60, 60)
shades = left.contourf(line, line, values.T, levels=12, cmap="Greys")
figure.colorbar(shades, ax=left, label="value of the critic")
left.scatter(*inside.T, s=12, color="tab:orange", label="cloud")
left.scatter(*ring.T, s=12, color="tab:blue", label="ring")
left.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal", title="With the penalty")
right.semilogy(larger, color="tab:red", label="without the penalty")
right.semilogy(estimates, color="tab:green", label="with the penalty")
right.axhline(distance, color="black", linestyle="--", linewidth=1, label="Wasserstein distance")
right.set(xlabel="step", ylabel="difference of the means", title="Training")
figure.legend(loc="outside lower center", ncols=5, fontsize=8)
figure.savefig("lipschitz_critic.png")
