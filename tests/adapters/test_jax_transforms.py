"""jax.grad, jvp, vmap, jacobians, control flow, rematerialisation, several devices."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest

from tests.adapters import contract

jax = pytest.importorskip("jax")
jnp, lax = jax.numpy, jax.lax
cj = importlib.import_module("conediff.jax")
from jax import grad, hessian, jacfwd, jacrev, jit, jvp, vjp, vmap  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

COUNT = 3


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def layer():
    return cj.CvxpyLayer(*contract.QUADRATIC.state())


@pytest.fixture
def values(double):
    """Three quadratic problems."""
    return [jnp.asarray(v) for v in contract.QUADRATIC.values((COUNT,))]


@pytest.fixture
def f(layer, values):
    """The solution as a function of the vector parameter."""
    A, _, lam = values
    return lambda b: layer(A[0], b, lam[0])[0]


@pytest.fixture
def J(f, values):
    """Its Jacobian, row by row."""
    b = values[1][0]
    return jnp.stack([grad(lambda b, i=i: f(b)[i])(b) for i in range(3)])


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-9), a, b)


def total(layer):
    return lambda *values: sum(jnp.sin(out).sum() for out in layer(*values))


def each(function, args, dims):
    """Apply a function to every slice, in a loop."""
    pairs = list(zip(args, dims, strict=True))
    return jnp.stack(
        [function(*(a if d is None else jnp.take(a, i, d) for a, d in pairs)) for i in range(COUNT)]
    )


BOTH = pytest.mark.parametrize("compiled", [lambda f: f, jit], ids=["eager", "jit"])


# ---------------------------------------------------------------------- differences


@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_check_grads(case):
    layer = cj.CvxpyLayer(*case.state(), gp=case.gp, solver_args={"validate": False, "tol": 1e-12})
    values = [jnp.asarray(v) for v in case.values((), seed=1)]
    check_grads(layer, values, 1, modes=("fwd", "rev"), eps=1e-5, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------- vmap

DIMS = [dims for dims in itertools.product((0, None), repeat=3) if any(d == 0 for d in dims)]


@BOTH
@pytest.mark.parametrize("dims", DIMS, ids=str)
def test_vmap_and_grad_in_either_order(layer, values, dims, compiled):
    loss = total(layer)
    args = [v if d == 0 else v[0] for v, d in zip(values, dims, strict=True)]
    close(compiled(vmap(loss, in_axes=dims))(*args), each(loss, args, dims))
    for k in range(3):
        close(compiled(vmap(grad(loss, k), in_axes=dims))(*args), each(grad(loss, k), args, dims))
    expected = grad(lambda *a: each(loss, a, dims).sum(), argnums=(0, 1, 2))(*args)
    close(compiled(grad(lambda *a: vmap(loss, in_axes=dims)(*a).sum(), argnums=(0, 1, 2)))(*args), expected)
    tangents = [jnp.cos(a) for a in args]
    pushed = compiled(lambda a, t: jvp(vmap(loss, in_axes=dims), a, t)[1])(args, tangents)
    inner = sum((g * t).sum() for g, t in zip(expected, tangents, strict=True))
    close(pushed.sum(), inner)


@BOTH
def test_vmap_is_one_solve(layer, values, f, compiled):
    jax.block_until_ready(compiled(vmap(f))(values[1]))
    assert layer.info["status"].shape == (COUNT,)
    jax.block_until_ready(compiled(vmap(vmap(f)))(jnp.broadcast_to(values[1], (2, COUNT, 4))))
    assert layer.info["status"].shape == (2, COUNT)


@BOTH
def test_parameters_that_are_not_mapped_stay_shared(layer, values, compiled, monkeypatch):
    shapes, solve = [], layer.numpy_layer.solve
    monkeypatch.setattr(
        layer.numpy_layer, "solve", lambda *v, **k: shapes.append([np.shape(a) for a in v]) or solve(*v, **k)
    )
    A, b, lam = values
    jax.block_until_ready(compiled(vmap(grad(lambda b: layer(A[0], b, lam[0])[0].sum())))(b))
    jax.block_until_ready(compiled(vmap(grad(lambda b: layer(A[:2], b, lam[0])[0].sum())))(b))
    assert shapes == [[(4, 3), (COUNT, 4), ()], [(1, 2, 4, 3), (COUNT, 1, 4), ()]]


def test_vmap_over_any_axis_into_any_axis(values, f):
    close(vmap(f, in_axes=1, out_axes=1)(values[1].T), vmap(f)(values[1]).T)
    stacked = jnp.moveaxis(values[0], 0, 1)
    shared = vmap(lambda A: grad(lambda A: f(A @ jnp.ones(3)).sum())(A), in_axes=1, out_axes=2)(stacked)
    close(shared[:, :, 1], grad(lambda A: f(A @ jnp.ones(3)).sum())(values[0][1]))


@BOTH
def test_nested_vmap(layer, values, compiled):
    A, b, lam = values

    def solve(b, lam):
        return layer(A[0], b, lam)[0]

    outer = compiled(vmap(lambda b: vmap(lambda lam: solve(b, lam))(lam)))(b)
    close(outer, jnp.stack([jnp.stack([solve(b[i], lam[j]) for j in range(3)]) for i in range(3)]))
    slope = compiled(vmap(lambda b: vmap(grad(lambda lam: solve(b, lam).sum()))(lam)))(b)
    close(slope[1, 2], grad(lambda lam: solve(b[1], lam).sum())(lam[2]))
    shared = compiled(
        vmap(lambda b: vmap(grad(lambda A, lam: layer(A, b, lam)[0].sum()), (None, 0))(A[0], lam))
    )
    close(shared(b)[2, 0], grad(lambda A: layer(A, b[2], lam[0])[0].sum())(A[0]))


@BOTH
def test_vmap_of_a_batch(layer, values, compiled):
    A, b, lam = values
    close(compiled(vmap(lambda b: layer(A, b, lam)[0]))(b)[2, 1], layer(A[1], b[2], lam[1])[0])
    rows = compiled(vmap(jacrev(lambda b: layer(A, b, lam)[0].sum(0))))(b)[2]
    close(rows, jacrev(lambda b: layer(A, b, lam)[0].sum(0))(b[2]))
    columns = compiled(vmap(jacfwd(lambda b: layer(A, b, lam)[0].sum(0))))(b)[2]
    close(columns, rows)
    # A mapped parameter with fewer batch dimensions than another has.
    wide = compiled(vmap(lambda lam: layer(A[:, None], b[:, None], lam)[0]))(lam)
    close(wide[2, 1, 0], layer(A[1], b[1], lam[2])[0])


# ---------------------------------------------------------------------- Jacobians and forward mode


@BOTH
def test_jacobians(values, f, J, compiled):
    b = values[1]
    close(compiled(jacrev(f))(b[0]), J)
    close(compiled(jacfwd(f))(b[0]), J)
    close(compiled(vmap(jacrev(f)))(b)[0], J)
    close(compiled(vmap(jacfwd(f)))(b)[0], J)
    close(compiled(jacrev(vmap(f)))(b)[0, :, 0], J)
    close(compiled(jacfwd(vmap(f)))(b)[0, :, 0], J)


@BOTH
def test_forward_mode(layer, values, f, J, compiled):
    A, b, lam = values
    close(compiled(lambda b, t: jvp(f, (b,), (t,))[1])(b[0], b[1]), J @ b[1])
    close(compiled(vmap(lambda t: jvp(f, (b[0],), (t,))[1]))(b), b @ J.T)
    # Mapped where the tangent belongs to a parameter that is not.
    pushed = compiled(vmap(lambda A, t: jvp(lambda b: layer(A, b, lam[0])[0], (b[0],), (t,))[1]))(A, b)
    close(pushed[0], J @ b[0])
    # A mapped tangent of a parameter with fewer batch dimensions than another.
    scalars = vmap(lambda lam: jvp(lambda lam: layer(A, b, lam)[0], (lam,), (lam,))[1])
    one = lam[0]
    close(compiled(scalars)(lam)[1], jvp(lambda lam: layer(A, b, lam)[0], (lam[1],), (lam[1],))[1])
    close(compiled(lambda t: jvp(lambda lam: layer(A, b, lam)[0], (one,), (t,))[1])(one), scalars(lam)[0])


def test_forward_and_reverse_are_adjoint(layer, values):
    inputs, tangents = [v[0] for v in values], [v[1] for v in values]
    _, pushed = jvp(layer, inputs, tangents)
    outputs, pull = vjp(layer, *inputs)
    weights = tuple(jnp.cos(out) for out in outputs)
    left = sum((g * t).sum() for g, t in zip(weights, pushed, strict=True))
    close(left, sum((g * t).sum() for g, t in zip(pull(weights), tangents, strict=True)))


def test_linearise_and_transpose(values, f, J):
    b = values[1]
    out, linear = jax.linearize(f, b[0])
    close(linear(b[1]), J @ b[1])
    close(vmap(linear)(b), b @ J.T)
    transposed = jax.linear_transpose(linear, b[0])
    close(transposed(out)[0], out @ J)
    _, pull = vjp(jit(f), b[0])
    for _ in range(2):
        close(pull(out)[0], out @ J)


def test_only_some_outputs_and_parameters(layer, values):
    """Zero cotangents and tangents are left out, not computed with."""
    A, b, lam = (v[0] for v in values)
    asked, vjps = [], type(layer.numpy_layer.solve(A, b, lam)).vjp

    def watched(self, *cotangents, needed=None, summed=True):
        asked.append(([g is not None for g in cotangents], list(needed)))
        return vjps(self, *cotangents, needed=needed, summed=summed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(layer.numpy_layer.solve(A, b, lam)), "vjp", watched)
        grad(lambda b: layer(A, b, lam)[2].sum())(b)
    assert asked == [([False, False, True, False], [False, True, False])]


# ---------------------------------------------------------------------- derivatives of the derivative


def test_the_derivatives_are_linear(layer, values, f, J):
    A, b, lam = values
    w, v = A[0, 0], b[2]
    close(grad(lambda w: vjp(f, b[0])[1](w)[0] @ v)(w), J @ v)
    close(jvp(lambda w: vjp(f, b[0])[1](w)[0], (w,), (w,))[1], w @ J)
    close(grad(lambda t: w @ jvp(f, (b[0],), (t,))[1])(v), w @ J)
    close(jvp(lambda t: jvp(f, (b[0],), (t,))[1], (v,), (b[1],))[1], J @ b[1])
    close(vmap(grad(lambda t: w @ jvp(f, (b[0],), (t,))[1]))(b), jnp.broadcast_to(w @ J, (3, 4)))
    # One of several parameters: the transpose of the adjoint of a part.
    only = grad(lambda w: vjp(lambda *p: layer(*p)[0], A[0], b[0], lam[0])[1](w)[1] @ v)
    close(only(w), J @ v)


def test_a_layer_beside_a_second_derivative(values, f):
    """Where nothing depends on the layer twice, second derivatives of the rest work."""
    b = values[1][0]
    weights = jnp.arange(3.0)
    found = hessian(lambda w: (w**2) @ f(b))(weights)
    close(found, 2 * jnp.diag(f(b)))


SECOND = {
    "fwd-rev": lambda f: jacfwd(jacrev(f)),
    "rev-rev": lambda f: jacrev(jacrev(f)),
    "rev-fwd": lambda f: jacrev(jacfwd(f)),
    "fwd-fwd": lambda f: jacfwd(jacfwd(f)),
}


@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_check_second_derivatives(case):
    layer = cj.CvxpyLayer(*case.state(), gp=case.gp, solver_args={"validate": False, "tol": 1e-12})
    values = [jnp.asarray(v) for v in case.values((), seed=1)]
    check_grads(layer, values, 2, modes=("fwd", "rev"), eps=1e-5, atol=1e-5, rtol=1e-5)


@BOTH
def test_hessians_in_every_nesting(layer, values, compiled):
    """Of all outputs in all parameters, at once and mapped; the nestings agree to rounding."""
    A, b, lam = values

    def loss(A, b, lam):
        return total(layer)(A, b, lam)

    exact = [hessian(loss, (0, 1, 2))(*(v[k] for v in values)) for k in range(COUNT)]
    for nested in SECOND.values():
        second = nested(lambda b: loss(A[0], b, lam[0]))
        close(compiled(second)(b[0]), hessian(lambda b: loss(A[0], b, lam[0]))(b[0]))
        close(compiled(vmap(second))(b)[0], second(b[0]))
    mapped = compiled(vmap(hessian(loss, (0, 1, 2))))(A, b, lam)
    close(jax.tree.map(lambda h: h[1], mapped), exact[1])
    summed = compiled(hessian(lambda b: vmap(loss, (None, 0, None))(A[0], b, lam[0]).sum()))(b)
    close(summed[1, :, 1], hessian(lambda b: loss(A[0], b, lam[0]))(b[1]))
    close(summed[1, :, 0], jnp.zeros((4, 4)))


@BOTH
def test_parameters_that_a_batch_shares(layer, values, compiled):
    A, b, lam = values

    def loss(A, lam):
        return jnp.sin(layer(A[0], b, lam)[0]).sum()

    def looped(A, lam):
        return sum(jnp.sin(layer(A[0], row, lam)[0]).sum() for row in b)

    found, expected = (jacfwd(jacrev(f, (0, 1)), (0, 1))(A, lam[0]) for f in (loss, looped))
    close(compiled(hessian(loss, (0, 1)))(A, lam[0]), found)
    close(found, expected)
    each_one = vmap(lambda row: hessian(lambda lam: jnp.sin(layer(A[0], row, lam)[0]).sum())(lam[0]))
    close(compiled(each_one)(b).sum(), found[1][1])


@BOTH
def test_hessian_vector_products_and_penalties(f, values, compiled):
    b, v = values[1][0], values[1][1]

    def loss(b):
        return jnp.sin(f(b)).sum()

    H = hessian(loss)(b)
    close(compiled(lambda b, v: jvp(grad(loss), (b,), (v,))[1])(b, v), H @ v)
    close(compiled(grad(lambda b: grad(loss)(b) @ v))(b), H @ v)
    close(compiled(vmap(lambda v: jvp(grad(loss), (b,), (v,))[1]))(values[1]), values[1] @ H)
    close(compiled(grad(lambda b: (grad(loss)(b) ** 2).sum() / 2))(b), H @ grad(loss)(b))
    close(compiled(hessian(jax.checkpoint(loss)))(b), H)
    unrolled, looped = (lambda b, g=g: g(b) for g in (lambda b: loss(b) + loss(2 * b), two_steps(loss)))
    close(compiled(hessian(looped))(b), hessian(unrolled)(b))


def two_steps(loss):
    return lambda b: lax.scan(lambda c, k: (c + loss(k * b), None), 0.0, jnp.array([1.0, 2.0]))[0]


@BOTH
@pytest.mark.parametrize("nested", SECOND.values(), ids=SECOND)
def test_third_derivatives_are_refused(values, f, nested, compiled):
    for third in (jacfwd, jacrev):
        with pytest.raises(NotImplementedError, match="third derivatives"):
            compiled(third(nested(lambda b: f(b).sum())))(values[1][0])


# ---------------------------------------------------------------------- control flow


def drift(layer, A, lam, steps):
    """Move b by the solution, a number of times; as a loop of Python's and of JAX's."""

    def body(b, _):
        x = layer(A, b, lam)[0]
        return b + 0.1 * (A @ x), x.sum()

    def unrolled(b):
        sums = 0.0
        for _ in range(steps):
            b, part = body(b, None)
            sums += part
        return sums

    return unrolled, lambda b: lax.scan(body, b, None, length=steps)[1].sum()


@BOTH
def test_loops(layer, values, compiled):
    A, b, lam = values
    unrolled, looped = drift(layer, A[0], lam[0], 4)
    expected = jnp.stack([grad(unrolled)(row) for row in b])
    close(compiled(grad(looped))(b[0]), expected[0])
    close(compiled(jacfwd(looped))(b[0]), expected[0])
    close(compiled(vmap(grad(looped)))(b), expected)
    close(compiled(grad(jax.checkpoint(unrolled)))(b[0]), expected[0])
    close(compiled(lambda b: lax.map(grad(unrolled), b))(b), expected)
    start = compiled(
        vmap(
            lambda b: lax.while_loop(
                lambda c: c[0] < 2, lambda c: c + 0.5 + 0 * drift_step(layer, A[0], c, lam[0]), b
            )
        )
    )
    assert (start(b)[:, 0] >= 2).all()


def drift_step(layer, A, b, lam):
    return A @ layer(A, b, lam)[0]


@BOTH
def test_branches(layer, values, f, compiled):
    """Under vmap both branches run, and residuals of the one that is not taken are zeros."""
    A, b, lam = values
    b = b.at[:, 0].set(jnp.array([1.0, -1.0, 2.0]))

    def one_branch(b):
        return lax.cond(b[0] > 0, lambda b: jnp.sin(f(b)).sum(), lambda b: b.sum() ** 2, b)

    def two_branches(b):
        return lax.cond(b[0] > 0, lambda b: f(b).sum(), lambda b: layer(2 * A[0], b, lam[0])[0].sum(), b)

    for function in (one_branch, two_branches):
        expected = jnp.stack([grad(function)(row) for row in b])
        close(jnp.stack([compiled(grad(function))(row) for row in b]), expected)
        close(compiled(vmap(grad(function)))(b), expected)
        close(compiled(grad(lambda b, f=function: vmap(f)(b).sum()))(b), expected)
        close(compiled(vmap(lambda row, t, f=function: jvp(f, (row,), (t,))[1]))(b, b), (expected * b).sum(1))


def test_a_branch_of_a_geometric_program_that_is_not_taken():
    """Its parameters come back as zeros, whose logarithms do not matter."""
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    layer = cj.CvxpyLayer(cp.Problem(cp.Minimize(a / x + x)), [a], [x], gp=True)

    def root(a):
        return lax.cond(a > 3, lambda a: layer(a)[0], lambda a: a**2, a)

    a = jnp.array([1.0, 4.0, 9.0])
    close(jit(vmap(grad(root)))(a), jnp.array([2.0, 0.25, 1 / 6]))


# ---------------------------------------------------------------------- tracing


def test_shapes_are_known_without_solving(layer, values):
    A, b, lam = values
    shapes = jax.eval_shape(layer, A[0], b, lam[0])
    assert [s.shape for s in shapes] == [(3, 3), (3,), (3, 3), (3,)]
    with pytest.raises(ValueError, match="Inconsistent batch sizes"):
        jax.eval_shape(layer, A[:2], b, lam)


def test_one_trace_for_one_shape(layer, values):
    A, b, lam = values
    traces = []

    @jit
    def loss(layer, b):
        traces.append(1)
        return layer(A[0], b, lam[0])[0].sum()

    for _ in range(2):
        jax.block_until_ready(grad(loss, 1)(layer, b[0]))
    first = len(traces)
    for row in b:
        grad(loss, 1)(layer, row)
    assert len(traces) == first


# ---------------------------------------------------------------------- several devices

DEVICES = """
import jax, numpy as np, cvxpy as cp
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from conediff.jax import CvxpyLayer

