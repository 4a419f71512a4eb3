"""
Consumer demand: preferences from purchases
===========================================

Learned: the preferences of a consumer (a subsistence level and a budget share for each of four goods), from
what was bought at sixty prices and incomes, by gradients through the consumer's problem. In JAX: ``jit``,
``vmap`` and ``jacfwd`` around a layer.

Expect: the shares and levels found are the true ones to 1 %. The layer's demand and its derivatives agree
with the closed form, the linear expenditure system of Stone and Geary. The substitution matrix is symmetric
and negative semidefinite, as economic theory says it is.
"""

# %%
# The consumer's problem
# ----------------------
# Income above subsistence is spent for the greatest utility, a sum of logarithms. The solver sees exponential
# cones.

import cvxpy as cp
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from conediff.jax import CvxpyLayer

jax.config.update("jax_enable_x64", True)
n = 4
x, spent, share = cp.Variable(n), cp.Parameter(n, pos=True), cp.Parameter(n, pos=True)
utility = cp.sum(cp.multiply(share, cp.log(x)))
layer = CvxpyLayer(cp.Problem(cp.Maximize(utility), [spent @ x <= 1]), [spent, share], [x])


def demand(price, income, preferences):
    """Return what is bought: the subsistence level, and what the rest of the income is best spent on."""
    share = jax.nn.softmax(preferences["share"])
    free = income - price @ preferences["level"]
    (above,) = layer(price / free, share)  # prices as parts of the income that is free
    return preferences["level"] + above


def closed_form(price, income, preferences):
    """The linear expenditure system."""
    free = income - price @ preferences["level"]
    return preferences["level"] + jax.nn.softmax(preferences["share"]) * free / price


# %%
# Sixty purchases, and the fit
# ----------------------------

keys = jax.random.split(jax.random.key(0), 3)
truth = {"share": jnp.array([0.0, 0.5, 1.0, -0.5]), "level": jnp.array([0.5, 0.2, 0.1, 0.4])}
prices = jax.random.uniform(keys[0], (60, n), minval=0.5, maxval=2.0)
incomes = jax.random.uniform(keys[1], (60,), minval=5.0, maxval=10.0)
bought = jax.vmap(closed_form, (0, 0, None))(prices, incomes, truth)


@jax.jit
@jax.value_and_grad
def loss(preferences):
    predicted = jax.vmap(demand, (0, 0, None))(prices, incomes, preferences)  # sixty problems in one solve
    return jnp.mean((predicted / bought - 1) ** 2)


preferences = {"share": jnp.zeros(n), "level": jnp.zeros(n)}
losses, momentum = [], jax.tree.map(jnp.zeros_like, preferences)
for _ in range(200):
    value, slope = loss(preferences)
    momentum = jax.tree.map(lambda m, g: 0.9 * m - 0.4 * g, momentum, slope)
    preferences = jax.tree.map(jnp.add, preferences, momentum)
    losses.append(float(value))
found, true = jax.nn.softmax(preferences["share"]), jax.nn.softmax(truth["share"])
print("shares, found and true:", found.round(3), true.round(3))
print("levels, found and true:", preferences["level"].round(3), truth["level"])
assert losses[-1] < 1e-6 < losses[0]
assert jnp.allclose(found, true, rtol=0.01) and jnp.allclose(preferences["level"], truth["level"], atol=0.01)

# %%
# Elasticities and the substitution matrix
# ----------------------------------------
# One factorisation gives all derivatives of a demand, and ``vmap`` those of all sixty.

jacobian = jax.jit(jax.vmap(jax.jacfwd(demand, argnums=(0, 1)), (0, 0, None)))
by_price, by_income = jacobian(prices, incomes, truth)
exact_price, exact_income = jax.vmap(jax.jacfwd(closed_form, (0, 1)), (0, 0, None))(prices, incomes, truth)
print(f"largest error of a derivative: {jnp.abs(by_price - exact_price).max():.1e}")
assert jnp.allclose(by_price, exact_price, rtol=1e-6, atol=1e-7)
assert jnp.allclose(by_income, exact_income, rtol=1e-6, atol=1e-7)

substitution = by_price + by_income[:, :, None] * bought[:, None, :]  # Slutsky's equation
assert jnp.allclose(substitution, substitution.swapaxes(1, 2), atol=1e-6)
assert jnp.linalg.eigvalsh(substitution).max() < 1e-6

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.semilogy(losses)
left.set(xlabel="step", ylabel="mean squared relative error", title="Fit of the preferences")
elasticity = (by_price * prices[:, None, :] / bought[:, :, None]).mean(axis=0)
image = right.imshow(elasticity, cmap="RdBu", vmin=-1, vmax=1)
right.set(xlabel="price of good", ylabel="demand for good", title="Mean elasticity of demand")
right.set(xticks=range(n), yticks=range(n))
figure.colorbar(image)
figure.savefig("consumer_demand.png")
