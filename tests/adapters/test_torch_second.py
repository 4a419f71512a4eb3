"""Second derivatives of the PyTorch layer: all ways to ask for one agree; third derivatives are refused."""

from __future__ import annotations

import gc
import importlib

import cvxpy as cp
import pytest

import conediff as cd

torch = pytest.importorskip("torch")
ct = importlib.import_module("conediff.torch")
solved = importlib.import_module("conediff_torch._solved")
from torch.autograd import forward_ad, functional  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

BACKENDS = ("eager", "aot_eager")
TIGHT = {"tol": 1e-13}


@pytest.fixture(scope="module")
def f():
    """A solution that is curved in its parameter."""
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.sum(cp.exp(x)))), [c], [x])
    return lambda c: layer(c)[0]


@pytest.fixture(scope="module")
def softmax():
    """The layer whose solution is softmax."""
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    layer = ct.CvxpyLayer(problem, [c], [x], solver_args=TIGHT)
    return lambda c: layer(c)[0]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def point(requires_grad=True):
    return torch.tensor([0.3, 0.2, -0.4], dtype=torch.float64, requires_grad=requires_grad)


def loss(f):
    return lambda c: f(c).square().sum() + f(c).prod()


def slope(f, c):
    """The gradient, with a graph of its own."""
    (g,) = torch.autograd.grad(loss(f)(c), c, create_graph=True)
    return g


def penalty(f):
    """A gradient penalty, and a term that has a gradient anyway."""
    return lambda c: slope(f, c).square().sum() + c.sum()


def differences(gradient, c, step=1e-4):
    """The Jacobian of a gradient by differences of fourth order."""
    rows = []
    for e in torch.eye(c.numel(), dtype=c.dtype):
        near, far = (gradient(c + h * e) - gradient(c - h * e) for h in (step, 2 * step))
        rows.append((8 * near - far) / (12 * step))
    return torch.stack(rows, dim=-1)


# ---------------------------------------------------------------------- Hessians of a loss

