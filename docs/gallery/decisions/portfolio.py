"""
Tuning a portfolio on real prices
=================================

Learned: four numbers of an investment policy: the weights of the returns of the last 1, 6 and 12 months, and
the aversion to risk. The policy is a convex problem, solved once a month. The prices are those of 20 large
American companies, 1990 to 2022, from the package skfolio.

Expect: on the months until 2010, which are used for tuning, the growth per year rises by more than five
percentage points. On the later months, which are not used, the tuned policy does *worse* than the untuned
one: four numbers are enough to overfit twenty years of prices. The picture shows both periods.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from skfolio.datasets import load_sp500_dataset
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)

# %%
# Data
# ----
# The data are monthly returns. Signals are the average returns of the last 1, 6 and 12 months. Risk is the
# root of the covariance of the last 36 months. (Install with ``pip install pandas plotly``, then
# ``pip install --no-deps skfolio``. With its dependencies, skfolio would install another copy of cvxpy.)

daily = load_sp500_dataset()
monthly = daily.groupby(daily.index.to_period("M")).last()
returns = monthly.pct_change().dropna().to_numpy()
dates = monthly.index[1:].to_timestamp()
months, assets = returns.shape
first = 36


def root_of_covariance(window):
    """Return F with F'F the covariance, a tenth of its mean variance added to the diagonal."""
    covariance = np.cov(window.T)
    covariance += 0.1 * np.trace(covariance) / assets * np.eye(assets)
    return np.linalg.cholesky(covariance).T


signals = np.stack([[returns[t - k : t].mean(axis=0) for k in (1, 6, 12)] for t in range(first, months)])
roots = torch.tensor(np.stack([root_of_covariance(returns[t - 36 : t]) for t in range(first, months)]))
signals, realised, dates = torch.tensor(signals), torch.tensor(returns[first:]), dates[first:]
train = int((dates.year < 2010).sum())

# %%
# The policy
# ----------

w = cp.Variable(assets)
expected, risk = cp.Parameter(assets), cp.Parameter((assets, assets))
objective = cp.Maximize(expected @ w - cp.sum_squares(risk @ w))
policy = CvxpyLayer(cp.Problem(objective, [cp.sum(w) == 1, w >= 0]), [expected, risk], [w])
trading_cost = 0.001


def log_growth(theta, months):
    """Return the logarithmic growth per month, trading costs taken off."""
    expected = (theta[:3, None] * signals[months]).sum(dim=1)
    (weights,) = policy(expected, theta[3].exp() ** 0.5 * roots[months])
    turnover = (weights[1:] - weights[:-1]).abs().sum(dim=1)
    growth = torch.log1p((weights * realised[months]).sum(dim=1))
    return torch.cat([growth[:1], growth[1:] - trading_cost * turnover])


past, future = slice(0, train), slice(train, None)
start = torch.tensor([0.3, 0.3, 0.3, np.log(5.0)])
theta = start.clone().requires_grad_()
optimizer = torch.optim.Adam([theta], lr=0.05)
history = []
for _ in (bar := tqdm(range(40), desc="tuning the policy")):
    optimizer.zero_grad()
    loss = -log_growth(theta, past).mean()
    loss.backward()
    optimizer.step()
    history.append(-12 * loss.item())
    bar.set_postfix(growth=f"{history[-1]:.2%}")

# %%
# The result
# ----------

with torch.no_grad():
    paths = {name: log_growth(value, slice(None)) for name, value in (("untuned", start), ("tuned", theta))}
paths["equal weights"] = torch.log1p(realised.mean(dim=1))
for name, path in paths.items():
    seen, unseen = (12 * path[part].mean() for part in (past, future))
    print(f"{name:14s} growth per year: {seen:.2%} until 2010, {unseen:.2%} after")
print("trust in 1, 6, 12 months:", theta[:3].detach().round(decimals=2).tolist())
assert paths["tuned"][past].mean() > paths["untuned"][past].mean() + 0.05 / 12
assert paths["tuned"][future].mean() < paths["untuned"][future].mean()

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, path in paths.items():
    axes.semilogy(dates, path.cumsum(0).exp(), label=name)
axes.axvline(dates[train], color="0.5", linestyle="--")
axes.set(xlabel="year", ylabel="dollars", title="Value of one dollar; tuned left of the line")
axes.legend()
figure.savefig("portfolio.png")
