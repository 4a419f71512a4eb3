"""torch.func, forward-mode AD, torch.autograd.functional and gradcheck."""

from __future__ import annotations

import importlib
import itertools

import cvxpy as cp
import numpy as np
import pytest

from tests.adapters import contract

torch = pytest.importorskip("torch")
ct = importlib.import_module("conediff.torch")
from torch.autograd import functional  # noqa: E402
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402

COUNT = 3


@pytest.fixture(scope="module")
def layer():
    return ct.CvxpyLayer(*contract.QUADRATIC.state())


@pytest.fixture(scope="module")
def values():
    """Three quadratic problems."""
    return [torch.tensor(v) for v in contract.QUADRATIC.values((COUNT,))]


@pytest.fixture
def f(layer, values):
    """The solution as a function of the vector parameter."""
    A, _, lam = values
    return lambda b: layer(A[0], b, lam[0])[0]


@pytest.fixture
def J(f, values):
    """Its Jacobian, row by row."""
    b = values[1][0].clone().requires_grad_()
    return torch.stack([torch.autograd.grad(f(b)[i], b)[0] for i in range(3)])


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def total(layer):
    return lambda *values: sum(out.sin().sum() for out in layer(*values))


def each(function, args, dims):
    """Apply a function to every slice, in a loop."""
    pairs = list(zip(args, dims, strict=True))
    return torch.stack(
        [function(*(a if d is None else a.select(d, i) for a, d in pairs)) for i in range(COUNT)]
    )


# ---------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("case", contract.CASES, ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gradcheck(case):
    layer = ct.CvxpyLayer(*case.state(), gp=case.gp, solver_args={"validate": False, "tol": 1e-12})
    values = [torch.tensor(v, requires_grad=True) for v in case.values((), seed=1)]
    assert torch.autograd.gradcheck(
        layer,
        values,
        eps=1e-5,
        atol=1e-5,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


EYE = np.eye(3)
ROOT = np.array([[1.0, 0.2], [-0.3, 2.0], [0.5, 0.1]])
SYMMETRIC = np.array([[1.0, 0.3, -2.0], [0.3, 0.0, 0.7], [-2.0, 0.7, -0.5]])
# cvxpy's attributes, each with a value that has it.
ATTRIBUTES = {
    "symmetric": ({"symmetric": True}, SYMMETRIC),
    "large and symmetric": ({"symmetric": True}, 1e3 * SYMMETRIC),
    "PSD": ({"PSD": True}, ROOT @ ROOT.T + EYE),
    "PSD without full rank": ({"PSD": True}, ROOT @ ROOT.T),
    "NSD": ({"NSD": True}, -ROOT @ ROOT.T - EYE),
    "NSD without full rank": ({"NSD": True}, -ROOT @ ROOT.T),
    "diag": ({"diag": True}, np.diag([1.0, 0.0, -2.0])),
    "sparsity": ({"sparsity": [(0, 1, 2), (1, 1, 0)]}, np.array([[0, 1.0, 0], [0, 2, 0], [-3, 0, 0]])),
    "nonneg": ({"nonneg": True}, np.abs(SYMMETRIC) + 0.1),
    "pos": ({"pos": True}, np.abs(SYMMETRIC) + 0.1),
    "nonpos": ({"nonpos": True}, -np.abs(SYMMETRIC) - 0.1),
    "neg": ({"neg": True}, -np.abs(SYMMETRIC) - 0.1),
    "bounds": ({"bounds": [-3, 3]}, SYMMETRIC),
    "integer": ({"integer": True}, np.round(SYMMETRIC)),
    "boolean": ({"boolean": True}, EYE),
    "complex": ({"complex": True}, SYMMETRIC + 1j * SYMMETRIC[::-1]),
    "hermitian": ({"hermitian": True}, SYMMETRIC + 1j * (np.triu(SYMMETRIC, 1) - np.tril(SYMMETRIC, -1))),
    "imag": ({"imag": True}, 1j * SYMMETRIC),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gradcheck_of_every_attribute(name):
    """At torch's own step and tolerances, with the values checked: one entry at a time moves by 1e-6."""
    attributes, value = ATTRIBUTES[name]
    X, p = cp.Variable((3, 3), complex=np.iscomplexobj(value)), cp.Parameter((3, 3), **attributes)
    weight = np.arange(1.0, 10).reshape(3, 3)
    objective = cp.sum_squares(X - p) + 0.1 * cp.sum_squares(cp.multiply(weight, X))
    bounded = cp.real(X) if X.is_complex() else X
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(objective), [bounded <= 1.5]), [p], [X])
    tensor = torch.tensor(value, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (tensor,), check_forward_ad=True)


