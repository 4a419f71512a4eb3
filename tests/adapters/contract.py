"""What every adapter owes, stated without any framework: problems, and the NumPy layer as the oracle.

A test module of an adapter provides an `Adapter` and calls the checks with it: those that take a case for
each of `CASES`, and all of `CHECKS`, or `CHECKS_OF_ANY` if the framework turns errors into its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conediff as cd
from tests.adapters.cases import CASES as CASES
from tests.adapters.cases import LINE, QUADRATIC, Array, Case, Stated


class Adapter(Protocol):
    """How a framework builds a layer and calls it, with arrays in and arrays out.

    ``package`` is the module that users import, ``conediff.torch`` for instance.
    """

    package: Any

    def layer(self, problem: Any, parameters: Any, variables: Any, **options: Any) -> Any:
        """Build the framework's layer."""

    def call(self, layer: Any, values: Sequence[Array], **options: Any) -> Any:
        """Call the layer; the values' dtypes are to be kept. Return arrays as `in_place_of_tensors` does."""

    def vjp(
        self, layer: Any, values: Sequence[Array], cotangents: Sequence[Array], **options: Any
    ) -> tuple[Array, ...]:
        """Differentiate the sum of the products of the outputs and the cotangents (of their real parts)."""

    def jvp(
        self, layer: Any, values: Sequence[Array], tangents: Sequence[Array], **options: Any
    ) -> tuple[Array, ...]:
        """Differentiate the outputs in the direction of the tangents, in forward mode."""


class TwiceDifferentiable(Adapter, Protocol):
    """An adapter that differentiates twice."""

    def second(
        self, mode: str, layer: Any, values: Sequence[Array], cotangents: Sequence[Array], tangents: Any
    ) -> tuple[Array, ...]:
        """Differentiate the gradient of `vjp` in the direction of the tangents.

        ``mode`` is one of `SECOND_MODES`; "reverse over reverse" differentiates the gradient's product with
        the tangents, "reverse over forward" the product of the outputs' tangents with the cotangents.
        """


SECOND_MODES = ("reverse over reverse", "forward over reverse", "reverse over forward")


# ---------------------------------------------------------------------- checks against the NumPy layer


def cotangents_of(solution: cd.LayerSolution, seed: int = 1) -> list[Array]:
    """Draw a cotangent for every value of a solution."""
    return _normal_like(solution.values, seed)