z, x = cp.Variable(3), cp.Parameter(3)
layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= 0]), [x], [z])
loss = lambda x: jnp.sin(layer(x)[0]).sum()
points = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)))
expected = jax.vmap(jax.grad(loss))(points)
close = lambda a: np.testing.assert_allclose(a, expected, rtol=1e-8, atol=1e-9)
close(jax.pmap(jax.grad(loss))(points))
mesh = Mesh(np.array(jax.devices()), ("d",))
sharded = jax.device_put(points, NamedSharding(mesh, P("d")))
close(jax.vmap(jax.grad(loss))(sharded))
close(jax.jit(jax.vmap(jax.grad(loss)))(sharded))
mapped = jax.shard_map(jax.vmap(loss), mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=False)
close(jax.grad(lambda x: jax.jit(mapped)(x).sum())(sharded))
there = jax.device_put(points, jax.devices()[2])
assert layer(there)[0].devices() == {jax.devices()[2]} == jax.grad(loss)(there[0]).devices()
both = cp.Parameter(3)
two = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x - both))), [x, both], [z])
try:
    two(there, jax.device_put(points, jax.devices()[1]))
except ValueError as error:
    assert "same device" in str(error)
else:
    raise AssertionError
print("done")
"""


def test_several_devices():
    root = os.getcwd()
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([root, os.path.join(root, "adapters")]),
    }
    result = subprocess.run([sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True)
    assert result.returncode == 0 and "done" in result.stdout, result.stderr