def test_gradcheck_of_a_quadratic_form():
    x, P = cp.Variable(3), cp.Parameter((3, 3), PSD=True)
    objective = cp.quad_form(x, P) + cp.sum_squares(x - np.array([1.0, -2.0, 3.0]))
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(objective), [x <= 0.5]), [P], [x])
    for value in (ROOT @ ROOT.T, ROOT @ ROOT.T + EYE):
        assert torch.autograd.gradcheck(layer, (torch.tensor(value, requires_grad=True),))


def test_gradcheck_of_broadcast_parameters(layer, values):
    A, b, lam = (v.clone().requires_grad_() for v in values)
    assert torch.autograd.gradcheck(
        lambda A, b, lam: layer(A[0], b[:2, None], lam[None])[0],
        (A, b, lam),
        eps=1e-5,
        atol=1e-5,
        check_forward_ad=True,
        check_batched_grad=True,
        fast_mode=True,
    )


# ---------------------------------------------------------------------- vmap

DIMS = [dims for dims in itertools.product((0, None), repeat=3) if any(d == 0 for d in dims)]


@pytest.mark.parametrize("dims", DIMS, ids=str)
def test_vmap_and_grad_in_either_order(layer, values, dims):
    loss = total(layer)
    args = [v if d == 0 else v[0] for v, d in zip(values, dims, strict=True)]
    close(vmap(loss, in_dims=dims)(*args), each(loss, args, dims))
    for k in range(3):
        close(vmap(grad(loss, k), in_dims=dims)(*args), each(grad(loss, k), args, dims))
    leaves = [a.clone().requires_grad_() for a in args]
    expected = torch.autograd.grad(each(loss, leaves, dims).sum(), leaves)
    got = grad(lambda *a: vmap(loss, in_dims=dims)(*a).sum(), argnums=(0, 1, 2))(*args)
    for one, other in zip(got, expected, strict=True):
        close(one, other)


def test_vmap_is_one_solve(layer, values, f):
    vmap(f)(values[1])
    assert layer.info["status"].shape == (COUNT,)
    vmap(vmap(f))(values[1].expand(2, COUNT, 4))
    assert layer.info["status"].shape == (2, COUNT)


def test_vmap_over_any_dimension_into_any_dimension(values, f):
    close(vmap(f, in_dims=1, out_dims=1)(values[1].T), vmap(f)(values[1]).T)


def test_nested_vmap(layer, values):
    A, b, lam = values

    def solve(b, lam):
        return layer(A[0], b, lam)[0]

    outer = vmap(lambda b: vmap(lambda lam: solve(b, lam))(lam))(b)
    close(outer, torch.stack([torch.stack([solve(b[i], lam[j]) for j in range(3)]) for i in range(3)]))
    slope = vmap(lambda b: vmap(grad(lambda lam: solve(b, lam).sum()))(lam))(b)
    close(slope[1, 2], grad(lambda lam: solve(b[1], lam).sum())(lam[2]))
    shared = vmap(lambda b: vmap(grad(lambda A, lam: layer(A, b, lam)[0].sum()), (None, 0))(A[0], lam))(b)
    close(shared[2, 0], grad(lambda A: layer(A, b[2], lam[0])[0].sum())(A[0]))


def test_vmap_of_a_batch(layer, values):
    A, b, lam = values
    close(vmap(lambda b: layer(A, b, lam)[0])(b)[2, 1], layer(A[1], b[2], lam[1])[0])
    rows = vmap(jacrev(lambda b: layer(A, b, lam)[0].sum(0)))(b)[2]
    close(rows, jacrev(lambda b: layer(A, b, lam)[0].sum(0))(b[2]))
    # A mapped parameter with fewer batch dimensions than another has.
    close(vmap(lambda lam: layer(A[None], b[:, None], lam)[0])(lam)[2, 1, 0], layer(A[0], b[1], lam[2])[0])
    # As without vmap: a feature axis of a scalar parameter is no batch.
    with pytest.raises(ValueError, match="Squeeze axis 1 of"):
        vmap(lambda lam: layer(A, b, lam[:, None]))(lam.expand(2, 3))


