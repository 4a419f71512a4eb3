"""Second derivatives of the PyTorch layer are refused, whichever way they are asked for; never left out."""

from __future__ import annotations

import importlib

import cvxpy as cp
import pytest

torch = pytest.importorskip("torch")
ct = importlib.import_module("conediff.torch")
from torch.autograd import forward_ad, functional  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

BACKENDS = ("eager", "aot_eager")


@pytest.fixture(scope="module")
def f():
    """A solution that is curved in its parameter."""
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.sum(cp.exp(x)))), [c], [x])
    return lambda c: layer(c)[0]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def point(requires_grad=True):
    return torch.tensor([0.3, 0.2, -0.4], dtype=torch.float64, requires_grad=requires_grad)


def loss(f):
    return lambda c: f(c).square().sum()


def slope(f, c):
    """The gradient, with a graph of its own."""
    (g,) = torch.autograd.grad(loss(f)(c), c, create_graph=True)
    return g


def penalty(f):
    """A gradient penalty, and a term that has a gradient anyway."""
    return lambda c: slope(f, c).square().sum() + c.sum()


def by_grad(f):
    c = point()
    return torch.autograd.grad(penalty(f)(c), c)


def by_backward(f):
    c = point()
    penalty(f)(c).backward()
    return c.grad


def by_two_backwards(f):
    c = point()
    loss(f)(c).backward(create_graph=True)
    g, c.grad = c.grad, None
    (g.square().sum() + c.sum()).backward()


def of_a_weight(f):
    """As of a critic: the penalty is on the input, and trains what comes before the layer."""
    c, w = point(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(penalty(lambda c: f(c * w))(c), w)


def forward_over_reverse(f):
    with forward_ad.dual_level():
        c = forward_ad.make_dual(point(), torch.ones(3, dtype=torch.float64))
        return forward_ad.unpack_dual(torch.autograd.grad(loss(f)(c), c)[0]).tangent


def reverse_over_forward(f):
    c = point()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(c, torch.ones(3, dtype=torch.float64))
        return torch.autograd.grad(forward_ad.unpack_dual(loss(f)(dual)).tangent, c)


EAGER = {
    "grad": by_grad,
    "backward": by_backward,
    "two-backwards": by_two_backwards,
    "weight": of_a_weight,
    "forward-over-reverse": forward_over_reverse,
    "reverse-over-forward": reverse_over_forward,
    "functional.hessian": lambda f: functional.hessian(loss(f), point()),
    "functional.hvp": lambda f: functional.hvp(loss(f), point(), point()),
    "functional.vhp": lambda f: functional.vhp(loss(f), point(), point()),
    "checkpoint": lambda f: by_grad(lambda c: checkpoint(f, c, use_reentrant=False)),
    "checkpoint-around": lambda f: by_grad(lambda c: checkpoint(lambda c: f(2 * c), c, use_reentrant=False)),
}
FUNC = {
    "hessian": lambda f: hessian(loss(f))(point(False)),
    "grad-grad": lambda f: grad(lambda c: grad(loss(f))(c).sum())(point(False)),
    "vmap-grad-grad": lambda f: vmap(grad(lambda c: grad(loss(f))(c).sum()))(point(False)[None]),
    "fwd-fwd": lambda f: jacfwd(jacfwd(f))(point(False)),
    "fwd-rev": lambda f: jacfwd(jacrev(f))(point(False)),
    "rev-fwd": lambda f: jacrev(jacfwd(f))(point(False)),
    "rev-rev": lambda f: jacrev(jacrev(f))(point(False)),
    "jvp-grad": lambda f: jvp(grad(loss(f)), (point(False),), (point(False),)),
}


def refused():
    return pytest.raises(NotImplementedError, match="second derivatives.*detach")


@pytest.mark.parametrize("second", (EAGER | FUNC).values(), ids=(EAGER | FUNC).keys())
def test_eager(f, second):
    with refused():
        second(f)


def test_eager_with_saved_tensors_that_were_copied(f):
    with refused(), torch.autograd.graph.save_on_cpu():
        by_grad(f)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "second", [by_grad, by_backward, of_a_weight, EAGER["functional.hessian"], EAGER["checkpoint"]]
)
def test_of_a_compiled_function(f, second, backend):
    with refused():
        second(torch.compile(f, backend=backend, fullgraph=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [lambda f: f, lambda f: lambda c: f(2 * c)], ids=["input", "inner"])
def test_inside_a_compiled_function(f, inside, backend):
    c = point()
    with refused():
        torch.autograd.grad(torch.compile(penalty(inside(f)), backend=backend)(c), c)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [lambda f: f, lambda f: lambda c: f(2 * c)], ids=["input", "inner"])
def test_around_a_compiled_loss(f, inside, backend):
    """Where torch would take the gradient for a constant."""
    c = point()
    with refused():
        (g,) = torch.autograd.grad(torch.compile(loss(inside(f)), backend=backend)(c), c, create_graph=True)
        torch.autograd.grad(g.square().sum() + c.sum(), c)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("second", [FUNC[name] for name in ("hessian", "fwd-fwd", "jvp-grad")])
def test_transforms_and_compiled_functions(f, second, backend):
    """Errors of torch, of several kinds, where it cannot transform what is compiled; ours where it can."""
    with pytest.raises(Exception):  # noqa: B017
        second(torch.compile(f, backend=backend))
    with pytest.raises(Exception):  # noqa: B017
        torch.compile(lambda: second(f), backend=backend)()


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_functions_do_not_drop_tangents(f, backend):
    compiled, at = torch.compile(f, backend=backend), ((point(False),), (point(False),))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(compiled(forward_ad.make_dual(*at[0], *at[1]))).tangent
    torch.testing.assert_close(tangent, jvp(f, *at)[1])
    torch.testing.assert_close(jvp(compiled, *at), jvp(f, *at))
    torch.testing.assert_close(torch.compile(lambda: jvp(f, *at), backend=backend)(), jvp(f, *at))
    J = torch.compile(jacfwd(f), backend=backend)(point(False))
    torch.testing.assert_close(J, jacrev(f)(point(False)))
    torch._dynamo.reset()
    with pytest.raises(Exception, match="forward-mode"):
        torch.compile(jacfwd(f), backend=backend, fullgraph=True)(point(False))


def test_a_gradient_that_is_not_differentiated_again_is_given(f):
    expected = grad(loss(f))(point(False))
    torch.testing.assert_close(slope(f, point()).detach(), expected)
    for backend in BACKENDS:
        c = point()
        torch.compile(loss(f), backend=backend)(c).backward(retain_graph=True)
        torch.testing.assert_close(c.grad, expected)