HESSIANS = {
    "hessian": lambda f, c: hessian(loss(f))(c),
    "fwd-fwd": lambda f, c: jacfwd(jacfwd(loss(f)))(c),
    "rev-fwd": lambda f, c: jacrev(jacfwd(loss(f)))(c),
    "rev-rev": lambda f, c: jacrev(jacrev(loss(f)))(c),
    "functional": lambda f, c: functional.hessian(loss(f), c),
    "functional-vectorized": lambda f, c: functional.hessian(loss(f), c, vectorize=True),
    "functional-forward": lambda f, c: functional.hessian(
        loss(f), c, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
    "vmap-jvp-grad": lambda f, c: vmap(lambda t: jvp(grad(loss(f)), (c,), (t,))[1])(torch.eye(3).to(c)),
    "vmap-vjp-grad": lambda f, c: vmap(lambda t: vjp(grad(loss(f)), c)[1](t)[0])(torch.eye(3).to(c)),
    "checkpoint": lambda f, c: functional.hessian(
        lambda c: loss(lambda c: checkpoint(f, c, use_reentrant=False))(c), c
    ),
}


@pytest.mark.parametrize("second", HESSIANS.values(), ids=HESSIANS.keys())
def test_hessians(f, second):
    H = second(f, point(False))
    torch.testing.assert_close(H, H.mT, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(H, differences(grad(loss(f)), point(False)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("second", HESSIANS.values(), ids=HESSIANS.keys())
def test_softmax_in_closed_form(softmax, second):
    c = 5 * point(False)
    expected = hessian(loss(lambda c: torch.softmax(c, 0)))(c)
    torch.testing.assert_close(second(softmax, c), expected, rtol=1e-9, atol=1e-11)


def test_hessians_of_every_element(softmax):
    c = torch.stack([point(False), 4 * point(False), -point(False)])
    expected = torch.stack([hessian(loss(lambda c: torch.softmax(c, 0)))(row) for row in c])
    torch.testing.assert_close(vmap(hessian(loss(softmax)))(c), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(vmap(jacrev(jacrev(loss(softmax))))(c), expected, rtol=1e-9, atol=1e-11)
    nested = vmap(vmap(hessian(loss(softmax))))(c[:, None])
    torch.testing.assert_close(nested[:, 0], expected, rtol=1e-9, atol=1e-11)
    together = hessian(lambda c: vmap(loss(softmax))(c).sum())(c)
    torch.testing.assert_close(
        together, torch.einsum("bij,bc->bicj", expected, torch.eye(3).to(c)), rtol=1e-9, atol=1e-11
    )


@pytest.fixture(scope="module")
def least_squares():
    """Bounded least squares with parameters of several shapes, its dual variables and its value."""
    x, A, b, lam = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3), cp.Parameter(nonneg=True)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(A @ x - b) + lam * cp.sum_squares(x)), [cp.norm(x) <= 0.4]
    )
    outputs = [x, problem.constraints[0].dual_variables[0], problem.objective]
    layer = ct.CvxpyLayer(problem, [A, b, lam], outputs, solver_args=TIGHT)
    return lambda *tensors: torch.cat(
        [
            out.reshape(*out.shape[: out.dim() - k], -1)
            for out, k in zip(layer(*tensors), (1, 0, 0), strict=True)
        ],
        dim=-1,
    )


def arguments(*batch):
    torch.manual_seed(0)
    shapes = ((*batch, 3, 2), (3,), batch)
    return [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("batch", [(), (2,)], ids=["single", "batch"])
def test_gradcheck_of_the_gradient(least_squares, batch):
    """Against differences of first derivatives, reverse over reverse and forward over reverse; one parameter
    is shared by the batch."""
    tensors = arguments(*batch)
    assert torch.autograd.gradcheck(least_squares, tensors, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(least_squares, tensors, atol=1e-4, check_fwd_over_rev=True)


def test_gradcheck_of_batched_cotangents(least_squares):
    assert torch.autograd.gradgradcheck(least_squares, arguments(2), atol=1e-4, check_batched_grad=True)


# ---------------------------------------------------------------------- uses


def test_a_gradient_penalty_trains_what_comes_before_the_layer(softmax):
    def of(f):
        c, w = point(), torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(penalty(lambda c: f(c * w))(c), (w, c))

    torch.testing.assert_close(of(softmax), of(lambda c: torch.softmax(c, 0)), rtol=1e-9, atol=1e-11)


def test_two_backward_passes_accumulate(softmax):
    def of(f):
        c = point()
        loss(f)(c).backward(create_graph=True)
        g, c.grad = c.grad, None
        (g.square().sum() + c.sum()).backward()
        return c.grad

    torch.testing.assert_close(of(softmax), of(lambda c: torch.softmax(c, 0)), rtol=1e-9, atol=1e-11)


def test_a_layer_inside_a_layer(softmax):
    """The second derivative goes through both."""
    twice = lambda f: lambda c: f(3 * f(2 * c))  # noqa: E731
    expected = hessian(loss(twice(lambda c: torch.softmax(c, 0))))(point(False))
    torch.testing.assert_close(hessian(loss(twice(softmax)))(point(False)), expected, rtol=1e-8, atol=1e-11)


def test_a_step_of_gradient_descent_can_be_differentiated(softmax):
    """As meta-learning does."""

    def of(f):
        c = point()
        rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        stepped = c - rate * slope(f, c)
        return torch.autograd.grad(loss(f)(stepped), (c, rate))

    torch.testing.assert_close(of(softmax), of(lambda c: torch.softmax(c, 0)), rtol=1e-9, atol=1e-11)


def test_forward_mode_around_a_backward_pass(softmax):
    tangent = torch.ones(3, dtype=torch.float64)
    with forward_ad.dual_level():
        c = forward_ad.make_dual(point(), tangent)
        got = forward_ad.unpack_dual(torch.autograd.grad(loss(softmax)(c), c)[0]).tangent
    expected = hessian(loss(lambda c: torch.softmax(c, 0)))(point(False)) @ tangent
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_saved_tensors_may_be_copied(softmax):
    c, plain = point(), point()
    with torch.autograd.graph.save_on_cpu():
        (got,) = torch.autograd.grad(penalty(softmax)(c), c)
    (expected,) = torch.autograd.grad(penalty(lambda c: torch.softmax(c, 0))(plain), plain)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_parameters_may_change_in_place_after_the_call(softmax):
    c = point()
    leaf = c * 1.0
    y = softmax(leaf)
    with torch.no_grad():
        leaf.mul_(5)
    (g,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
    (got,) = torch.autograd.grad(g[0], leaf)
    expected = hessian(lambda c: torch.softmax(c, 0).square().sum())(point(False))[0]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_single_precision(softmax):
    c = point(False)
    H = hessian(loss(softmax))(c.float())
    assert H.dtype == torch.float32
    torch.testing.assert_close(H.double(), hessian(loss(softmax))(c.float().double()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("on_failure", "fill"), [("nan", torch.nan), ("zero_grad", 0.0)])
@pytest.mark.parametrize("place", range(3))
def test_elements_without_a_solution(on_failure, fill, place):
    x, c, r = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= r])
    layer = ct.CvxpyLayer(problem, [c, r], [x], solver_args={"on_failure": on_failure})
    c_t = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.4]], dtype=torch.float64, requires_grad=True)
    r_t = torch.ones(3, dtype=torch.float64)
    r_t[place] = -1.0
    expected = -c_t / c_t.norm(dim=1, keepdim=True)

    def second(values):
        (g,) = torch.autograd.grad(values.pow(3).sum(), c_t, create_graph=True)
        return torch.autograd.grad(g.square().sum(), c_t)[0]

    got, exact = second(layer(c_t, r_t)[0]), second(expected)
    exact[place] = fill
    torch.testing.assert_close(got, exact, rtol=1e-8, atol=1e-9, equal_nan=True)


# ---------------------------------------------------------------------- what it costs


def test_a_first_derivative_computes_no_second_one(f, monkeypatch):
    """Whether or not its graph is kept."""
    calls = []
    for name in ("push", "curve", "turn"):
        monkeypatch.setattr(solved.Solved, name, lambda *_, name=name: calls.append(name))
    c = point()
    (g,) = torch.autograd.grad(loss(f)(c), c, create_graph=True)
    torch.autograd.grad(loss(f)(c), c, retain_graph=True)
    jacrev(f)(point(False))
    assert not calls and g.requires_grad


def test_the_solution_is_released_after_the_last_derivative(f):
    handles = importlib.import_module("conediff_torch._handles")
    gc.collect()
    before, c = set(handles._handles), point()
    value = penalty(f)(c)
    assert set(handles._handles) > before
    torch.autograd.grad(value, c)
    del value
    gc.collect()
    assert set(handles._handles) <= before


# ---------------------------------------------------------------------- degenerate solutions


def test_at_a_kink_the_user_is_told():
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    c_t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.warns(cd.DegeneracyWarning):
        (g,) = torch.autograd.grad(layer(c_t)[0].pow(3).sum(), c_t, create_graph=True)
        (got,) = torch.autograd.grad(g.sum(), c_t)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got[1], torch.tensor(6.0, dtype=torch.float64))


