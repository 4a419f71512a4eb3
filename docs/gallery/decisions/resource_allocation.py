"""
Allocating a network's capacity, and learning users' weights
============================================================

Learned: the weights of six users of a network, from the rates that were allocated to them on 20 days with
different capacities of the links.

Expect: the allocation maximises the sum of ``w_i log(rate_i)``, which is a problem with exponential cones.
Following the gradient of the mismatch recovers the weights to five digits. The prices of the links, which are
dual variables, show which link to extend, and a test confirms it. NumPy is enough.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import conediff as cd

# %%
# The allocation
# --------------
# Every user sends along a route, a set of links. The sum of the rates on a link is at most its capacity.

routes = np.array(  # links x users
    [
        [1, 1, 0, 0, 0, 1],
        [0, 1, 1, 0, 1, 0],
        [0, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 1],
    ]
)
links, users = routes.shape
rates = cp.Variable(users)
w, capacity = cp.Parameter(users, nonneg=True), cp.Parameter(links, nonneg=True)
limits = routes @ rates <= capacity
problem = cp.Problem(cp.Maximize(w @ cp.log(rates)), [limits])
prices = limits.dual_variables[0]
network = cd.CvxpyLayer(problem, [w, capacity], [rates, prices, problem.objective])

# %%
# Twenty days
# -----------

rng = np.random.default_rng(0)
capacities = rng.uniform(1, 3, (20, links))
truth = np.array([0.5, 1.0, 2.0, 1.5, 0.7, 0.3])
truth /= truth.sum()  # only their proportions matter
observed = network(truth, capacities)[0]


def mismatch(logits):
    """Return the mean squared difference of the rates, and its gradient; weights are a softmax."""
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    solution = network.solve(weights, capacities)
    difference = solution.values[0] - observed
    g_weights, _ = solution.vjp(2 * difference / difference.size, None, None)
    history.append(np.mean(difference**2))
    return history[-1], weights * (g_weights - weights @ g_weights)


history = []
result = minimize(mismatch, np.zeros(users), jac=True, method="BFGS", options={"gtol": 1e-9})
learned = np.exp(result.x) / np.exp(result.x).sum()
print("true weights:   ", truth.round(5))
print("learned weights:", learned.round(5))
assert np.abs(learned - truth).max() < 1e-5

# %%
# Which link to extend
# --------------------
# The price of a link is the increase of the total utility per unit of capacity.

today = capacities[0]
_, price, utility = network(learned, today)
extended = network(learned, today + 0.01 * np.eye(links))[2]
growth = (extended - utility) / 0.01
print("prices:                  ", price.round(3))
print("growth, one link longer: ", growth.round(3))
assert np.argmax(price) == np.argmax(growth) and np.abs(growth - price).max() < 0.02 * price.max()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.semilogy(history)
left.set(xlabel="evaluation", ylabel="mean squared difference", title="Mismatch of the rates")
places = np.arange(links)
right.bar(places - 0.2, price, 0.4, label="price (dual variable)")
right.bar(places + 0.2, growth, 0.4, label="growth when extended")
right.set(xlabel="link", ylabel="utility per capacity", xticks=places, title="Which link to extend")
right.legend()
figure.savefig("resource_allocation.png")