def _normal_like(arrays: Sequence[Array], seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    draws = [rng.standard_normal((2, *array.shape)) for array in arrays]
    return [
        draw[0] + 1j * draw[1] if np.iscomplexobj(array) else draw[0]
        for draw, array in zip(draws, arrays, strict=True)
    ]


def _check_solution(
    adapter: Adapter, layer: Any, values: Sequence[Array], solution: cd.LayerSolution
) -> None:
    """Values, gradients, and tangents are those of the NumPy layer's solution."""
    _equal(adapter.call(layer, values), solution.values)
    cotangents = cotangents_of(solution)
    _equal(adapter.vjp(layer, values, cotangents), solution.vjp(*cotangents))
    tangents = _normal_like(values, seed=2)
    _equal(adapter.jvp(layer, values, tangents), solution.jvp(*tangents))


def check_against_oracle(adapter: Adapter, case: Case, batch: tuple[int, ...]) -> None:
    """Values and derivatives in both modes are the NumPy layer's."""
    layer, oracle = case.build(adapter)
    values = case.values(batch)
    _check_solution(adapter, layer, values, oracle.solve(*values))


def check_second(adapter: TwiceDifferentiable, case: Case, batch: tuple[int, ...], mode: str) -> None:
    """Second derivatives are differences of the NumPy layer's first ones."""
    layer, oracle = case.build(adapter, solver_args={"tol": 1e-13})
    values = case.values(batch)
    cotangents = cotangents_of(oracle.solve(*values))
    # The difference of two samples keeps the structure of symmetric and diagonal parameters.
    tangents = [a - b for a, b in zip(case.values(batch, 5), case.values(batch, 6), strict=True)]

    def gradient(step: float) -> tuple[Array, ...]:
        moved = [v + step * t for v, t in zip(values, tangents, strict=True)]
        return oracle.solve(*moved).vjp(*cotangents)

    steps = (1e-4, 2e-4)
    near, far = ([(a - b) / (2 * h) for a, b in zip(gradient(h), gradient(-h), strict=True)] for h in steps)
    expected = [(4 * a - b) / 3 for a, b in zip(near, far, strict=True)]
    got = adapter.second(mode, layer, values, cotangents, tangents)
    scale = max(np.abs(e).max() for e in expected)
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        np.testing.assert_allclose(g, e, rtol=1e-6, atol=1e-7 * scale)


def check_broadcasting(adapter: Adapter) -> None:
    """Dimensions of 1 broadcast, parameters without any are shared; gradients have the shapes passed."""
    layer, oracle = QUADRATIC.build(adapter)
    A, b, lam = QUADRATIC.values()
    values = [A, np.stack([b, 2 * b])[:, None], np.array([[lam, 2 * lam, 3 * lam]])]
    solution = oracle.solve(*values)
    assert solution.batch == (2, 3)
    _check_solution(adapter, layer, values, solution)


def check_leading_dimensions(adapter: Adapter) -> None:
    """Parameters have equally many leading dimensions, or none; else an error with the squeeze that helps."""
    layer, _ = LINE.build(adapter)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.tuples(*[st.lists(st.sampled_from((1, 2, 3)), max_size=2).map(tuple)] * 2))
    def law(leads: tuple[tuple[int, ...], ...]) -> None:
        p, q = LINE.values()
        values = [np.broadcast_to(p, leads[0]), np.broadcast_to(q, (*leads[1], 2))]
        batch = goes_together(*leads)
        if batch is not None:
            assert adapter.call(layer, values)[0].shape == (*batch, 2)
            return
        with pytest.raises(ValueError, match="Inconsistent batch sizes") as caught:
            adapter.call(layer, values)
        assert all(str(value.shape) in str(caught.value) for value in values)
        for axis, name in re.findall(r"axis (\d) of '(\w)'", str(caught.value)):
            k = "pq".index(name)
            values[k] = values[k].squeeze(int(axis))
            adapter.call(layer, values)

    law()


