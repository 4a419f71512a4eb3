"""The PyTorch layer: the contract, calls, dtypes, what is computed and kept, and bad input."""

from __future__ import annotations

import doctest
import gc
import importlib
import pydoc
import warnings
from typing import ClassVar

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.layer.base import BaseDerivative
from tests.adapters import contract

torch = pytest.importorskip("torch")
ct = importlib.import_module("conediff.torch")
arrays = importlib.import_module("conediff_torch._arrays")
handles = importlib.import_module("conediff_torch._handles")

QUADRATIC = contract.QUADRATIC


class TorchAdapter:
    """Arrays in, arrays out."""

    package = ct

    def layer(self, problem, parameters, variables, **options):
        return ct.CvxpyLayer(problem, parameters, variables, **options)

    def call(self, layer, values, **options):
        return contract.in_place_of_tensors(layer(*(torch.tensor(v) for v in values), **options))

    def vjp(self, layer, values, cotangents, **options):
        tensors = [torch.tensor(v, requires_grad=True) for v in values]
        torch.autograd.backward(layer(*tensors, **options), [torch.tensor(g) for g in cotangents])
        return tuple(t.grad.numpy() for t in tensors)

    def jvp(self, layer, values, tangents, **options):
        primals, tangents = (tuple(map(torch.tensor, arrays)) for arrays in (values, tangents))
        _, pushed = torch.func.jvp(lambda *tensors: layer(*tensors, **options), primals, tangents)
        return tuple(tangent.numpy() for tangent in pushed)

    def second(self, mode, layer, values, cotangents, tangents):
        primals, cotangents, tangents = (
            tuple(map(torch.tensor, arrays)) for arrays in (values, cotangents, tangents)
        )

        def loss(*tensors):
            outputs = layer(*tensors)
            return sum((out * g.conj()).real.sum() for out, g in zip(outputs, cotangents, strict=True))

        every = tuple(range(len(primals)))
        gradient = torch.func.grad(loss, every)
        if mode == "forward over reverse":
            return tuple(g.numpy() for g in torch.func.jvp(gradient, primals, tangents)[1])
        if mode == "reverse over forward":
            slope = lambda *tensors: torch.func.jvp(loss, tensors, tangents)[1]  # noqa: E731
            return tuple(g.numpy() for g in torch.func.grad(slope, every)(*primals))
        leaves = [p.clone().requires_grad_() for p in primals]
        gradients = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
        slope = sum((g * t.conj()).real.sum() for g, t in zip(gradients, tangents, strict=True))
        return tuple(g.numpy() for g in torch.autograd.grad(slope, leaves))


ADAPTER = TorchAdapter()


def quadratic(**solver_args):
    return ct.CvxpyLayer(*QUADRATIC.state(), solver_args=solver_args)


def tensors(*batch, grad=False, dtype=torch.float64):
    return [torch.tensor(v, dtype=dtype, requires_grad=grad) for v in QUADRATIC.values(batch)]


@pytest.mark.parametrize("mode", contract.SECOND_MODES)
@pytest.mark.parametrize("batch", [(), (2,)], ids=["single", "batch"])
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_second_derivatives(case, batch, mode):
    contract.check_second(ADAPTER, case, batch, mode)


@pytest.fixture
def living():
    """Count the solutions of this test that something keeps."""
    before = set(handles._handles)

    def count():
        gc.collect()
        return len(set(handles._handles) - before)

    return count


# ---------------------------------------------------------------------- the contract


@pytest.mark.parametrize("batch", [(), (3,), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_oracle(case, batch):
    contract.check_against_oracle(ADAPTER, case, batch)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    check(ADAPTER)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float16, 3e-2), (np.float32, 1e-5), (np.float64, 1e-9)])
def test_dtype(dtype, rtol):
    contract.check_dtype(ADAPTER, dtype, rtol)


@pytest.mark.parametrize(("values", "error", "message"), [b[1:] for b in contract.BAD_CALLS])
def test_bad_calls(values, error, message):
    with pytest.raises(error, match=message):
        ADAPTER.call(quadratic(), values)


@pytest.mark.parametrize("build,error,message", [b[1:] for b in contract.bad_constructions()])
def test_bad_constructions(build, error, message):
    with pytest.raises(error, match=message):
        build(ADAPTER)


# ---------------------------------------------------------------------- calls


def test_what_is_no_tensor_is_refused_with_advice():
    layer, (A, b, lam) = quadratic(), tensors()
    name = layer.numpy_layer.parameters[1].name
    for wrong in (b.numpy(), [1.0, 2.0], 1.0):
        with pytest.raises(TypeError, match=f"{name}.* a torch.Tensor, but .*convert it by torch.as_tensor"):
            layer(A, wrong, lam)
    with pytest.raises(TypeError, match="is a dict: pass solver_args by name"):
        layer(A, b, lam, {"eps": 1e-8})  # as cvxpylayers' own examples pass them


