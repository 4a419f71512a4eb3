"""The MLX layer: the contract in both precisions, calls, dtypes, modules, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import doctest
import gc
import importlib
import pickle
import weakref

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.adapters import contract

mx = pytest.importorskip("mlx.core", exc_type=ImportError)
nn = importlib.import_module("mlx.nn")
cm = importlib.import_module("conediff.mlx")

QUADRATIC = contract.QUADRATIC
KINDS = {"f2": mx.float16, "f4": mx.float32, "f8": mx.float64, "c8": mx.complex64, "c16": mx.complex64}


def to_mlx(array):
    """MLX takes float64 for float32 unless it is told."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    return mx.array(array, dtype=KINDS.get(array.dtype.str[1:]))


class MlxAdapter:
    """Arrays in, arrays out."""

    package = cm

    def layer(self, problem, parameters, variables, **options):
        return cm.CvxpyLayer(problem, parameters, variables, **options)

    def call(self, layer, values, **options):
        return contract.in_place_of_tensors(layer(*map(to_mlx, values), **options))

    def vjp(self, layer, values, cotangents, **options):
        outputs = layer(*map(to_mlx, values), **options)
        cotangents = [to_mlx(g).astype(out.dtype) for g, out in zip(cotangents, outputs, strict=True)]
        pulled = mx.vjp(lambda *v: layer(*v, **options), [to_mlx(v) for v in values], cotangents)[1]
        return self._arrays(pulled)

    def jvp(self, layer, values, tangents, **options):
        values, tangents = ([to_mlx(a) for a in arrays] for arrays in (values, tangents))
        return self._arrays(mx.jvp(lambda *v: layer(*v, **options), values, tangents)[1])

    def second(self, mode, layer, values, cotangents, tangents):
        values, cotangents, tangents = ([to_mlx(a) for a in part] for part in (values, cotangents, tangents))
        every = list(range(len(values)))

        def pairing(first, second):
            return sum(mx.real(mx.conj(a) * b).sum() for a, b in zip(first, second, strict=True))

        def gradient(*values):
            return mx.vjp(layer, list(values), cotangents)[1]

        if mode == "forward over reverse":
            return self._arrays(mx.jvp(gradient, values, tangents)[1])
        if mode == "reverse over reverse":
            return self._arrays(mx.grad(lambda *v: pairing(tangents, gradient(*v)), argnums=every)(*values))

        def pushed(*values):
            return pairing(cotangents, mx.jvp(layer, list(values), tangents)[1])

        return self._arrays(mx.grad(pushed, argnums=every)(*values))

    @staticmethod
    def _arrays(results):
        """MLX returns the array itself where there is one."""
        return tuple(map(np.array, [results] if isinstance(results, mx.array) else results))


ADAPTER = MlxAdapter()


@pytest.fixture(autouse=True)
def on_the_cpu():
    """float64 exists on the CPU only."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def quadratic(**solver_args):
    return cm.CvxpyLayer(*QUADRATIC.state(), solver_args=solver_args)


def arrays(*batch, dtype=None):
    return [to_mlx(v) if dtype is None else to_mlx(v).astype(dtype) for v in QUADRATIC.values(batch)]


def equal_in_single_precision(got, expected):
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape and g.dtype.itemsize == (8 if np.iscomplexobj(g) else 4)
        np.testing.assert_allclose(g, e, rtol=2e-5, atol=2e-6)


# ---------------------------------------------------------------------- the contract


@pytest.mark.parametrize("batch", [(), (3,), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_oracle(case, batch, monkeypatch):
    if case.name == "complex":  # MLX has complex64 only
        monkeypatch.setattr(contract, "_equal", equal_in_single_precision)
    contract.check_against_oracle(ADAPTER, case, batch)


@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_oracle_in_single_precision(case, monkeypatch):
    """The same contract in MLX's own dtype: arrays are float32, inside everything is float64."""

    def rounded(rng, batch):
        return [v.astype(np.complex64 if np.iscomplexobj(v) else np.float32) for v in case.sample(rng, batch)]

    monkeypatch.setattr(contract, "_equal", equal_in_single_precision)
    monkeypatch.setitem(KINDS, "f8", mx.float32)
    contract.check_against_oracle(ADAPTER, dataclasses.replace(case, sample=rounded), (3,))