def goes_together(*leads: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the batch shape of parameters with these leading dimensions; None if there is none."""
    some = [lead for lead in leads if lead]
    if len({len(lead) for lead in some}) > 1:
        return None
    try:
        return np.broadcast_shapes(*some)
    except ValueError:
        return None


def check_empty_batch(adapter: Adapter) -> None:
    """A batch of no elements gives empty outputs and gradients."""
    layer, oracle = QUADRATIC.build(adapter)
    A, _, lam = QUADRATIC.values()
    values = [A, np.zeros((0, 4)), lam]
    outputs = adapter.call(layer, values)
    assert [o.shape for o in outputs] == [(0, *spec.shape) for spec in oracle.outputs]
    gradients = adapter.vjp(layer, values, [np.zeros(o.shape) for o in outputs])
    _equal(gradients, [np.zeros((4, 3)), np.zeros((0, 4)), np.zeros(())])


def check_dtype(adapter: Adapter, dtype: Any, rtol: float) -> None:
    """Outputs and gradients have the dtype of the parameters; inside, everything is in double precision."""
    layer, oracle = QUADRATIC.build(adapter)
    values = [value.astype(dtype) for value in QUADRATIC.values((2,))]
    solution = oracle.solve(*(value.astype(np.float64) for value in values))
    outputs = adapter.call(layer, values)
    cotangents = [np.ones(value.shape, dtype) for value in solution.values]
    gradients = adapter.vjp(layer, values, cotangents)
    expected = solution.vjp(*(cotangent.astype(np.float64) for cotangent in cotangents))
    for got, exact in zip((*outputs, *gradients), (*solution.values, *expected), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(np.float64), exact, rtol=rtol, atol=rtol)


def infeasible_in_row_one() -> tuple[Stated, list[Array]]:
    """Case I: minimise the norm above p, below a sum; row 1 cannot."""
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    return (problem, [p], [x]), [np.array([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]])]


def check_failures(adapter: Adapter) -> None:
    """An infeasible element raises, or is NaN with NaN or zero gradient; the others are exact."""
    stated, values = infeasible_in_row_one()
    layer = adapter.layer(*stated)
    with pytest.raises(cd.SolverError) as caught:
        adapter.call(layer, values)
    assert caught.value.indices == ((1,),) and caught.value.statuses == ("infeasible",)
    for answer, fill in (("nan", np.nan), ("zero_grad", 0.0), (lambda solution: "nan", np.nan)):
        (x,) = adapter.call(layer, values, solver_args={"on_failure": answer})
        np.testing.assert_allclose(x, [[0.1, 0.2], [np.nan] * 2, [0.3, 0.1]], atol=1e-8)
        (g,) = adapter.vjp(layer, values, [np.ones((3, 2))], solver_args={"on_failure": answer})
        np.testing.assert_allclose(g, [[1, 1], [fill] * 2, [1, 1]], atol=1e-8)
        assert layer.info["status"].tolist() == ["solved", "infeasible", "solved"]


class Counting(ThreadPoolExecutor):
    """Threads that count their jobs."""

    jobs = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.jobs += 1
        return super().submit(fn, *args, **kwargs)


def check_executor(adapter: Adapter) -> None:
    """An executor solves and differentiates, given to the layer or to the call; results are the same."""
    plain, _ = QUADRATIC.build(adapter)
    values = QUADRATIC.values((70,))
    outputs = adapter.call(plain, values)
    cotangents = [np.ones(output.shape) for output in outputs]
    gradients = adapter.vjp(plain, values, cotangents)
    with Counting(2) as executor:
        given = {"solver_args": {"executor": executor}}
        own = adapter.layer(*QUADRATIC.state(), **given)
        for layer, options in ((own, {}), (plain, given)):
            executor.jobs = 0
            _equal(adapter.call(layer, values, **options), outputs)
            forward, executor.jobs = executor.jobs, 0
            _equal(adapter.vjp(layer, values, cotangents, **options), gradients)
            assert 1 < forward < executor.jobs  # which solved once more, and differentiated


def check_projection(adapter: Adapter) -> None:
    """Case H: projection onto a polytope, with its closed form."""
    x, c = cp.Variable(2), cp.Parameter(2)
    constraints = [x[0] - 2 * x[1] + 2 >= 0, -x[0] - 2 * x[1] + 6 >= 0, -x[0] + 2 * x[1] + 2 >= 0]
    layer = adapter.layer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints), [c], [x])
    values = [np.array([1.0, 2.5])]
    np.testing.assert_allclose(adapter.call(layer, values)[0], [1.4, 1.7], atol=1e-8)
    rows = [adapter.vjp(layer, values, [row])[0] for row in np.eye(2)]
    np.testing.assert_allclose(rows, [[0.8, 0.4], [0.4, 0.2]], atol=1e-8)


def check_dual_gradient(adapter: Adapter) -> None:
    """Case C: the multipliers of a least-norm problem, and their gradient in b, -(AA')^-1."""
    rng = np.random.default_rng(3)
    x, A, b = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x)), [A @ x == b])
    layer = adapter.layer(problem, [A, b], [problem.constraints[0].dual_variables[0]])
    values = [rng.standard_normal((2, 3)), rng.standard_normal(2)]
    inverse = np.linalg.inv(values[0] @ values[0].T)
    np.testing.assert_allclose(adapter.call(layer, values)[0], -inverse @ values[1], rtol=1e-8)
    rows = [adapter.vjp(layer, values, [row])[1] for row in np.eye(2)]
    np.testing.assert_allclose(rows, -inverse, rtol=1e-8)


