"""
Stiffness of a structure that may touch the ground
==================================================

Learned: the distribution of a fixed amount of material along a beam such that three different loads bend it
as little as possible. The beam is clamped at one end and may touch bumpers.

Expect: because of the contacts, the equilibrium is the minimum of the energy under inequalities and not the
solution of a linear system; the layer differentiates this minimum. The compliance (work of the loads) falls
by nearly 10 %. At the end, moving material between segments has no benefit: all segments above the minimum
of material have the same gradient.
"""

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from conediff.torch import CvxpyLayer

torch.set_default_dtype(torch.float64)
segments, steps = 20, 250

# %%
# Equilibrium
# -----------
# The energy of bending is the sum of stiffness times squared curvature. Its scale is chosen such that
# deflections are of size one. The first two nodes are clamped; bumpers are below the nodes 10 and 20.

deflection = cp.Variable(segments + 2)
root_stiffness, load = cp.Parameter(segments, nonneg=True), cp.Parameter(segments + 2)
curvature = cp.diff(deflection, 2)
energy = 500 * cp.sum_squares(cp.multiply(root_stiffness, curvature)) - load @ deflection
contact = deflection[[11, 21]] >= np.array([-0.1, -0.5])
clamped = deflection[:2] == 0
problem = cp.Problem(cp.Minimize(energy), [clamped, contact])
beam = CvxpyLayer(problem, [root_stiffness, load], [deflection, contact.dual_variables[0]])

loads = torch.zeros(3, segments + 2)
loads[0, 6], loads[1, -1], loads[2, 2:] = -1.5, -0.4, -0.06

# %%
# Design
# ------
# A softmax distributes the material, with a minimum for every segment. Stiffness is proportional to material.


def design(logits):
    """Return the material of every segment; its mean is one."""
    return 0.1 + 0.9 * segments * torch.softmax(logits, dim=0)


def compliance(material):
    """Return the work of the loads, summed over the cases, with deflections and forces of contact."""
    shapes, forces = beam(material.sqrt(), loads)
    return (loads * shapes).sum(), shapes, forces


logits = torch.zeros(segments, requires_grad=True)
_, shapes_before, forces_before = compliance(design(logits).detach())
optimizer = torch.optim.Adam([logits], lr=0.1)
history = []
for _ in tqdm(range(steps), desc="moving material"):
    optimizer.zero_grad()
    work, _, _ = compliance(design(logits))
    work.backward()
    optimizer.step()
    history.append(work.item())

material = design(logits).detach().requires_grad_()
work, shapes, forces = compliance(material)
work.backward()
used = material.detach() > 0.3
gradients = material.grad[used]
spread = (gradients.max() - gradients.min()) / gradients.abs().mean()
print(f"compliance: {history[0]:.3f} uniform, {work:.3f} designed")
print("forces of the bumpers, a row for each load:", forces.detach().round(decimals=2).tolist())
print(f"gradients of the segments above the minimum differ by {spread:.1%}")
assert work < 0.92 * history[0] and spread < 0.1 and (forces > 0.01).any()

figure, panels = plt.subplots(2, 1, figsize=(7, 5), layout="constrained", sharex=True)
for k, colour in enumerate(("tab:blue", "tab:orange", "tab:green")):
    panels[0].plot(shapes_before[k, 1:], "--", color=colour)
    panels[0].plot(shapes.detach()[k, 1:], color=colour, label=f"load {k + 1}")
panels[0].plot([10, 20], [-0.1, -0.5], "^", color="black", label="bumper")
panels[0].set(ylabel="deflection", title="Uniform beam (dashed) and designed one")
panels[0].legend()
panels[1].bar(np.arange(segments) + 0.5, material.detach(), width=1, edgecolor="white")
panels[1].set(xlabel="place along the beam", ylabel="material", title="Where the material goes")
figure.savefig("stiffness.png")
