"""The JAX layer: the contract in both precisions, calls, dtypes, what is kept, and errors."""

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

jax = pytest.importorskip("jax")
jnp = jax.numpy
cj = importlib.import_module("conediff.jax")
kept = importlib.import_module("conediff_jax._kept")
constants = importlib.import_module("conediff_jax.constants")

QUADRATIC = contract.QUADRATIC


class JaxAdapter:
    """Arrays in, arrays out; JAX pairs a cotangent and a tangent without conjugation."""

    package = cj

    def transform(self, function):
        return function

    def layer(self, problem, parameters, variables, **options):
        return cj.CvxpyLayer(problem, parameters, variables, **options)

    def call(self, layer, values, **options):
        with cj.original_errors():
            return contract.in_place_of_tensors(self.transform(lambda *v: layer(*v, **options))(*values))

    def vjp(self, layer, values, cotangents, **options):
        def pulled(values, cotangents):
            outputs, pull = jax.vjp(lambda *v: layer(*v, **options), *values)
            return pull(tuple(g.astype(out.dtype) for g, out in zip(cotangents, outputs, strict=True)))

        values = tuple(map(jnp.asarray, values))
        conjugates = tuple(jnp.asarray(np.conj(g)) for g in cotangents)
        return tuple(map(np.conj, self._arrays(self.transform(pulled)(values, conjugates))))

    def jvp(self, layer, values, tangents, **options):
        values, tangents = (tuple(map(jnp.asarray, arrays)) for arrays in (values, tangents))
        pushed = self.transform(lambda v, t: jax.jvp(lambda *v: layer(*v, **options), v, t)[1])
        return self._arrays(pushed(values, tangents))

    def second(self, mode, layer, values, cotangents, tangents):
        values, tangents = (tuple(map(jnp.asarray, part)) for part in (values, tangents))
        conjugates = tuple(jnp.asarray(np.conj(g)) for g in cotangents)
        every = tuple(range(len(values)))

        def pairing(first, second):
            return sum((a * b).sum().real for a, b in zip(first, second, strict=True))

        def gradient(*values):
            return jax.vjp(layer, *values)[1](conjugates)

        modes = {
            "forward over reverse": lambda *v: jax.jvp(gradient, v, tangents)[1],
            "reverse over reverse": jax.grad(lambda *v: pairing(tangents, gradient(*v)), every),
            "reverse over forward": jax.grad(
                lambda *v: pairing(conjugates, jax.jvp(layer, v, tangents)[1]), every
            ),
        }
        return tuple(map(np.conj, self._arrays(self.transform(modes[mode])(*values))))

    @staticmethod
    def _arrays(results):
        return tuple(map(np.asarray, results))


class CompiledAdapter(JaxAdapter):
    """The same inside jit."""

    def transform(self, function):
        return jax.jit(function)


ADAPTERS = pytest.mark.parametrize("adapter", [JaxAdapter(), CompiledAdapter()], ids=["eager", "jit"])
ADAPTER = JaxAdapter()


@pytest.fixture(autouse=True)
def double():
    """Double precision, unless a test says otherwise."""
    with jax.enable_x64(True):
        yield


def quadratic(**solver_args):
    return cj.CvxpyLayer(*QUADRATIC.state(), solver_args=solver_args)


def arrays(*batch, dtype=None):
    return [jnp.asarray(v, dtype) for v in QUADRATIC.values(batch)]


# ---------------------------------------------------------------------- the contract


