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
forward, both = [], []
for size in sizes:
    values, cotangent = rng.standard_normal((size, n)), rng.standard_normal((size, n))
    layer.solve(values).vjp(cotangent)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        solution = layer.solve(values)
        between = time.perf_counter()
        solution.vjp(cotangent)
        times.append((between - began, time.perf_counter() - began))
    best = np.min(times, axis=0) / size * 1e6
    forward.append(best[0])
    both.append(best[1])

figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.loglog(sizes, both, "o-", label="solve and gradient")
axes.loglog(sizes, forward, "o-", label="solve")
axes.set(xlabel="elements in the batch", ylabel="microseconds per element")
axes.set(title="Projection onto the simplex, n = 10")
axes.legend()
