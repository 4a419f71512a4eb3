"""The reduced matrix K of a control problem: its entries, and its eigenvalues."""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

import conediff as cd

steps, states, inputs = 12, 4, 2
rng = np.random.default_rng(0)
F, B = np.eye(states) + 0.2 * rng.standard_normal((states, states)), rng.standard_normal((states, inputs))
x, u = cp.Variable((steps + 1, states)), cp.Variable((steps, inputs))
constraints = [x[0] == 2 * rng.standard_normal(states), u <= 0.4, u >= -0.4]
constraints += [x[t + 1] == F @ x[t] + B @ u[t] for t in range(steps)]
problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.sum_squares(u)), constraints)
data = problem.get_problem_data(cp.SCS)[0]
dims = data["dims"]
P = sp.csc_array(data["P"])
P = P + P.T - sp.diags_array(P.diagonal()) if sp.tril(P, -1).nnz == 0 else P
program = cd.ConeProgram(data["A"], data["b"], data["c"], {"z": dims.zero, "l": dims.nonneg}, P=P)
solution = cd.solve(program)

d = np.concatenate([np.ones(dims.zero), solution.y[dims.zero :] > solution.s[dims.zero :]])
SA = sp.diags_array(d) @ program.A
K = sp.block_array([[program.P, SA.T], [SA, sp.diags_array(d - 1)]]).toarray()
n = program.n

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
left.spy(K, markersize=1.6, color="tab:blue")
for line in (left.axvline, left.axhline):
    line(n - 0.5, color="black", linewidth=0.8)
labels = {"$P$": (0.22, 0.9), "$A^T S$": (0.85, 0.93), "$S A$": (0.05, 0.1), "$D - I$": (0.82, 0.35)}
for text, at in labels.items():
    left.text(*at, text, transform=left.transAxes, fontsize=14, color="tab:red")
left.set(xticks=[], yticks=[], xlabel="column", ylabel="row", title="Entries of K that are not zero")
eigenvalues = np.linalg.eigvalsh(K)[::-1]
right.plot(eigenvalues, ".", markersize=3)
right.axvline(n - 0.5, color="black", linewidth=0.8)
right.axhline(0, color="black", linewidth=0.8)
right.set(
    yscale="symlog",
    xlabel="number of the eigenvalue",
    ylabel="eigenvalue",
    title=f"Eigenvalues of K: n = {n}, m = {program.m}",
)
assert (eigenvalues[:n] > 0).all() and (eigenvalues[n:] < 0).all()