def test_the_callers_tensors_stay_as_they_are():
    layer, values = quadratic(), tensors(2)
    before = [v.clone() for v in values]
    outputs = layer(*values)
    for out in outputs:
        out.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(values, before, strict=True))


def test_changing_parameters_and_outputs_afterwards_does_not_change_the_gradient():
    layer = quadratic()
    (expected,) = torch.autograd.grad(layer(*(v := tensors(2, grad=True)))[0].sum(), v[0])
    values = tensors(2, grad=True)
    x = layer(*values)[0]
    total = x.sum()
    with torch.no_grad():
        for v in values:
            v.mul_(2)
        x.zero_()
    assert torch.equal(torch.autograd.grad(total, values[0])[0], expected)


# ---------------------------------------------------------------------- dtypes and devices


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_same_dtype_out(dtype):
    values = tensors(2, grad=True, dtype=dtype)
    outputs = quadratic()(*values)
    assert all(out.dtype == dtype for out in outputs)
    sum(out.sum() for out in outputs).backward()
    assert all(v.grad.dtype == dtype and torch.isfinite(v.grad).all() for v in values)


def test_attributes_allow_for_the_rounding_of_low_precision():
    x, P, q = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - q) + cp.quad_form(x, P))), [P, q], [x])
    root = torch.ones(3, 1) / 3
    off = torch.zeros(3, 3)
    off[0, 1] = 1e-3
    assert layer((root @ root.T + off).bfloat16(), torch.ones(3).bfloat16())[0].dtype == torch.bfloat16
    for q_t in (torch.ones(3), torch.ones(3).bfloat16()):
        with pytest.raises(cd.ParameterError, match="PSD"):
            layer(root @ root.T + off, q_t)


def test_promotion_is_torchs_own():
    A, b, lam = tensors()
    layer = quadratic()
    assert layer(A.float(), b, lam)[0].dtype == torch.float64
    assert layer(A.float(), b.float(), lam)[0].dtype == torch.float32  # a scalar yields
    assert layer(A.half(), b.bfloat16(), lam)[0].dtype == torch.float32
    assert layer(A.float(), b.long(), lam.long())[0].dtype == torch.float32
    assert layer(A.long(), b.long(), lam.long())[0].dtype == torch.get_default_dtype()


def test_mixed_dtypes_have_gradients_of_their_own():
    A, b, lam = tensors(2)
    values = [A.float().requires_grad_(), b.requires_grad_(), lam.half().requires_grad_()]
    quadratic()(*values)[0].sum().backward()
    assert [v.grad.dtype for v in values] == [torch.float32, torch.float64, torch.float16]