@ADAPTERS
@pytest.mark.parametrize("batch", [(), (3,), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_oracle(case, batch, adapter):
    contract.check_against_oracle(adapter, case, batch)


@ADAPTERS
@pytest.mark.parametrize("mode", contract.SECOND_MODES)
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_second(case, mode, adapter):
    contract.check_second(adapter, case, (2,), mode)


@ADAPTERS
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_oracle_in_single_precision(case, adapter, monkeypatch):
    """The same contract with x64 off: all arrays are rounded to float32, inside everything is float64."""

    def rounded(rng, batch):
        return [v.astype(np.complex64 if np.iscomplexobj(v) else np.float32) for v in case.sample(rng, batch)]

    def equal(got, expected):
        for g, e in zip(got, expected, strict=True):
            assert g.dtype == e.dtype and g.dtype.itemsize == (8 if np.iscomplexobj(g) else 4)
            np.testing.assert_allclose(g, e, rtol=2e-5, atol=2e-6)

    monkeypatch.setattr(contract, "_equal", equal)
    with jax.enable_x64(False):
        contract.check_against_oracle(adapter, dataclasses.replace(case, sample=rounded), (3,))


@ADAPTERS
@pytest.mark.parametrize(
    "check", [*contract.CHECKS, contract.check_no_arrays], ids=lambda check: check.__name__
)
def test_contract(check, adapter):
    check(adapter)


@ADAPTERS
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float16, 3e-2), (np.float32, 1e-5), (np.float64, 1e-9)])
def test_dtype(dtype, rtol, adapter):
    contract.check_dtype(adapter, dtype, rtol)


@ADAPTERS
@pytest.mark.parametrize(("values", "error", "message"), [b[1:] for b in contract.BAD_CALLS])
def test_bad_calls(values, error, message, adapter):
    with pytest.raises(error, match=message):
        adapter.call(quadratic(), values)


@pytest.mark.parametrize("build,error,message", [b[1:] for b in contract.bad_constructions()])
def test_bad_constructions(build, error, message):
    with pytest.raises(error, match=message):
        build(ADAPTER)


# ---------------------------------------------------------------------- calls


def test_random_keys_are_no_numbers():
    with pytest.raises(TypeError, match="array of numbers, but has dtype key"):
        quadratic()(*arrays()[:2], jax.random.key(0))


def test_arrays_of_every_kind_are_parameters():
    layer = quadratic()
    A, b, lam = QUADRATIC.values()
    expected = layer(*map(jnp.asarray, (A, b, lam)))[0]
    sparse = importlib.import_module("jax.experimental.sparse").BCOO.fromdense(jnp.asarray(A))
    for given in ((A, b, lam), (A.tolist(), b, float(lam)), (sparse, jnp.asarray(b), lam)):
        assert (layer(*given)[0] == expected).all()


def test_traced_solver_args_are_refused():
    layer, values = quadratic(), arrays()
    with pytest.raises(TypeError, match="solver argument eps is traced"):
        jax.jit(lambda eps: layer(*values, solver_args={"eps": eps}))(1e-3)


def test_the_same_call_gives_the_same_bits_compiled_or_not():
    layer, values = quadratic(), arrays(5)
    gradient = jax.grad(lambda *v: sum(jnp.sum(out) for out in layer(*v)), (0, 1, 2))
    one, other = gradient(*values), jax.jit(gradient)(*values)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_verbose_prints_in_compiled_code(capfd):
    CompiledAdapter().call(quadratic(), arrays(), solver_args={"verbose": True})
    assert "SCS" in capfd.readouterr().out


# ---------------------------------------------------------------------- dtypes and devices


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float16", "float32", "float64"])
def test_same_dtype_out(dtype):
    values = [jnp.asarray(v).astype(dtype) for v in QUADRATIC.values((2,))]
    outputs, pull = jax.vjp(jax.jit(quadratic()), *values)
    assert all(out.dtype == dtype for out in outputs)
    gradients = pull(tuple(jnp.ones_like(out) for out in outputs))
    assert all(g.dtype == dtype and jnp.isfinite(g.astype(float)).all() for g in gradients)


