"""
Sparsemax: a softmax with zeros
===============================

Learned: nothing is trained here. The example is the projection onto the simplex, n = 10, as a PyTorch layer.

Expect: the result is a probability vector with exact zeros and equals the closed form found by sorting. Its
Jacobian is ``I - 1 1' / k`` on the k entries that are not zero. If the scores are multiplied by a growing
factor, the entries become zero one after the other.
"""

# %%
# The layer
# ---------

import cvxpy as cp
import matplotlib.pyplot as plt
import torch

from conediff.torch import OptLayer

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
n = 10
sparsemax = OptLayer(
    variables=[cp.Variable(n)],
    parameters=[cp.Parameter(n)],
    objective=lambda z, x: cp.sum_squares(z - x),
    inequalities=[lambda z, x: -z],
    equalities=[lambda z, x: cp.sum(z) - 1],
)


def by_sorting(x):
    """Return the projection onto the simplex in closed form: x minus a threshold, but at least zero."""
    descending, _ = x.sort(dim=-1, descending=True)
    counts = torch.arange(1, x.shape[-1] + 1)
    thresholds = (descending.cumsum(dim=-1) - 1) / counts
    support = (descending > thresholds).sum(dim=-1, keepdim=True)
    return (x - thresholds.gather(-1, support - 1)).clamp(min=0)


# %%
# Values, and a Jacobian
# ----------------------

scores = torch.randn(64, n)
z = sparsemax(scores)
error = (z - by_sorting(scores)).abs().max()
print(f"largest difference from the closed form: {error:.1e}")
print("entries that are not zero, first five:", (z[:5] > 1e-9).sum(dim=1).tolist())
assert error < 1e-9

x = scores[0]
jacobian = torch.autograd.functional.jacobian(sparsemax, x)
on = (sparsemax(x) > 1e-9).to(x.dtype)
expected = torch.diag(on) - on[:, None] * on[None, :] / on.sum()
assert torch.allclose(jacobian, expected, atol=1e-9)
assert torch.autograd.gradcheck(sparsemax, scores[:3].clone().requires_grad_())

# %%
# Between uniform and one-hot
# ---------------------------

factors = torch.logspace(-1.5, 1.2, 200)
paths = sparsemax(factors[:, None] * x)
support = (paths > 1e-9).sum(dim=1)
assert support[0] == n and support[-1] == 1 and (support.diff() <= 0).all()

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(factors, paths)
axes.set(xscale="log", xlabel="factor on the scores", ylabel="probability")
axes.set(title="Sparsemax of one vector of ten scores")
figure.savefig("sparsemax.png")