def test_default_dtype_is_respected():
    A, b, lam = tensors()
    torch.set_default_dtype(torch.float64)
    try:
        assert quadratic()(A.long(), b.long(), lam.long())[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast():
    linear, layer = torch.nn.Linear(5, 4), quadratic()
    A, _, lam = tensors(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = linear(torch.ones(2, 5))
        assert h.dtype == torch.bfloat16
        assert layer(A.bfloat16(), h, lam.bfloat16())[0].dtype == torch.bfloat16
        x = layer(A, h, lam)[0]
    assert x.dtype == torch.float32
    x.sum().backward()
    assert linear.weight.grad.abs().sum() > 0


def test_views_of_every_kind():
    A, b, lam = tensors()
    layer = quadratic()
    expected = layer(A, b, lam)[0]
    transposed = A.T.contiguous().T
    strided = torch.stack([b, b], 1)[:, 0]
    assert torch.equal(layer(transposed, strided, lam)[0], expected)
    assert torch.equal(layer(A, torch._neg_view(-b), lam)[0], expected)
    expanded = layer(A.expand(2, 4, 3), b, lam)[0]
    assert torch.allclose(expanded, expected.expand(2, 3), rtol=1e-9)
    sparse = A.to_sparse().requires_grad_()
    layer(sparse, b, lam)[0].sum().backward()
    assert sparse.grad.shape == A.shape


def test_outputs_are_contiguous_and_the_users_own():
    for case in contract.CASES:
        values = [torch.tensor(v, requires_grad=True) for v in case.values((2,))]
        outputs = ct.CvxpyLayer(*case.state(), gp=case.gp)(*values)
        assert all(out.is_contiguous() for out in outputs)
    for array in (np.broadcast_to(np.ones(1), (3,)), np.arange(3.0)[::-1]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = arrays.to_tensor(array, torch.float64, torch.device("cpu"))
        assert tensor.add_(1).tolist() == (array + 1).tolist()
        assert array.max() < 3


def test_complex_views_and_real_values_of_complex_parameters():
    case = next(c for c in contract.CASES if c.name == "complex")
    layer = ct.CvxpyLayer(*case.state())
    C = torch.tensor(case.values()[0])
    assert torch.allclose(layer(C.conj())[0], layer(C.conj().resolve_conj())[0])
    assert layer(C.to(torch.complex64))[0].dtype == torch.complex64
    real = C.real.clone().requires_grad_()
    out = layer(real)[0]
    assert out.dtype == torch.complex128
    out.real.sum().backward()
    assert real.grad.dtype == torch.float64


def test_tensors_come_from_their_device_and_go_back(monkeypatch):
    """The meta device stands for one that is not here; arrays are lent to its empty tensors."""
    autograd = importlib.import_module("conediff_torch._autograd")
    A, b, lam = tensors(2)
    lent = {A.shape: A.numpy(), b.shape: b.numpy()}
    read = []

    def to_array(tensor):
        read.append(tensor.device.type)
        return lent.get(tensor.shape, np.ones(tensor.shape)) if tensor.is_meta else arrays.to_array(tensor)

    monkeypatch.setattr(importlib.import_module("conediff_torch._solved"), "to_array", to_array)
    there = [A.to("meta", torch.float32).requires_grad_(), b.to("meta").requires_grad_(), lam.sum()]
    there[2].requires_grad_()
    dtype, device = arrays.result_dtype(there), arrays.result_device(there)
    call = autograd.Call(quadratic().numpy_layer, {}, dtype, device)

    def solve(*values):
        return autograd.apply(autograd.Solve, call, *values)

    *outputs, base, handle = solve(*there)
    assert base.device.type == handle.device.type == "cpu" and read == ["meta", "meta", "cpu"]
    assert {(out.device.type, out.dtype) for out in outputs} == {("meta", torch.float64)}
    grads = torch.autograd.grad(sum(out.sum() for out in outputs), there)
    found = [(g.device.type, g.dtype, g.shape) for g in grads]
    assert found == [(t.device.type, t.dtype, t.shape) for t in there]
    A_m, b_m = A.to("meta"), b.to("meta")
    x, pull = torch.func.vjp(lambda b: solve(A_m, b, lam)[0], b_m)
    assert x.is_meta and pull(torch.empty_like(x))[0].is_meta
    assert torch.func.jvp(lambda b: solve(A_m, b, lam)[0], (b_m,), (b_m,))[1].is_meta


def test_values_are_read_on_the_cpu():
    class Elsewhere(torch.Tensor):
        """Lies on another device, and says which functions bring it here."""

        calls: ClassVar[list[str]] = []

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.calls.append(function.__name__)
            assert function.__name__ != "numpy" or kwargs == {"force": True}, "read before it was copied"
            return super().__torch_function__(function, types, args, kwargs or {})

    tensor = torch.ones(3, dtype=torch.bfloat16).as_subclass(Elsewhere)
    assert arrays.to_array(tensor).tolist() == [1, 1, 1] and "numpy" in Elsewhere.calls


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_round_trip_on_the_device_itself(device):
    if not getattr(torch, "cuda" if device == "cuda" else "mps").is_available():
        pytest.skip(f"no {device} device here")
    dtype = torch.float32 if device == "mps" else torch.float64
    here, values = tensors(2, grad=True, dtype=dtype), tensors(2, grad=True, dtype=dtype)
    there = [value.detach().to(device).requires_grad_() for value in values]
    layer = quadratic()
    expected, outputs = layer(*here), layer(*there)
    sum(out.sum() for out in expected).backward()
    sum(out.sum() for out in outputs).backward()
    for out, exact in zip(outputs, expected, strict=True):
        assert out.device.type == device
        torch.testing.assert_close(out.cpu(), exact)
    for mine, other in zip(there, here, strict=True):
        assert mine.grad.device.type == device
        torch.testing.assert_close(mine.grad.cpu(), other.grad)


def test_meta_tensors_give_shapes():
    A, b, lam = (v.to("meta") for v in tensors(2))
    assert [out.shape for out in quadratic()(A, b, lam)] == [(2, 3), (2,), (2, 3), (2,)]


# ---------------------------------------------------------------------- what is computed and kept


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_kept(living, context):
    with context():
        outputs = quadratic()(*tensors(2, grad=True))
        assert living() == 0
    assert not any(out.requires_grad for out in outputs)


def test_only_what_is_needed_is_computed(monkeypatch):
    layer, seen = quadratic(), []
    original = BaseDerivative.pull

    def pull(self, cotangents, *base, needed=None, **options):
        seen.append((tuple(c is not None for c in cotangents), tuple(needed)))
        return original(self, cotangents, *base, needed=needed, **options)

    monkeypatch.setattr(BaseDerivative, "pull", pull)
    A, b, lam = tensors(2)
    x, *_ = layer(A, b.requires_grad_(), lam)
    x.sum().backward()
    assert seen == [((True, False, False, False), (False, True, False))]
    assert A.grad is None and b.grad is not None


def test_the_solution_is_released_by_the_backward_pass(living):
    values = tensors(2, grad=True)
    loss = quadratic()(*values)[0].sum()
    assert living() == 1
    loss.backward(retain_graph=True)
    assert living() == 1
    first = values[0].grad.clone()
    loss.backward()
    assert living() == 0
    assert torch.allclose(values[0].grad, 2 * first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_gradient_accumulation_and_hooks():
    layer, values = quadratic(), tensors(2, grad=True)
    calls = []
    layer.register_forward_pre_hook(lambda module, args: calls.append("pre"))
    layer.register_forward_hook(lambda module, args, output: calls.append("post"))
    layer.register_full_backward_hook(lambda module, gin, gout: calls.append("back"))
    values[1].register_hook(lambda g: 3 * g)
    for _ in range(2):
        layer(*values)[0].sum().backward()
    (expected,) = torch.autograd.grad(quadratic()(*(v := tensors(2, grad=True)))[0].sum(), v[1])
    assert torch.allclose(values[1].grad, 6 * expected)
    assert calls == ["pre", "post", "back"] * 2


def test_saved_tensor_hooks_may_copy(living):
    values = tensors(2, grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), torch.from_numpy):
        x = quadratic()(*values)[0]
    x.sum().backward()
    assert values[0].grad is not None and living() == 0


@pytest.mark.parametrize(("answer", "fill"), [("nan", np.nan), ("zero_grad", 0.0)])
def test_what_a_loss_makes_of_failed_elements(answer, fill):
    stated, (p,) = contract.infeasible_in_row_one()
    layer = ct.CvxpyLayer(*stated, solver_args={"on_failure": answer})
    p_t = torch.tensor(p, requires_grad=True)
    for loss, row in (
        (lambda x: x[torch.isfinite(x).all(-1)].sum(), 0.0),
        (lambda x: x.nansum(), 0.0),
        (lambda x: x.sum(), fill),
    ):
        (g,) = torch.autograd.grad(loss(layer(p_t)[0]), p_t)
        torch.testing.assert_close(
            g, torch.tensor([[1.0, 1], [row] * 2, [1, 1]], dtype=torch.float64), equal_nan=True
        )
    _, tangent = torch.func.jvp(layer, (p_t.detach(),), (torch.ones_like(p_t),))
    assert torch.isfinite(tangent[0]).all(-1).tolist() == [True, False, True]


# ---------------------------------------------------------------------- torch's own kinds of error


def test_mixed_devices():
    A, b, lam = tensors()
    with pytest.raises(RuntimeError, match="same device"):
        quadratic()(A.to("meta"), b, lam)
    assert quadratic()(A.to("meta"), b.to("meta"), lam)[0].is_meta  # scalars go with any device


def test_errors_of_the_backward_pass_name_what_is_wrong():
    x, p = cp.Variable(), cp.Parameter()
    layer = ct.CvxpyLayer(cp.Problem(cp.Minimize(cp.abs(x - 1)), [x >= p]), [p], [x])
    p_t = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.DegeneracyWarning)
        with pytest.raises(cd.DegeneracyWarning, match="not differentiable"):
            layer(p_t)[0].backward()


def test_warnings_point_at_the_users_line():
    x, p = cp.Variable(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.abs(x - 1)), [x >= p])

    def layer(*given, **named):
        return ct.CvxpyLayer(problem, [p], [x])(*given, **named)  # a new layer each time: it warns once

    p_t = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(p_t)[0].backward()
        torch.func.grad(lambda p: layer(p)[0])(p_t)
        torch.func.jvp(lambda p: layer(p)[0], (p_t,), (p_t,))
        layer(p_t, solver_args={"refine": False, "eps": 1e-1})
    ours = [w.filename for w in caught if issubclass(w.category, cd.ConediffWarning)]
    assert ours == [__file__] * 4


def test_opt_layer_has_the_docstring_of_the_numpy_layer():
    assert ct.OptLayer.__doc__ == cd.OptLayer.__doc__ and "Examples" in pydoc.render_doc(ct.OptLayer)


@pytest.mark.parametrize("name", ["layer", "functional"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"conediff_torch.{name}"))
    assert result.attempted and not result.failed