def test_vmap_randomness_of_no_concern_and_failures_raise(layer, values):
    A, b, lam = values
    with pytest.raises(Exception, match="not finite"):
        vmap(lambda b: layer(A[0], b, lam[0])[0])(b / 0)


# ---------------------------------------------------------------------- Jacobians and forward mode


def test_jacobians(values, f, J):
    b = values[1]
    close(jacrev(f)(b[0]), J)
    close(jacfwd(f)(b[0]), J)
    close(vmap(jacrev(f))(b)[0], J)
    close(vmap(jacfwd(f))(b)[0], J)
    close(jacrev(vmap(f))(b)[0, :, 0], J)
    close(jacfwd(vmap(f))(b)[0, :, 0], J)
    close(jacrev(f, chunk_size=2)(b[0]), J)


def test_forward_mode(layer, values, f, J):
    A, b, lam = values
    close(jvp(f, (b[0],), (b[1],))[1], J @ b[1])
    close(vmap(lambda t: jvp(f, (b[0],), (t,))[1])(b), b @ J.T)
    # Mapped where the tangent belongs to a parameter that is not.
    pushed = vmap(lambda A, t: jvp(lambda b: layer(A, b, lam[0])[0], (b[0],), (t,))[1])(A, b)
    close(pushed[0], J @ b[0])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(b[0], b[1])
        close(torch.autograd.forward_ad.unpack_dual(f(dual)).tangent, J @ b[1])
    # A mapped tangent of a parameter with fewer batch dimensions than another.
    scalars = vmap(lambda lam: jvp(lambda lam: layer(A, b, lam)[0], (lam,), (lam,))[1])(lam)
    close(scalars[1], jvp(lambda lam: layer(A, b, lam)[0], (lam[1],), (lam[1],))[1])
    inputs = tuple(v[0] for v in values)
    _, tangents = jvp(layer, inputs, tuple(v[1] for v in values))
    _, pull = vjp(layer, *inputs)
    ones = tuple(torch.ones_like(t) for t in tangents)
    left = sum(t.sum() for t in tangents)
    close(left, sum((g * v[1]).sum() for g, v in zip(pull(ones), values, strict=True)))


def test_autograd_functional(values, f, J):
    b = values[1]
    close(functional.jacobian(f, b[0]), J)
    close(functional.jacobian(f, b[0], vectorize=True), J)
    close(functional.jacobian(f, b[0], vectorize=True, strategy="forward-mode"), J)
    close(functional.jvp(f, b[0], b[1])[1], J @ b[1])
    close(functional.vjp(f, b[0], b[1, :3])[1], b[1, :3] @ J)
    # One cotangent for all mapped elements.
    close(vmap(lambda point: vjp(f, point)[1](b[1, :3])[0])(b)[0], b[1, :3] @ J)


def test_many_cotangents_at_once(values, f, J):
    b = values[1][0].clone().requires_grad_()
    (rows,) = torch.autograd.grad(f(b), b, torch.eye(3, dtype=b.dtype), is_grads_batched=True)
    close(rows, J)


# ---------------------------------------------------------------------- derivatives of the derivative


def test_the_gradient_is_linear_in_the_cotangent(values, f, J):
    b, w = values[1], values[0][0, 0].clone()
    v = b[2]
    point, weights = b[0].clone().requires_grad_(), w.clone().requires_grad_()
    (g,) = torch.autograd.grad(weights @ f(point), point, create_graph=True)
    close(torch.autograd.grad(g @ v, weights)[0], J @ v)
    close(jvp(lambda w: vjp(f, b[0])[1](w)[0], (w,), (w,))[1], w @ J)
    close(grad(lambda t: w @ jvp(f, (b[0],), (t,))[1])(v), w @ J)
    close(jvp(lambda t: jvp(f, (b[0],), (t,))[1], (v,), (b[1],))[1], J @ b[1])
    close(vmap(grad(lambda t: w @ jvp(f, (b[0],), (t,))[1]))(b), (w @ J).expand(3, 4))


def test_the_gradient_of_one_parameter_among_several_is_linear_too(layer, values):
    A, b, lam = (v[0].clone().requires_grad_() for v in values)
    w = values[0][0, 0].clone().requires_grad_()
    _, g, _ = torch.autograd.grad(w @ layer(A, b, lam)[0], (A, b, lam), create_graph=True)
    expected = jvp(lambda b: layer(A, b, lam)[0], (b.detach(),), (values[1][1],))[1]
    close(torch.autograd.grad(g @ values[1][1], w)[0], expected.detach())