@pytest.mark.parametrize("mode", contract.SECOND_MODES)
@pytest.mark.parametrize("case", [c for c in contract.CASES if c.name != "complex"], ids=str)
def test_second(case, mode):
    """MLX's complex64 is not accurate enough for differences."""
    contract.check_second(ADAPTER, case, (2,), mode)


@pytest.mark.parametrize(
    "check", [*contract.CHECKS, contract.check_no_arrays], ids=lambda check: check.__name__
)
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


def test_arrays_of_every_kind_are_parameters():
    layer = quadratic()
    A, b, lam = (v.astype(np.float32) for v in QUADRATIC.values())
    expected = layer(*map(to_mlx, (A, b, lam)))[0]
    assert mx.array_equal(layer(A, b.tolist(), float(lam))[0], expected)
    assert mx.array_equal(layer(mx.array(A.T.copy()).T, mx.array(b), lam)[0], expected)


def test_promotion_is_mlxs_own():
    A, b, lam = arrays()
    layer = quadratic()

    def dtype(*dtypes):
        return layer(*(v.astype(d) for v, d in zip((A, b, lam), dtypes, strict=True)))[0].dtype

    assert dtype(mx.float32, mx.float64, mx.float64) == mx.float64
    assert dtype(mx.float16, mx.bfloat16, mx.float16) == mx.float32
    assert dtype(mx.bfloat16, mx.bfloat16, mx.int32) == mx.bfloat16
    assert dtype(mx.int32, mx.int32, mx.int32) == mx.float32


def test_gradients_have_the_parameters_dtypes_and_integers_none():
    A, b, lam = arrays(2)
    values = [A.astype(mx.float32), b, lam.astype(mx.bfloat16)]
    gradients = mx.grad(lambda *v: quadratic()(*v)[0].sum(), argnums=(0, 1, 2))(*values)
    assert [g.dtype for g in gradients] == [mx.float32, mx.float64, mx.bfloat16]
    gradient = mx.grad(lambda b: quadratic()(A[0], b, 2)[0].sum())(b[0])
    assert gradient.shape == (4,) and mx.isfinite(gradient).all()


def test_a_gradient_of_one_parameter_and_of_one_output():
    layer, (A, b, lam) = quadratic(), arrays()
    solution = layer.numpy_layer.solve(*QUADRATIC.values())
    for k, values in enumerate(solution.values):
        cotangents = [np.ones_like(v) if j == k else None for j, v in enumerate(solution.values)]
        expected = solution.vjp(*cotangents)[1]
        found = mx.grad(lambda b, k=k: layer(A, b, lam)[k].sum())(b)
        np.testing.assert_allclose(np.array(found), expected, rtol=1e-9, atol=1e-10)
        assert values.shape == layer(A, b, lam)[k].shape
    (tangent, *_), direction = mx.jvp(lambda b: layer(A, b, lam), [b], [b])[1], QUADRATIC.values()[1]
    np.testing.assert_allclose(np.array(tangent), solution.jvp(None, direction, None)[0], rtol=1e-9)


def test_checkpoints():
    layer, (A, b, lam) = quadratic(), arrays()

    def loss(b):
        return layer(A, b, lam)[0].sum()

    expected = mx.grad(loss)(b)
    np.testing.assert_allclose(np.array(mx.grad(mx.checkpoint(loss))(b)), np.array(expected), rtol=1e-9)


def test_a_solution_lives_as_long_as_it_may_be_asked(monkeypatch):
    living, solve = weakref.WeakSet(), cd.CvxpyLayer.solve

    def watched(self, *values, **options):
        solution = solve(self, *values, **options)
        living.add(solution)
        return solution

    monkeypatch.setattr(cd.CvxpyLayer, "solve", watched)
    layer, values = quadratic(), arrays(2)
    for _ in range(3):
        mx.eval(mx.value_and_grad(lambda *v: layer(*v)[0].sum(), argnums=(0, 1))(*values))
    gc.collect()
    assert not living


