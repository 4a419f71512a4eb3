"""The Keras layer against the adapters' contract, eagerly and in a graph."""

from __future__ import annotations

import numpy as np
import pytest

import conediff as cd
from tests.adapters import contract
from tests.adapters.on_tensorflow import CvxpyLayer, conediff_tensorflow, tf


class Eager:
    """The layer called eagerly."""

    package = conediff_tensorflow

    def layer(self, problem, parameters, variables, **options):
        return CvxpyLayer(problem, parameters, variables, **options)

    def call(self, layer, values, **options):
        return contract.in_place_of_tensors(layer(*map(tf.constant, values), **options))

    def vjp(self, layer, values, cotangents, **options):
        tensors = [tf.constant(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = layer(*tensors, **options)
        return self._numbers(tape.gradient(outputs, tensors, [tf.constant(g) for g in cotangents]))

    def jvp(self, layer, values, tangents, **options):
        tensors, tangents = ([tf.constant(array) for array in arrays] for arrays in (values, tangents))
        return self._numbers(self._pushed(lambda *ts: layer(*ts, **options), tensors, tangents))

    def _pushed(self, function, tensors, tangents):
        with tf.autodiff.ForwardAccumulator(tensors, tangents) as accumulator:
            outputs = function(*tensors)
        return [accumulator.jvp(output) for output in outputs]

    def second(self, mode, layer, values, cotangents, tangents):
        tensors, *given = ([tf.constant(a) for a in arrays] for arrays in (values, cotangents, tangents))
        return self._numbers(self._second(mode, layer, tensors, *given))

    def _second(self, mode, function, tensors, cotangents, tangents):
        def gradient(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs = function(*tensors)
            return tape.gradient(outputs, tensors, cotangents)

        if mode == "forward over reverse":
            return self._pushed(gradient, tensors, tangents)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            if mode == "reverse over reverse":
                found, weights = gradient(*tensors), tangents
            else:
                found, weights = self._pushed(function, tensors, tangents), cotangents
        return tape.gradient(found, tensors, weights)

    def _numbers(self, tensors):
        return tuple(np.asarray(tensor) for tensor in tensors)


class Graph(Eager):
    """The layer inside ``tf.function``, the tape too or outside."""

    def __init__(self, inside: bool) -> None:
        self.inside = inside

    def call(self, layer, values, **options):
        function = tf.function(lambda *tensors: layer(*tensors, **options), autograph=False)
        return contract.in_place_of_tensors(function(*map(tf.constant, values)))

    def vjp(self, layer, values, cotangents, **options):
        def gradient(function, tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs = function(*tensors)
            return tape.gradient(outputs, tensors, [tf.constant(g) for g in cotangents])

        tensors = [tf.constant(value) for value in values]
        if self.inside:
            call = lambda *ts: layer(*ts, **options)  # noqa: E731
            return self._numbers(tf.function(lambda *ts: gradient(call, ts), autograph=False)(*tensors))
        return self._numbers(
            gradient(tf.function(lambda *ts: layer(*ts, **options), autograph=False), tensors)
        )

    def _second(self, mode, function, tensors, cotangents, tangents):
        second = super()._second
        if self.inside:
            whole = lambda ts, gs, ds: second(mode, function, ts, gs, ds)  # noqa: E731
            return tf.function(whole, autograph=False)(tensors, cotangents, tangents)
        return second(mode, tf.function(function, autograph=False), tensors, cotangents, tangents)

    def _pushed(self, function, tensors, tangents):
        pushed = super()._pushed
        if self.inside:
            both = tf.function(lambda ts, tangents: pushed(function, ts, tangents), autograph=False)
            return both(tensors, tangents)
        return pushed(tf.function(function, autograph=False), tensors, tangents)


EAGER = Eager()
MODES = {"eager": EAGER, "graph": Graph(False), "graph with tape": Graph(True)}


@pytest.fixture(params=MODES.values(), ids=list(MODES))
def adapter(request):
    return request.param


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_against_oracle(adapter, case, batch):
    contract.check_against_oracle(adapter, case, batch)


@pytest.mark.parametrize("mode", contract.SECOND_MODES)
@pytest.mark.parametrize("case", contract.CASES, ids=str)
def test_second_derivatives(adapter, case, mode):
    if adapter is MODES["graph"] and mode == "reverse over forward":
        # TensorFlow cannot do this around a tf.function, not with tf.exp inside either.
        with pytest.raises((AssertionError, tf.errors.OpError)):
            contract.check_second(adapter, case, (2,), mode)
        return
    contract.check_second(adapter, case, (2,), mode)


@pytest.mark.parametrize("check", contract.CHECKS_OF_ANY, ids=lambda check: check.__name__)
def test_contract(adapter, check):
    check(adapter)


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [("float64", 1e-9), ("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)],
)
def test_dtype(adapter, dtype, rtol):
    contract.check_dtype(adapter, tf.as_dtype(dtype).as_numpy_dtype, rtol)


def test_failures():
    contract.check_failures(EAGER)


@pytest.mark.parametrize("bad", contract.BAD_CALLS, ids=lambda bad: bad[0])
def test_bad_calls(bad):
    _, values, error, message = bad
    layer, _ = contract.QUADRATIC.build(EAGER)
    with pytest.raises(error, match=message):
        EAGER.call(layer, values)
    kind = error if error is ValueError else tf.errors.InvalidArgumentError
    with pytest.raises(kind, match=message):
        MODES["graph"].call(layer, values)


@pytest.mark.parametrize("bad", contract.bad_constructions(), ids=lambda bad: bad[0])
def test_bad_constructions(bad):
    _, build, error, message = bad
    with pytest.raises(error, match=message):
        build(EAGER)


def test_failures_in_a_graph():
    """TensorFlow wraps the error, and keeps its message; the answers are the eager ones."""
    (problem, parameters, variables), values = contract.infeasible_in_row_one()
    layer, graph = CvxpyLayer(problem, parameters, variables), MODES["graph"]
    with pytest.raises(tf.errors.UnknownError, match=r"SolverError: 1 of 3 .*1 \(infeasible\)"):
        graph.call(layer, values)
    for mode in (MODES["graph"], MODES["graph with tape"]):
        for answer, fill in (("nan", np.nan), ("zero_grad", 0.0), (lambda solution: "zero_grad", 0.0)):
            options = {"solver_args": {"on_failure": answer}}
            np.testing.assert_allclose(mode.call(layer, values, **options)[0][1], [np.nan] * 2)
            (g,) = mode.vjp(layer, values, [np.ones((3, 2))], **options)
            np.testing.assert_allclose(g, [[1, 1], [fill] * 2, [1, 1]], atol=1e-8)
            assert layer.info["status"].tolist() == ["solved", "infeasible", "solved"]
    assert isinstance(layer._core, cd.CvxpyLayer)
