"""
Sensitivity analysis: which number matters?
===========================================

Learned: nothing is trained here. The example is a day of electricity supply: four power stations with limits
meet a demand at the least cost. How do costs, emissions and the price move with every number in the problem?

Expect: one solve and three gradients give all sensitivities. Each agrees with a finite difference. A station
that runs at its limit has a sensitivity to its limit and none to its cost. The derivatives predict the effect
of a change of one percent well, and of a change that moves another station to its limit badly. NumPy is
enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

# %%
# The problem
# -----------
# Power in GW. The cost of a station is ``price * power + slope * power^2 / 2``. Emissions are in kt of CO2
# per hour. The dual variable of the balance is the price of one more GWh.

names = ["hydro", "nuclear", "coal", "gas"]
power = cp.Variable(4)
demand, price, limit = cp.Parameter(), cp.Parameter(4), cp.Parameter(4)
slope, emissions = np.array([1.0, 0.5, 4.0, 3.0]), np.array([0.0, 0.0, 0.9, 0.4])
balance = cp.sum(power) == demand
cost = price @ power + cp.sum_squares(cp.multiply(np.sqrt(slope / 2), power))
problem = cp.Problem(cp.Minimize(cost), [balance, power >= 0, power <= limit])
layer = cd.CvxpyLayer(problem, [demand, price, limit], [power, balance.dual_variables[0], problem.objective])

today = 14.0, np.array([5.0, 8.0, 25.0, 30.0]), np.array([3.0, 5.0, 4.0, 10.0])
solution = layer.solve(*today)
running, dual, total = solution.values
sign = -1.0  # cvxpy's dual of an equality in a minimisation is minus the price
print("GW:", ", ".join(f"{name} {value:.3f}" for name, value in zip(names, running, strict=True)))
print(f"price of a GWh: {sign * dual:.3f}")

# %%
# Every sensitivity
# -----------------
# A row for each question, a column for each number. ``vjp`` takes the weights of the outputs in the question
# and returns its derivatives with respect to all parameters.

questions = {
    "total cost": (None, None, np.array(1.0)),
    "price of a GWh": (None, np.array(sign), None),
    "emissions": (emissions, None, None),
}
numbers = ["demand", *(f"cost {name}" for name in names), *(f"limit {name}" for name in names)]
rows = []
for question, weights in questions.items():
    rows.append(np.concatenate([np.ravel(g) for g in solution.vjp(*weights)]))
    strongest = np.argsort(-np.abs(rows[-1]))[:3]
    print(f"{question:15s}", ", ".join(f"{numbers[k]}: {rows[-1][k]:+.3f}" for k in strongest))
table = np.array(rows)


def answers(theta):
    """Return the three quantities for the numbers, shape (9,)."""
    powers, price_of_energy, cost_of_day = layer(theta[0], theta[1:5], theta[5:])
    return np.array([cost_of_day, sign * price_of_energy, emissions @ powers])


theta, h = np.concatenate([[today[0]], *today[1:]]), 1e-5
differences = [(answers(theta + h * unit) - answers(theta - h * unit)) / (2 * h) for unit in np.eye(9)]
assert np.abs(table - np.stack(differences, axis=1)).max() < 1e-5
at_limit = running > today[2] - 1e-6
assert np.abs(table[1, 1:5][at_limit]).max() < 1e-7 and table[0, 5:][at_limit].max() < -1e-3

# %%
# How far do the derivatives reach?
# ---------------------------------
# They describe small changes. Where another station reaches its limit, the price has a kink.

demands = np.linspace(9, 21, 200)
_, duals, _ = layer(demands, *today[1:])
predicted = sign * dual + table[1, 0] * (demands - today[0])
off = np.abs(predicted - sign * duals)
assert off[np.abs(demands - today[0]) < 0.14].max() < 1e-6 and off[-1] > 1

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", width_ratios=(3, 2))
elasticities = table * theta / answers(theta)[:, None]
shown = left.imshow(elasticities, cmap="RdBu", vmin=-3, vmax=3, aspect="auto")
left.set_xticks(range(9), numbers, rotation=60, ha="right")
left.set_yticks(range(3), ["cost", "price", "emissions"])
for (i, j), value in np.ndenumerate(elasticities):
    left.text(j, i, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=9)
left.set(title="Percent, for one percent of each number")
right.plot(demands, sign * duals, label="price")
right.plot(demands, predicted, "--", label="by its derivative")
right.plot(today[0], sign * dual, "o", color="black", label="today")
right.set(xlabel="demand, GW", ylabel="price of a GWh", title="The price has kinks")
right.legend()
figure.savefig("sensitivity.png")
