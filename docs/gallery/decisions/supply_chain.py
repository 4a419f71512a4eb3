"""
Running a supply chain
======================

Learned: the value of goods in three warehouses, in a policy that decides every day which goods to buy, to
move and to sell. The policy solves a small problem for given prices and demands.

Expect: at first the policy values a unit of stock at one, in every warehouse. Gradient descent through 15
days of operation learns the values, and the profit on new days rises by 25 % or more.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
days, runs, steps = 15, 8, 30

# %%
# The network
# -----------
# Goods are bought into warehouses 0 and 1, moved to 2 or from 1 to 0, and sold from 0 and 2. The matrices
# have one column per link.

arrives = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0]])
leaves = torch.tensor([[0.0, 0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1]])
buy, move, sell = slice(0, 2), slice(2, 5), slice(5, 7)
revenue, moving, storing, capacity, room = np.array([1.4, 1.6]), 0.05, 0.01, 2.0, 4.0
returned = 0.05  # goods returned every day, so that no warehouse is ever empty

# %%
# The policy: today's profit, plus the value ``q'h - |r h|^2`` of the stock h that is left
# ----------------------------------------------------------------------------------------

flow, left = cp.Variable(7), cp.Variable(3)
stock, prices, demands = cp.Parameter(3), cp.Parameter(2), cp.Parameter(2, nonneg=True)
q, r = cp.Parameter(3), cp.Parameter(3)
profit = revenue @ flow[sell] - prices @ flow[buy] - moving * cp.sum(flow[move])
value = q @ left - cp.sum_squares(cp.multiply(r, left)) - 0.05 * cp.sum_squares(flow)
limits = [left == stock + arrives.numpy() @ flow - leaves.numpy() @ flow, leaves.numpy() @ flow <= stock]
limits += [flow >= 0, flow <= capacity, left <= room, flow[sell] <= demands]
problem = cp.Problem(cp.Maximize(profit + value), limits)
policy = CvxpyLayer(problem, [stock, prices, demands, q, r], [flow])


def simulate(q, r, seed, runs):
    """Return the average profit per day, and the average stocks."""
    generator = torch.Generator().manual_seed(seed)
    now, total, stocks = torch.full((runs, 3), 1.0), 0.0, []
    for _ in range(days):
        price = (0.3 * torch.randn(runs, 2, generator=generator)).exp()
        demand = (0.4 * torch.randn(runs, 2, generator=generator)).exp()
        (f,) = policy(now, price, demand, q, r)
        earned = f[:, sell] @ torch.tensor(revenue) - (price * f[:, buy]).sum(1) - moving * f[:, move].sum(1)
        now = now + f @ (arrives - leaves).T + returned
        total = total + (earned - storing * now.sum(1)).mean() / days
        stocks.append(now.detach().mean(0))
    return total, torch.stack(stocks)


# %%
# Training
# --------

q_learned = torch.full((3,), 1.0, requires_grad=True)
r_learned = torch.full((3,), 0.3, requires_grad=True)
before, stocks_before = simulate(q_learned.detach(), r_learned.detach(), 1000, 50)
optimizer = torch.optim.Adam([q_learned, r_learned], lr=0.1)
profits = []
for step in (bar := tqdm(range(steps), desc="learning the value of stock")):
    optimizer.zero_grad()
    gain, _ = simulate(q_learned, r_learned, step, runs)
    (-gain).backward()
    optimizer.step()
    profits.append(gain.item())
    bar.set_postfix(profit=f"{profits[-1]:.3f}")
after, stocks_after = simulate(q_learned.detach(), r_learned.detach(), 1000, 50)
print(f"profit per day on new days: {before:.3f} before, {after:.3f} after")
print("value of a unit in each warehouse:", q_learned.detach().round(decimals=2).tolist())
assert after > 1.25 * before

figure, (first, second) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
first.plot(profits)
first.set(xlabel="step", ylabel="profit per day", title="Training (new days in each step)")
for k, colour in enumerate(("tab:blue", "tab:orange", "tab:green")):
    second.plot(stocks_before[:, k], "--", color=colour)
    second.plot(stocks_after[:, k], color=colour, label=f"warehouse {k}")
second.set(xlabel="day", ylabel="units", title="Average stock, before (dashed) and after", ylim=(0, 3.4))
second.legend(loc="upper left")
figure.savefig("supply_chain.png")