def check_additivity(adapter: Adapter) -> None:
    """Case B: where an iterative solver stops early, gradients add up and are those of the dense method.

    Smaller here than in the case itself: the dense method takes its time.
    """
    rng = np.random.default_rng(0)
    N, M = 60, 30
    L, d = rng.standard_normal((N, M)), rng.random(N)
    d[: N // 2] *= 0.1
    d[N // 2 :] *= 10
    v, q, p = cp.Variable(N), cp.Parameter(N), cp.Parameter(N)
    quadratic = 0.5 * cp.sum_squares(L.T @ v) + 0.5 * cp.sum_squares(np.diag(d) @ v)
    objective = quadratic + 50 * cp.sum_squares(v - q) - v @ p
    problem = cp.Problem(cp.Minimize(objective), [cp.abs(v) <= 0.1, cp.norm1(v) <= 10])
    layer = adapter.layer(problem, [q, p], [v])
    values = [np.zeros(N), 5 * rng.standard_normal(N)]
    w1, w2 = rng.standard_normal((2, N))
    parts = [adapter.vjp(layer, values, [w]) for w in (w1, w2, w1 + w2)]
    dense = cd.CvxpyLayer(problem, [q, p], [v], solver_args={"method": "dense"})
    for one, other, both, exact in zip(*parts, dense.solve(*values).vjp(w1 + w2), strict=True):
        scale = np.abs(both).max()
        np.testing.assert_allclose(one + other, both, atol=1e-10 * scale)
        np.testing.assert_allclose(both, exact, atol=1e-8 * scale)


def check_loss_scaling(adapter: Adapter) -> None:
    """Case D: the gradient is linear in the loss, down to the smallest scales."""
    layer, oracle = QUADRATIC.build(adapter)
    values = QUADRATIC.values()
    cotangents = cotangents_of(oracle.solve(*values))
    reference = adapter.vjp(layer, values, cotangents)
    for scale in (1e-4, 1e-8, 1e-12):
        scaled = adapter.vjp(layer, values, [scale * g for g in cotangents])
        for got, expected in zip(scaled, reference, strict=True):
            np.testing.assert_allclose(got / scale, expected, rtol=1e-8)


def check_linear_program(adapter: Adapter) -> None:
    """Case J: the vertex of a linear program does not move; smoothed, it does."""
    w, e, gamma = cp.Variable(3), cp.Parameter(3), 0.1
    constraints = [cp.sum(w) == 1, w >= 0]
    values = [np.array([0.1, 0.2, -0.1])]
    layer = adapter.layer(cp.Problem(cp.Maximize(e @ w), constraints), [e], [w])
    np.testing.assert_allclose(adapter.call(layer, values)[0], [0, 1, 0], atol=1e-8)
    np.testing.assert_allclose(adapter.vjp(layer, values, [np.arange(3.0)])[0], 0, atol=1e-8)
    smooth = cp.Problem(cp.Maximize(e @ w - gamma * cp.sum_squares(w)), constraints)
    layer = adapter.layer(smooth, [e], [w])
    assert np.abs(adapter.vjp(layer, values, [np.arange(3.0)])[0]).max() > 0.1


# ---------------------------------------------------------------------- what calls take and return


def in_place_of_tensors(result: Any) -> Any:
    """Return a tuple of arrays for a tuple of tensors, an array for a tensor."""
    return tuple(map(np.asarray, result)) if isinstance(result, tuple) else np.asarray(result)


def check_returns(adapter: Adapter) -> None:
    """A call returns a tuple; with ``single_output``, and of an `OptLayer` of one variable, the output."""
    x, y, p = cp.Variable(2), cp.Variable(), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.square(y)), [x >= 0])
    values, tol = [np.array([1.0, -1.0])], {"tol": 1e-9}
    (alone,) = adapter.call(adapter.layer(problem, [p], [x]), values)
    OptLayer = adapter.package.OptLayer
    own = adapter.layer(problem, [p], [x], single_output=True)
    opt = OptLayer([x], [p], lambda x, p: cp.sum_squares(x - p), [lambda x, p: -x], [], **tol)
    for layer in (own, opt):
        found = adapter.call(layer, values)
        assert isinstance(found, np.ndarray) and found.shape == (2,)
        np.testing.assert_allclose(found, alone, atol=1e-8)
    equal = [lambda x, y, p: y - cp.sum(x)]
    pair = OptLayer([x, y], [p], lambda x, y, p: cp.sum_squares(x - p), equalities=equal, **tol)
    np.testing.assert_allclose(np.hstack(adapter.call(pair, values)), [1, -1, 0], atol=1e-8)
    with pytest.raises(ValueError, match="single_output: the layer returns 2 variables, not one"):
        adapter.layer(problem, [p], [x, y], single_output=True)
    with pytest.raises(TypeError, match="unknown solver argument"):
        OptLayer([x], [p], lambda x, p: cp.sum_squares(x - p), epz=1)
    empty = adapter.layer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), [], [x])
    np.testing.assert_allclose(adapter.call(empty, []), [[1, 1]], atol=1e-6)