# ---------------------------------------------------------------------- what is refused


def test_second_derivatives_in_every_nesting():
    layer, (A, b, lam) = quadratic(), arrays()
    v = mx.array(np.arange(4.0), dtype=mx.float64)

    def loss(b):
        x = layer(A, b, lam)[0]
        return (x * x * x).sum()  # mx.sin is accurate to single precision only

    def slope(b):
        return mx.jvp(loss, [b], [v])[1][0]

    expected = np.array(mx.grad(lambda b: (mx.grad(loss)(b) * v).sum())(b))
    step = 1e-5 * v
    difference = (mx.grad(loss)(b + step) - mx.grad(loss)(b - step)) / 2e-5
    np.testing.assert_allclose(np.array(difference), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(np.array(mx.jvp(mx.grad(loss), [b], [v])[1][0]), expected, rtol=1e-9)
    np.testing.assert_allclose(np.array(mx.grad(slope)(b)), expected, rtol=1e-9)
    np.testing.assert_allclose(mx.jvp(slope, [b], [v])[1][0].item(), expected @ np.arange(4.0), rtol=1e-9)


def test_third_derivatives_are_refused():
    layer, (A, b, lam) = quadratic(), arrays()

    def square(b):
        gradient = mx.grad(lambda b: layer(A, b, lam)[0].sum())(b)
        return (
            mx.grad(lambda b: (mx.grad(lambda b: layer(A, b, lam)[0].sum())(b) ** 2).sum())(b) * gradient
        ).sum()

    with pytest.raises(NotImplementedError, match="third derivatives"):
        mx.eval(mx.grad(square)(b))
    with pytest.raises(NotImplementedError, match="third derivatives"):
        mx.eval(mx.jvp(square, [b], [b]))


def test_vmap_and_compile_are_refused_with_advice():
    layer, (A, b, lam) = quadratic(), arrays(3)

    def solve(b):
        return layer(A[0], b, lam[0])[0]

    def jacobian(b):
        return mx.vmap(lambda g: mx.vjp(solve, [b[0]], [g])[1][0])(mx.eye(3, dtype=mx.float64))

    for function in (mx.vmap(solve), mx.compile(solve), mx.vmap(mx.grad(lambda b: solve(b).sum())), jacobian):
        with pytest.raises(NotImplementedError, match="leading dimensions"):
            mx.eval(function(b))


# ---------------------------------------------------------------------- modules


def test_a_module_trains():
    z, x, low = cp.Variable(4), cp.Parameter(4), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= low])
    layer = cm.CvxpyLayer(problem, [x, low], [z])

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.low, self.layer = nn.Linear(3, 4), -mx.ones(4), layer

        def __call__(self, x):
            return self.layer(self.linear(x), self.low)[0]

    rng = np.random.default_rng(0)
    mx.random.seed(0)
    model, inputs = Model(), mx.array(rng.standard_normal((16, 3)))
    targets = np.abs(rng.standard_normal((16, 4)))
    targets = mx.array(targets / targets.sum(1, keepdims=True))
    optimizer = importlib.import_module("mlx.optimizers").SGD(0.3)
    step = nn.value_and_grad(model, lambda: ((model(inputs) - targets) ** 2).mean())
    losses = []
    for _ in range(10):
        value, gradients = step()
        optimizer.update(model, gradients)
        mx.eval(model.parameters())
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]
    assert set(model.parameters()) == {"linear", "low"}


def test_sequential_and_copies():
    z, x = cp.Variable(4), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= 0])
    layer = cm.CvxpyLayer(problem, [x], [z], single_output=True)
    out = nn.Sequential(nn.Linear(3, 4), layer)(mx.ones((5, 3)))
    np.testing.assert_allclose(np.array(out.sum(1)), 1, rtol=1e-5)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert mx.allclose(other(mx.arange(4.0)), layer(mx.arange(4.0)))
    assert repr(layer).startswith("CvxpyLayer(")


def test_doctests():
    for name in ("functional", "layer"):
        assert doctest.testmod(importlib.import_module(f"conediff_mlx.{name}")).failed == 0
