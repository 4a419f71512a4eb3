"""
A quadratic program, differentiated in all of its data
======================================================

Learned: nothing is trained here. The layer minimises ``|Q z|^2 / 2 + q'z`` subject to ``G z <= h`` and
``A z = b``; all six of Q, q, G, h, A, b are inputs. Many other layers are special cases of it.

Expect: PyTorch's ``gradcheck`` passes for all inputs at once, on a batch of two programs with ten variables,
four inequalities and five equalities. The picture shows the largest relative difference between each gradient
and finite differences, which is below 1e-7.
"""

# %%
# The problem
# -----------
# The objective contains Q and not Q'Q, because a parameter may enter only linearly (DPP). If you have
# P = Q'Q, use ``cp.quad_form(z, P)`` with a PSD parameter P.

import cvxpy as cp
import matplotlib.pyplot as plt
import torch

from conediff.torch import CvxpyLayer

n, inequalities, equalities, batch = 10, 4, 5, 2
z = cp.Variable(n)
Q, q = cp.Parameter((n, n)), cp.Parameter(n)
G, h = cp.Parameter((inequalities, n)), cp.Parameter(inequalities)
A, b = cp.Parameter((equalities, n)), cp.Parameter(equalities)
objective = cp.Minimize(0.5 * cp.sum_squares(Q @ z) + q @ z)
problem = cp.Problem(objective, [G @ z <= h, A @ z == b])
layer = CvxpyLayer(problem, parameters=[Q, q, G, h, A, b], variables=[z])

# %%
# Data
# ----
# One known point satisfies all constraints, so every element of the batch has a solution. At the solutions
# some of the inequalities are active and some are not.

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
inside = torch.randn(batch, n, 1)
data = {
    "Q": torch.eye(n) + 0.3 * torch.randn(batch, n, n),
    "q": torch.randn(batch, n),
    "G": torch.randn(batch, inequalities, n),
    "A": torch.randn(batch, equalities, n),
}
data["h"] = (data["G"] @ inside).squeeze(-1) + torch.rand(batch, inequalities)
data["b"] = (data["A"] @ inside).squeeze(-1)
data = {name: data[name].requires_grad_() for name in ("Q", "q", "G", "h", "A", "b")}
(solution,) = layer(*data.values())
slack = data["h"] - (data["G"] @ solution.unsqueeze(-1)).squeeze(-1)
print("inequalities active:", (slack < 1e-8).sum(dim=1).tolist(), "of", inequalities)

# %%
# The check
# ---------

assert torch.autograd.gradcheck(lambda *tensors: layer(*tensors)[0], tuple(data.values()))
print("gradcheck passed for", ", ".join(data))

# %%
# The size of the differences, for the gradient of a random combination of the solution, entry by entry:

weights = torch.randn(batch, n)
gradients = torch.autograd.grad((weights * solution).sum(), tuple(data.values()))


def difference(name, index, step=1e-5):
    """Return the central difference of the same combination with respect to one entry."""
    values = []
    for sign in (1, -1):
        moved = {key: value.detach().clone() for key, value in data.items()}
        moved[name][index] += sign * step
        values.append((weights * layer(*moved.values())[0]).sum())
    return (values[0] - values[1]) / (2 * step)


errors = {}
for (name, value), gradient in zip(data.items(), gradients, strict=True):
    entries = [tuple(i.tolist()) for i in torch.ones_like(value).nonzero()[::7]]
    worst = max(abs(difference(name, index) - gradient[index]) for index in entries)
    errors[name] = float(worst / gradient.abs().max())
assert max(errors.values()) < 1e-7, errors

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.bar(list(errors), list(errors.values()))
axes.set(yscale="log", ylim=(1e-12, 1e-5), xlabel="parameter", ylabel="relative difference")
axes.set(title="Gradient against finite differences")
figure.savefig("qp_layer.png")