def check_solver_args(adapter: Adapter) -> None:
    """Solver arguments of a call override the layer's; `info` says what came of them, for each element."""
    layer = adapter.layer(*QUADRATIC.state(), solver_args={"refine": False, "tol": 1e-3})
    values = QUADRATIC.values((2, 3))
    adapter.call(layer, values)
    assert (layer.info["refinements"] == 0).all()
    adapter.call(layer, values, solver_args={"refine": True, "tol": 1e-10})
    assert (layer.info["refinements"] > 0).all() and (layer.info["residual"] <= 1e-10).all()
    assert layer.info["status"].shape == (2, 3) and (layer.info["status"] == "solved").all()


def check_warm_start(adapter: Adapter) -> None:
    """A warm start takes the last solution of the same batch shape."""
    layer = adapter.layer(*QUADRATIC.state(), solver_args={"warm_start": True})
    values = QUADRATIC.values((4,))
    cold = adapter.call(layer, values)
    adapter.call(layer, QUADRATIC.values((2,)))
    warm = adapter.call(layer, values)
    assert (layer.info["iterations"] == 0).all()
    _equal(warm, cold)


def check_functional(adapter: Adapter) -> None:
    """`functional.solve` is the layer as a function, and returns a tuple; it takes a NumPy layer only."""
    layer, solve = adapter.layer(*QUADRATIC.state()), adapter.package.functional.solve
    values = QUADRATIC.values((2,))
    found = adapter.call(partial(solve, layer.numpy_layer), values)
    for one, other in zip(found, adapter.call(layer, values), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match=f"of a {adapter.package.__name__} layer, its numpy_layer"):
        adapter.call(partial(solve, layer), values)
    alone = adapter.layer(*LINE.state(), single_output=True).numpy_layer
    assert isinstance(alone(*LINE.values()), np.ndarray)
    assert isinstance(adapter.call(partial(solve, alone), LINE.values()), tuple)


def check_constructor(adapter: Adapter) -> None:
    """Both orders of arguments that cvxpylayers has had: gp fourth, and solver, gp."""
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(a / x + x))
    for order in ((True,), (None, True)):
        layer = adapter.package.CvxpyLayer(problem, [a], [x], *order)
        np.testing.assert_allclose(adapter.call(layer, [np.array(4.0)])[0], 2, rtol=1e-8)


# ---------------------------------------------------------------------- bad input

_A, _B, _LAM = np.ones((4, 3)), np.ones(4), np.ones(())
# What is passed to the quadratic case, the error, and what its message says.
BAD_CALLS: tuple[tuple[str, list[Any], type[Exception], str], ...] = (
    ("too few", [_A, _B], ValueError, r"A tensor must be provided for each CVXPY parameter; received 2 t.*3"),
    ("too many", [_A, _B, _LAM, _LAM], ValueError, "received 4 tensors, expected 3"),
    ("shape", [_A, np.ones(5), _LAM], ValueError, "Invalid parameter shape"),
    ("dimensionality", [np.ones(3), _B, _LAM], ValueError, "Invalid parameter dimensionality"),
    ("batch", [np.ones((2, 4, 3)), np.ones((3, 4)), _LAM], ValueError, "Inconsistent batch sizes"),
    ("nan", [_A, np.array([1, 1, np.nan, 1]), _LAM], cd.ParameterError, r"not finite: .*\[2\] is nan"),
    ("inf", [_A, _B, np.array(np.inf)], cd.ParameterError, "not finite"),
    ("attribute", [_A, _B, np.array(-1.0)], cd.ParameterError, "declared nonneg"),
)


