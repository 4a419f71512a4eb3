"""The optimal value as a function of a budget, its derivative, and its second derivative."""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

x, price, budget = cp.Variable(3), cp.Parameter(3, nonneg=True), cp.Parameter(nonneg=True)
limit = price @ x <= budget
problem = cp.Problem(cp.Maximize(cp.sum(cp.log(1 + x))), [limit, x >= 0])
layer = cd.CvxpyLayer(problem, [price, budget], [limit.dual_variables[0], problem.objective])

prices, budgets = np.array([1.0, 2.0, 4.0]), np.linspace(0.1, 12, 240)
worth, utility = layer(prices, budgets)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
left.plot(budgets, utility, label="optimal value")
right.plot(budgets, worth, label="dual variable")
for at in (2.0, 7.0):
    solution = layer.solve(prices, at)
    (dual, value), (_, slope) = solution.values, solution.vjp(np.array(1.0), None)
    near = np.array([at - 1.6, at + 1.6])
    left.plot(near, value + dual * (near - at), color="tab:orange")
    left.plot(at, value, "o", color="tab:orange")
    right.plot(near, dual + slope * (near - at), color="tab:green")
    right.plot(at, dual, "o", color="tab:green")
left.set(xlabel="budget", ylabel="optimal value", title="Value; its slope is the dual variable")
right.set(
    xlabel="budget",
    ylabel="dual variable",
    ylim=(0, 1.05),
    title="Dual variable; its slope is its derivative",
)
