"""
Power cones: a factory under changing prices
============================================

Learned: nothing is trained here. The example is a factory that makes ``capital^0.3 labour^0.7`` from a
budget. Its capital and labour are functions of both prices and of the budget.

Expect: the solution equals the closed form, capital = 0.3 budget / price, to nine digits. The derivatives are
exact too: own-price elasticities are minus one and cross-price elasticities are zero. The output is a power
cone, whose derivative is exact. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

share = 0.3
capital, labour, output = cp.Variable(), cp.Variable(), cp.Variable()
prices, budget = cp.Parameter(2, nonneg=True), cp.Parameter(nonneg=True)
limits = [
    cp.constraints.PowCone3D(capital, labour, output, share),
    prices[0] * capital + prices[1] * labour <= budget,
]
factory = cd.CvxpyLayer(cp.Problem(cp.Maximize(output), limits), [prices, budget], [capital, labour, output])

# %%
# Values, for 60 prices of capital at once
# ----------------------------------------

price = np.linspace(0.5, 3, 60)
all_prices = np.stack([price, np.ones(60)], axis=1)
solution = factory.solve(all_prices, 2.0)
used_capital, used_labour, made = solution.values
exact_capital, exact_labour = share * 2.0 / price, (1 - share) * 2.0 * np.ones(60)
exact = exact_capital**share * exact_labour ** (1 - share)
error = max(
    np.abs(used_capital / exact_capital - 1).max(),
    np.abs(used_labour / exact_labour - 1).max(),
    np.abs(made / exact - 1).max(),
)
print(f"values: relative error {error:.1e}")
assert error < 1e-8

# %%
# Derivatives, in forward mode
# ----------------------------
# The elasticity of x with respect to a price p is (p / x) dx/dp.

d_capital, d_labour, d_made = solution.jvp(np.tile([1.0, 0.0], (60, 1)), None)
own = price / used_capital * d_capital
cross = price / used_labour * d_labour
of_output = price / made * d_made
print(f"elasticities: own {own.mean():.9f}, cross {np.abs(cross).max():.1e}, output {of_output.mean():.9f}")
assert np.abs(own + 1).max() < 1e-7 and np.abs(cross).max() < 1e-7
assert np.abs(of_output + share).max() < 1e-7

figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for values, name in ((used_capital, "capital"), (used_labour, "labour"), (made, "output")):
    axes.plot(price, values, label=name)
axes.plot(price, exact_capital, ":", color="black", label="closed forms")
axes.plot(price, exact, ":", color="black")
axes.set(xlabel="price of capital", ylabel="amount", ylim=(0, 1.5), title="Inputs and output of the factory")
axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9), ncols=2)
figure.savefig("power_cones.png")
