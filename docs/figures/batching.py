"""Time per element against the size of the batch."""

import time

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

import conediff as cd

n = 10
z, x = cp.Variable(n), cp.Parameter(n)
problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= 0])
layer = cd.CvxpyLayer(problem, [x], [z])
rng = np.random.default_rng(0)
sizes = [1, 4, 16, 64, 256, 1024]
calls = [(rng.standard_normal((size, n)), rng.standard_normal((size, n))) for size in sizes]
rounds = []
for _ in range(30):  # sizes take turns, so that other work on the machine does not fall on one of them
    times = []
    for values, cotangent in calls:
        began = time.perf_counter()
        solution = layer.solve(values)
        between = time.perf_counter()
        solution.vjp(cotangent)
        times.append((between - began, time.perf_counter() - began))
    rounds.append(times)
forward, both = np.min(rounds, axis=0).T / sizes * 1e6

figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.loglog(sizes, both, "o-", label="solve and gradient")
axes.loglog(sizes, forward, "o-", label="solve")
axes.set(xlabel="elements in the batch", ylabel="microseconds per element")
axes.set(title="Projection onto the simplex, n = 10")
axes.legend()