def test_promotion_is_jaxs_own():
    A, b, lam = arrays()
    layer = quadratic()

    def dtype(*dtypes):
        return layer(*(v.astype(d) for v, d in zip((A, b, lam), dtypes, strict=True)))[0].dtype

    assert dtype("float32", "float64", "float64") == "float64"
    assert dtype("float32", "float32", "float64") == "float64"
    assert dtype("float16", "bfloat16", "float16") == "float32"
    assert dtype("float32", int, int) == "float32"
    assert dtype(int, int, int) == "float64"
    assert layer(A.astype("float32"), b.astype("float32"), 1.5)[0].dtype == "float32"  # a weak type yields
    with jax.enable_x64(False):
        assert layer(*QUADRATIC.values())[0].dtype == "float32"
        assert layer(np.ones((4, 3), int), np.ones(4, int), 1)[0].dtype == "float32"


def test_mixed_dtypes_have_gradients_of_their_own():
    A, b, lam = arrays(2)
    values = [A.astype("float32"), b, lam.astype("bfloat16")]
    gradients = jax.grad(lambda *v: quadratic()(*v)[0].sum(), (0, 1, 2))(*values)
    assert [g.dtype for g in gradients] == ["float32", "float64", "bfloat16"]
    # An integer takes no derivative.
    A, b = (v[0] for v in values[:2])
    assert jax.jvp(lambda b: quadratic()(A, b, 2)[0], (b,), (b,))[1].dtype == "float64"
    tangent = np.zeros((), jax.dtypes.float0)
    assert jax.jvp(quadratic(), (A, b, jnp.array(2)), (A, b, tangent))[1][0].shape == (3,)


def test_complex_and_real_values_of_complex_parameters():
    case = next(c for c in contract.CASES if c.name == "complex")
    layer = cj.CvxpyLayer(*case.state())
    C = jnp.asarray(case.values()[0])
    assert layer(C.astype("complex64"))[0].dtype == "complex64"
    gradient = jax.grad(lambda real: layer(real)[0].real.sum())(C.real)
    assert gradient.dtype == "float64"

    # As of a function that JAX writes itself: the gradient of |z|^2 is twice the conjugate.
    X, P = cp.Variable((2, 2), complex=True), cp.Parameter((2, 2), complex=True)
    identity = cj.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - P))), [P], [X])
    gradient = jax.grad(lambda C: (jnp.abs(identity(C)[0]) ** 2).sum())(C)
    np.testing.assert_allclose(gradient, 2 * C.conj(), rtol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(identity, holomorphic=True)(C)[0][0, 0, 0, 0], 1, rtol=1e-7)


def test_results_are_the_users_own():
    """Donated arrays share no memory with the solution that a derivative still needs."""
    layer, (A, b, lam) = quadratic(), arrays(2)
    outputs, pull = jax.vjp(layer, A, b, lam)
    ones = tuple(jnp.ones_like(out) for out in outputs)
    expected = pull(ones)
    overwrite = jax.jit(lambda *outputs: [0 * out for out in outputs], donate_argnums=(0, 1, 2, 3))
    overwrite(*outputs)
    assert all((a == e).all() for a, e in zip(pull(ones), expected, strict=True))


def test_donated_parameters():
    layer, values = quadratic(), arrays(2)

    def step(A, b, lam):
        gradients = jax.grad(lambda *v: layer(*v)[0].sum(), (0, 1, 2))(A, b, lam)
        return [v - 0.1 * g for v, g in zip((A, b, lam), gradients, strict=True)]

    expected = step(*values)
    given = [v.copy() for v in values]
    for got, exact in zip(jax.jit(step, donate_argnums=(0, 1, 2))(*given), expected, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-12)
    assert all(v.is_deleted() for v in given)


# ---------------------------------------------------------------------- what is kept


def count_rebuilt(monkeypatch):
    """Count solutions that are rebuilt from their state."""
    rebuilt = []
    resume = cd.CvxpyLayer.resume
    monkeypatch.setattr(cd.CvxpyLayer, "resume", lambda self, *args: rebuilt.append(1) or resume(self, *args))
    return rebuilt


