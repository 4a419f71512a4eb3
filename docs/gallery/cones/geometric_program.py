"""
A geometric program: receivers in each other's noise
====================================================

Learned: the places of six receivers, each at a fixed distance from its own transmitter. Every receiver must
hear its transmitter above the noise and above the other transmitters. The total power is to be small.

Expect: the least power is the value of a geometric program. Its solution and its gradient equal the closed
form (a linear system) to eight digits. Following the gradient more than halves the total power.
"""

# %%
# The program
# -----------
# Receiver i gets transmitter j with the gain ``others[i, j]``, and its own transmitter with the gain
# ``own[i]``. Its own signal has to be three times as strong as noise and interference together. This
# constraint is convex in the logarithms of the powers.

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
count, ratio, noise, steps = 6, 3.0, 0.1, 60
power = cp.Variable(count, pos=True)
own, others = cp.Parameter(count, pos=True), cp.Parameter((count, count), pos=True)
heard = [
    ratio * (noise + sum(others[i, j] * power[j] for j in range(count) if j != i)) <= own[i] * power[i]
    for i in range(count)
]
problem = cp.Problem(cp.Minimize(cp.sum(power)), heard)
powers = CvxpyLayer(problem, [own, others], [power], gp=True)

# %%
# Places
# ------
# Transmitters are near the points of a grid, receivers at a distance of one from their transmitters. Gains
# fall with the third power of the distance.

torch.manual_seed(6)
grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0))
transmitters = 2.4 * grid + 0.5 * torch.rand(count, 2)


def gains(angles):
    """Return the gain from transmitter j to receiver i, shape (count, count)."""
    receivers = transmitters + torch.stack([angles.cos(), angles.sin()], dim=1)
    return (receivers[:, None] - transmitters).square().sum(dim=2) ** -1.5


def closed_form(gain):
    """Return the powers with which every receiver hears just enough."""
    relative = ratio * gain / gain.diagonal()[:, None]
    interference = relative - torch.diag(relative.diagonal())
    return torch.linalg.solve(torch.eye(count) - interference, ratio * noise / gain.diagonal())


# %%
# The layer beside the closed form
# --------------------------------

angles = (2 * torch.pi * torch.rand(count)).requires_grad_()
start = angles.detach().clone()
(found,) = powers(gains(angles).diagonal(), gains(angles))
exact = closed_form(gains(angles))
(gradient,) = torch.autograd.grad(found.sum(), angles)
(exact_gradient,) = torch.autograd.grad(exact.sum(), angles)
error, gradient_error = (found / exact - 1).abs().max(), (gradient - exact_gradient).norm() / gradient.norm()
print(f"relative errors: powers {error:.1e}, gradient {gradient_error:.1e}")
assert error < 1e-8 and gradient_error < 1e-8

# %%
# Turning the receivers
# ---------------------

optimizer = torch.optim.Adam([angles], lr=0.1)
totals = []
for _ in (bar := tqdm(range(steps), desc="turning receivers")):
    optimizer.zero_grad()
    gain = gains(angles)
    total = powers(gain.diagonal(), gain)[0].sum()
    total.backward()
    optimizer.step()
    totals.append(total.item())
    bar.set_postfix(power=f"{totals[-1]:.3f}")
alone = count * ratio * noise
print(f"total power: {totals[0]:.2f} before, {totals[-1]:.2f} after, {alone:.2f} without interference")
assert totals[-1] < 0.5 * totals[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.scatter(*transmitters.T, marker="^", color="black", label="transmitters", zorder=3)
for values, colour, name in ((start, "0.7", "receivers, before"), (angles.detach(), "tab:blue", "after")):
    spots = transmitters + torch.stack([values.cos(), values.sin()], dim=1)
    left.plot(*torch.stack([transmitters, spots]).permute(2, 0, 1), color=colour)
    left.scatter(*spots.T, color=colour, label=name)
left.set(aspect="equal", title="Places", xlabel="distance", ylabel="distance")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
right.plot(totals)
right.axhline(alone, color="0.5", linestyle="--", label="without interference")
right.set(xlabel="step", ylabel="power", title="Total power", ylim=(0, None))
right.legend()
figure.savefig("geometric_program.png")