def check_no_values(adapter: Adapter) -> None:
    """None, mappings and unknown solver arguments are refused, by name and with advice."""
    layer = adapter.layer(*QUADRATIC.state())
    name = layer.numpy_layer.parameters[1].name

    def call(wrong: Any) -> None:
        adapter.call(lambda A, b, lam: layer(A, wrong, lam), QUADRATIC.values())

    for error in (AttributeError, cd.ParameterError):  # cvxpylayers' error, and ours
        with pytest.raises(error, match=f"{name!r} is None: pass a"):
            call(None)
    with pytest.raises(TypeError, match=f"{name!r} .* is a dict: pass solver_args by name"):
        call({"eps": 1e-8})
    with pytest.raises(TypeError, match="unknown solver argument 'epz'"):
        adapter.call(layer, QUADRATIC.values(), solver_args={"epz": 1})


def check_no_arrays(adapter: Adapter) -> None:
    """Of frameworks that convert what is passed: what does not become an array is refused, by name."""
    layer = adapter.layer(*QUADRATIC.state())
    name = layer.numpy_layer.parameters[1].name
    for wrong, error, message in (
        ("text", TypeError, "must be an array of numbers"),
        (object(), TypeError, "must be an array of numbers"),
        ([[1.0], [1.0, 2.0]], ValueError, "parts have different shapes"),
    ):
        with pytest.raises(error, match=f"{name!r} .*{message}"):
            adapter.call(partial(lambda wrong, A, lam: layer(A, wrong, lam), wrong), QUADRATIC.values()[::2])


def bad_constructions() -> list[tuple[str, Callable[[Adapter], Any], type[Exception], str]]:
    """What is built, the error, and what its message says."""
    x, p, other = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    good = cp.Problem(cp.Minimize(cp.sum_squares(x - p)))
    bad = cp.Problem(cp.Minimize(cp.sum_squares(x - cp.multiply(p, p))))
    concave = cp.Problem(cp.Minimize(cp.sum(cp.multiply(p, cp.abs(x)))))
    return [
        ("parameters", lambda a: a.layer(good, [other], [x]), ValueError, "exactly match problem.parameters"),
        ("variables", lambda a: a.layer(good, [p], [cp.Variable()]), ValueError, "a subset of problem.var"),
        ("argument", lambda a: a.layer(good, [p], [x, other]), ValueError, "Argument `variables`"),
        ("list", lambda a: a.layer(good, p, [x]), ValueError, "must be provided as a list or tuple"),
        ("dpp", lambda a: a.layer(bad, [p], [x]), cd.DPPError, r"Problem must be DPP\."),
        ("dpp first", lambda a: a.layer(bad, [other], [other]), cd.DPPError, r"^Problem must be DPP\."),
        (
            "no dcp",
            lambda a: a.layer(concave, [], [p]),
            cd.ProblemError,
            r"^Problem must be DPP\..* be DCP \(convex",
        ),
        (
            "dgp",
            lambda a: a.layer(bad, [p], [x], gp=True),
            cd.ProblemError,
            "^Problem must be DPP for geometric p",
        ),
        ("name", lambda a: a.layer(good, [p], [x], solver_args={"epz": 1}), TypeError, "unknown solver arg"),
    ]


# Of every adapter, in graphs too.
CHECKS_OF_ANY = (
    check_broadcasting,
    check_leading_dimensions,
    check_empty_batch,
    check_executor,
    check_projection,
    check_dual_gradient,
    check_additivity,
    check_loss_scaling,
    pytest.param(
        check_linear_program, marks=pytest.mark.filterwarnings("ignore::conediff.DegeneracyWarning")
    ),
    check_returns,
    check_solver_args,
    check_warm_start,
)
# Of adapters that raise the core's errors and have ``functional.solve``.
CHECKS = (*CHECKS_OF_ANY, check_failures, check_functional, check_constructor, check_no_values)


def _equal(got: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        np.testing.assert_allclose(g, e, rtol=1e-9, atol=1e-10)
