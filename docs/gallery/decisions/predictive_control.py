"""
Heating a house by model predictive control
===========================================

Learned: five numbers of the controller of a house's heating: four of the model with which it plans, and the
weight of comfort. The controller measures the temperature of the air only, but the walls store heat.

Expect: the model that fits the house best does not control it best. Following the gradient through 36 hours
of planning and heating lowers the cost, electricity and discomfort together, by more than 5 % on days that
were not used for learning.
"""

# %%
# The controller
# --------------
# Every hour it plans eight hours of heating, for forecasts of weather and prices, and applies the first.

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
ahead, hours, steps, wish, comfort = 8, 36, 25, 21.0, 0.3

air, heat = cp.Variable(ahead + 1), cp.Variable(ahead)
now, keep, gain, drift = cp.Parameter(), cp.Parameter(), cp.Parameter(), cp.Parameter(ahead)
prices, care = cp.Parameter(ahead), cp.Parameter(nonneg=True)
cost = prices @ heat + 0.02 * cp.sum_squares(heat) + cp.sum_squares(care * (air[1:] - wish))
limits = [air[0] == now, air[1:] == keep * air[:-1] + gain * heat + drift, heat >= 0, heat <= 3]
plan = CvxpyLayer(cp.Problem(cp.Minimize(cost), limits), [now, keep, gain, drift, prices, care], [heat])

# %%
# The house, and the weather around it


def house(air, walls, outside, heat):
    """Return the temperatures of air and walls an hour later."""
    into_air, into_walls = 0.3 * (walls - air) + 0.06 * (outside - air), 0.06 * (air - walls)
    return air + into_air + 1.2 * heat, walls + into_walls + 0.02 * (outside - walls)


def days(seed, count):
    """Return temperatures outside, and prices (low at night); the forecasts are right."""
    generator, hour = torch.Generator().manual_seed(seed), torch.arange(hours + ahead)
    level = 5 * torch.randn(count, 1, generator=generator)
    drifts = 0.3 * torch.randn(count, hours + ahead, generator=generator).cumsum(dim=1)
    outside = level + drifts - 4 * torch.cos(2 * torch.pi * (hour - 3) / 24)
    price = 1 + 0.6 * torch.sin(2 * torch.pi * (hour - 6.5) / 24).sign()
    return outside, price.expand(count, -1)


def simulate(model, outside, prices):
    """Return the cost per hour, and the temperatures of the air."""
    keep, gain, loss, bias, care = model
    air, walls = torch.full((2, len(outside)), 18.0)
    total, airs = 0.0, []
    for t in range(hours):
        soon = slice(t, t + ahead)
        (planned,) = plan(air, keep, gain, loss * outside[:, soon] + 20 * bias, prices[:, soon], care)
        air, walls = house(air, walls, outside[:, t], planned[:, 0])
        total = total + prices[:, t] * planned[:, 0] + comfort * (air - wish).square()
        airs.append(air.detach())
    return total.mean() / hours, torch.stack(airs)


# %%
# The model that fits best, by least squares on a house that is heated at random

torch.manual_seed(0)
(outside, _), (air, walls) = days(0, 20), torch.full((2, 20), 18.0)
rows, nexts = [], []
for now_outside, power in zip(outside.T[:hours], 1.8 * torch.rand(hours, 20), strict=True):
    rows.append(torch.stack([air, power, now_outside, torch.ones(20)], dim=1))
    air, walls = house(air, walls, now_outside, power)
    nexts.append(air)
fitted = torch.linalg.lstsq(torch.cat(rows), torch.cat(nexts)[:, None]).solution[:, 0]
start = torch.cat([fitted * torch.tensor([1, 1, 1, 1 / 20]), torch.tensor([comfort**0.5])])

# %%
# The model that controls best

learned = start.clone().requires_grad_()
optimizer = torch.optim.Adam([learned], lr=0.02)
train, losses = days(1, 10), []
for _ in tqdm(range(steps), desc="learning to heat"):
    optimizer.zero_grad()
    loss, _ = simulate(learned, *train)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

test = days(1000, 30)
with torch.no_grad():
    before, airs_fitted = simulate(start, *test)
    after, airs_learned = simulate(learned, *test)
print(f"cost per hour on new days: {before:.3f} with the fitted model, {after:.3f} with the learned one")
assert after < 0.95 * before

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(losses)
left.set(xlabel="step", ylabel="cost per hour", title="Training")
for airs, name in ((airs_fitted, "fitted model"), (airs_learned, "learned model")):
    right.plot(airs[:, 0], label=name)
right.axhline(wish, color="0.5", linestyle=":", label="wish")
right.set(xlabel="hour", ylabel="temperature of the air, °C", title="A new day")
right.legend()
figure.savefig("predictive_control.png")