@ADAPTERS
def test_a_backward_pass_solves_nothing_again(adapter, monkeypatch):
    layer, values = quadratic(), arrays(3)
    rebuilt, solved = count_rebuilt(monkeypatch), []
    solve = cd.CvxpyLayer.solve
    monkeypatch.setattr(
        cd.CvxpyLayer, "solve", lambda self, *a, **k: solved.append(1) or solve(self, *a, **k)
    )
    gradient = adapter.transform(jax.grad(lambda *v: layer(*v)[0].sum(), (0, 1, 2)))
    gradient(*values)
    assert (len(solved), len(rebuilt)) == (1, 0)
    rows = adapter.transform(jax.jacrev(lambda *v: layer(*v)[0][0], (0, 1)))
    rows(*values)
    assert (len(solved), len(rebuilt)) == (2, 0)


@pytest.mark.parametrize("x64", [False, True])
def test_a_solution_that_is_no_longer_kept_is_rebuilt(x64, monkeypatch):
    with jax.enable_x64(x64):
        layer, values = quadratic(), arrays(3)
        gradient = jax.grad(lambda *v: sum(jnp.sin(out).sum() for out in layer(*v)), (0, 1, 2))
        along = jax.jit(lambda *v: jax.jvp(gradient, v, v))
        expected = along(*values)
        rebuilt = count_rebuilt(monkeypatch)
        monkeypatch.setattr(kept.Kept, "find", lambda self, words: None)
        for got, exact in zip(jax.tree.leaves(along(*values)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, exact, rtol=1e-9 if x64 else 1e-5, atol=1e-7 if x64 else 1e-5)
        assert rebuilt


def test_a_solution_is_found_by_its_whole_state_only():
    solution = quadratic().numpy_layer.solve(*QUADRATIC.values((2, 3)))
    solutions = kept.Kept()
    words = solutions.keep(solution)
    for other in (words[:, ::-1], words[:1], words[:, :2], words[0], words.reshape(6, -1), 0 * words):
        assert solutions.find(other) is None
    assert solutions.find(words) is solution is solutions.find(words.copy())
    n, m = solution.result.x.shape[1], solution.result.y.shape[1]
    state = kept.from_words(words[:, ::-1], n, m)
    for part, exact in zip(state, solution.state, strict=True):
        np.testing.assert_array_equal(part.reshape(2, 3, -1)[:, ::-1], exact.reshape(2, 3, -1))
    assert (kept.from_words(0 * words, n, m)[-1] == 1).all()  # no solution


@pytest.mark.parametrize("fill", ["nan", "zero_grad"])
def test_failures_that_are_no_longer_kept(fill, monkeypatch):
    monkeypatch.setattr(kept.Kept, "find", lambda self, words: None)
    stated, values = contract.infeasible_in_row_one()
    layer = cj.CvxpyLayer(*stated, solver_args={"on_failure": fill})
    gradient = jax.jit(jax.grad(lambda p: layer(p)[0].sum()))(values[0])
    expected = np.nan if fill == "nan" else 0.0
    np.testing.assert_allclose(gradient, [[1, 1], [expected] * 2, [1, 1]], atol=1e-8)


def living_solutions(monkeypatch):
    """Return the solutions that were kept for a derivative and are still in memory."""
    living, keep = weakref.WeakSet(), kept.Kept.keep
    monkeypatch.setattr(kept.Kept, "keep", lambda self, new: living.add(new) or keep(self, new))
    return living


def test_compiled_code_keeps_a_bounded_number_of_solutions(monkeypatch):
    living, limit = living_solutions(monkeypatch), constants.MAX_UNREAD + constants.MAX_READ

    def run():
        layer, (A, b, lam) = quadratic(), arrays()

        def body(c, _):
            return c + 0.1 * (A @ layer(A, c, lam)[0]), None

        def loop(b):
            return jax.lax.scan(body, b, None, length=3 * constants.MAX_UNREAD)[0].sum()

        compiled = jax.jit(jax.grad(loop))
        step = jax.jit(jax.grad(lambda b: layer(A, b, lam)[0].sum()))
        first = compiled(b)
        for again in (compiled, step, step, compiled):
            last = again(b)
            gc.collect()
            assert 0 < len(living) <= limit
        np.testing.assert_allclose(last, first, rtol=1e-9)

    run()
    jax.clear_caches()
    gc.collect()
    assert not living


@pytest.mark.parametrize("transform", [jax.grad, lambda f: jax.vmap(jax.grad(f))], ids=["grad", "vmap"])
def test_eager_calls_keep_what_may_still_be_read(transform, monkeypatch):
    living = living_solutions(monkeypatch)
    layer, (A, b, lam) = quadratic(warm_start=True), arrays(2)

    def loss(b):
        return layer(A[0], b, lam[0])[0].sum()

    layer(A, b, lam)
    assert not living
    for _ in range(3):
        transform(loss)(b if transform is not jax.grad else b[0])
    gc.collect()
    assert not living
    outputs, pull = jax.vjp(layer, A, b, lam)
    gc.collect()
    assert len(living) == 1
    del outputs, pull
    gc.collect()
    assert not living


def test_jaxs_caches_do_not_keep_the_point_to_start_from():
    def run():
        layer, values = quadratic(), arrays(2)
        start = layer.numpy_layer.solve(*map(np.asarray, values))
        jax.grad(lambda *v: layer(*v, solver_args={"warm_start": start})[0].sum())(*values)
        assert (layer.info["iterations"] == 0).all()
        return weakref.ref(start)

    alive = run()
    gc.collect()
    assert alive() is None


def test_solver_args_that_have_no_hash():
    layer, values = quadratic(), arrays(2)
    with pytest.raises((TypeError, ValueError), match="eps"):
        layer(*values, solver_args={"eps": [1e-3]})


# ---------------------------------------------------------------------- errors and warnings


def test_errors_in_compiled_code():
    stated, values = contract.infeasible_in_row_one()
    layer = cj.CvxpyLayer(*stated)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"SolverError: .*infeasible"):
        jax.block_until_ready(jax.jit(layer)(*values))
    with pytest.raises(cd.SolverError, match="infeasible") as caught, cj.original_errors():
        jax.block_until_ready(jax.jit(layer)(*values))
    assert caught.value.indices == ((1,),)
    assert isinstance(caught.value.__cause__, jax.errors.JaxRuntimeError)

    @cj.original_errors()
    def step(p):
        return jax.block_until_ready(jax.jit(jax.grad(lambda p: layer(p)[0].sum()))(p))

    for _ in range(2):
        with pytest.raises(cd.SolverError):
            step(values[0])
    with pytest.raises(cd.ParameterError, match="not finite"):
        step(values[0] * np.nan)
    np.testing.assert_allclose(step(values[0][0]), [1, 1], atol=1e-8)