# ---------------------------------------------------------------------- third derivatives

THIRD = {
    "rev-rev-rev": lambda f: jacrev(jacrev(jacrev(f))),
    "fwd-rev-rev": lambda f: jacfwd(jacrev(jacrev(f))),
    "rev-fwd-rev": lambda f: jacrev(jacfwd(jacrev(f))),
    "rev-rev-fwd": lambda f: jacrev(jacrev(jacfwd(f))),
    "fwd-fwd-rev": lambda f: jacfwd(jacfwd(jacrev(f))),
    "fwd-rev-fwd": lambda f: jacfwd(jacrev(jacfwd(f))),
    "rev-fwd-fwd": lambda f: jacrev(jacfwd(jacfwd(f))),
    "fwd-fwd-fwd": lambda f: jacfwd(jacfwd(jacfwd(f))),
}


def third_refused():
    return pytest.raises(NotImplementedError, match="third derivatives")


@pytest.mark.parametrize("third", THIRD.values(), ids=THIRD.keys())
def test_third_derivatives_are_refused(f, third):
    with third_refused():
        third(loss(f))(point(False))


def test_third_derivatives_are_refused_in_eager_mode(f):
    c = point()
    (g,) = torch.autograd.grad(penalty(f)(c), c, create_graph=True)
    with third_refused():
        torch.autograd.grad(g.square().sum(), c)


# ---------------------------------------------------------------------- compiled functions


def by_grad(f):
    c = point()
    return torch.autograd.grad(penalty(f)(c), c)


def by_backward(f):
    c = point()
    penalty(f)(c).backward()
    return c.grad


def of_a_weight(f):
    """As of a critic: the penalty is on the input, and trains what comes before the layer."""
    c, w = point(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(penalty(lambda c: f(c * w))(c), w)


EAGER = {
    "grad": by_grad,
    "backward": by_backward,
    "weight": of_a_weight,
    "functional.hessian": lambda f: functional.hessian(loss(f), point()),
    "checkpoint": lambda f: by_grad(lambda c: checkpoint(f, c, use_reentrant=False)),
}
FUNC = {
    "hessian": lambda f: hessian(loss(f))(point(False)),
    "fwd-fwd": lambda f: jacfwd(jacfwd(f))(point(False)),
    "jvp-grad": lambda f: jvp(grad(loss(f)), (point(False),), (point(False),)),
}


def refused():
    return pytest.raises(NotImplementedError, match="second derivatives of a compiled layer")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("second", EAGER.values(), ids=EAGER.keys())
def test_of_a_compiled_function(f, second, backend):
    with refused():
        second(torch.compile(f, backend=backend, fullgraph=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [lambda f: f, lambda f: lambda c: f(2 * c)], ids=["input", "inner"])
def test_around_a_compiled_loss(f, inside, backend):
    """Where torch would take the gradient for a constant."""
    c = point()
    with refused():
        (g,) = torch.autograd.grad(torch.compile(loss(inside(f)), backend=backend)(c), c, create_graph=True)
        torch.autograd.grad(g.square().sum() + c.sum(), c)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [lambda f: f, lambda f: lambda c: f(2 * c)], ids=["input", "inner"])
def test_inside_a_compiled_function(f, inside, backend):
    """torch leaves such a function's backward pass uncompiled, or the layer refuses."""
    c = point()
    try:
        (got,) = torch.autograd.grad(torch.compile(penalty(inside(f)), backend=backend)(c), c)
    except NotImplementedError as error:
        assert "second derivatives of a compiled layer" in str(error)
    else:
        torch.testing.assert_close(got, torch.autograd.grad(penalty(inside(f))(c), c)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("second", FUNC.values(), ids=FUNC.keys())
def test_transforms_and_compiled_functions(f, second, backend):
    """Errors of torch, of several kinds, where it cannot transform what is compiled; right where it can."""
    expected = second(f)
    for compiled in (
        lambda: second(torch.compile(f, backend=backend)),
        torch.compile(lambda: second(f), backend=backend),
    ):
        try:
            got = compiled()
        except Exception:  # of torch, of several kinds
            continue
        torch.testing.assert_close(got, expected)


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