def test_other_errors_stay_as_they_are():
    def fail(x):
        raise ValueError("of somebody else")

    shape = jax.ShapeDtypeStruct((), jnp.result_type(float))
    with pytest.raises(jax.errors.JaxRuntimeError, match="somebody else"), cj.original_errors():
        jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(fail, shape, x))(1.0))
    with pytest.raises(KeyError), cj.original_errors():
        raise KeyError


@ADAPTERS
def test_warnings_reach_the_user(adapter):
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = cj.CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]), [c], [x])
    with pytest.warns(cd.DegeneracyWarning):
        adapter.vjp(layer, [np.array([1.0, 1.0])], [np.array([1.0, 0.0])])
    assert layer.numpy_layer is not None


# ---------------------------------------------------------------------- copies


def test_copies_solve_on_their_own():
    layer, values = quadratic(), arrays()
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other == layer and hash(other) == hash(layer)
        assert jax.tree.structure(other) == jax.tree.structure(layer)
        for one, two in zip(other(*values), layer(*values), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9)
    assert quadratic() != layer and layer != 1
    assert "param" in repr(layer) and repr(layer).startswith("CvxpyLayer(")


def test_doctests():
    for name in ("functional", "layer", "_errors"):
        module = importlib.import_module(f"conediff_jax.{name}")
        with jax.enable_x64(False):
            assert doctest.testmod(module).failed == 0
