"""A self-test for whoever installs conediff: are solutions and gradients right on this machine?

Each check solves something small whose solution and derivative are known, and returns its errors. It is no
substitute for the test suite; it finds what differs between machines: builds of SCS, QDLDL, BLAS and cvxpy,
threads, frameworks.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np

from conediff.cli.check_cones import CASES, cone_errors
from conediff.cli.info import FRAMEWORKS, Framework
from conediff.errors import ConediffWarning, DegeneracyWarning
from conediff.layer.layer import CvxpyLayer
from conediff.program import Array

# Relative to the largest entry of what is known. At default settings errors are far below.
TOLERANCE = 1e-7
Errors = Mapping[str, float]


def main() -> bool:
    """Run all checks; print a line for each, and the verdict; return whether all passed."""
    print(f"conediff checks itself: errors relative to what is known, at most {TOLERANCE:g}\n")
    start, failed, worst, count = time.perf_counter(), [], 0.0, 0
    for name, check in checks():
        count += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConediffWarning)
                errors = check()
        except Exception as error:  # whatever goes wrong is what we are here to report
            failed.append(name)
            print(f"FAIL  {name}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
            continue
        good = all(error <= TOLERANCE for error in errors.values())  # not so if one is NaN
        if not good:
            failed.append(name)
        worst = max(worst, *errors.values())
        said = ", ".join(f"{what} {error:.1e}" if error else f"{what} 0" for what, error in errors.items())
        print(f"{'ok  ' if good else 'FAIL'}  {name}: {said}", flush=True)
    for framework in FRAMEWORKS:
        if not framework.installed:
            print(f"--    {framework.name}: not installed, so not checked; {framework.advice}")
    print(f"\n{_verdict(failed, count, worst, time.perf_counter() - start)}")
    return not failed


def _verdict(failed: list[str], count: int, worst: float, seconds: float) -> str:
    if not failed:
        return (
            f"This installation gives right answers: all {count} checks passed in {seconds:.0f} seconds, "
            f"largest error {worst:.1e}."
        )
    return (
        f"This installation gives WRONG answers, or none: {len(failed)} of {count} checks failed "
        f"({'; '.join(failed)}).\n"
        "Do not rely on its gradients. Try again in a fresh environment (python -m venv) with nothing else\n"
        "in it; if that does not help, report these lines and the output of: python -m conediff info"
    )


def checks() -> Iterator[tuple[str, Callable[[], Errors]]]:
    """All checks for which the packages are there, with their names."""
    for case in CASES:
        yield case.name, partial(cone_errors, case)
    yield "quadratic form with a PSD parameter", quadratic_form
    yield "dual variable and optimal value", dual_and_value
    yield "geometric program", geometric_program
    yield "all cones together, against differences", differences
    yield "infeasible element in a batch", infeasible_element
    yield "no derivative: a warning, and least squares", kink
    yield "threads: the same digits as one thread", threads
    for framework in FRAMEWORKS:
        if framework.installed:
            run = through_torch if framework.package == "torch" else through_keras
            yield f"{framework.name}: a gradient beside NumPy's", partial(run, framework)


def relative(found: Any, exact: Any) -> float:
    """Largest error relative to the largest entry; NaN if something found is NaN."""
    found, exact = np.asarray(found, dtype=float), np.asarray(exact, dtype=float)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def quadratic_form() -> Errors:
    """The minimiser of x'Px / 2 - 1'x is P^-1 1."""
    x, P = cp.Variable(2), cp.Parameter((2, 2), PSD=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, P) / 2 - cp.sum(x))), [P], [x])
    value, w = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -2.0])
    solution, exact = layer.solve(value), np.linalg.solve(value, np.ones(2))
    pulled = -np.outer(np.linalg.solve(value, w), exact)
    gradient = relative(solution.vjp(w)[0], (pulled + pulled.T) / 2)
    return {"value": relative(solution.values[0], exact), "gradient": gradient}


def dual_and_value() -> Errors:
    """Of |x|^2 with 1'x = b: x = b / n, the dual is -2 b / n, and the value b^2 / n."""
    x, b = cp.Variable(4), cp.Parameter()
    total = cp.sum(x) == b
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [total])
    solution = CvxpyLayer(problem, [b], [total.dual_variables[0], problem.objective]).solve(3.0)
    return {
        "value": relative(solution.values, [-1.5, 2.25]),
        "gradient": relative([solution.vjp(1.0, None)[0], solution.vjp(None, 1.0)[0]], [-0.5, 1.5]),
    }


def geometric_program() -> Errors:
    """The minimiser of x + c / x is the root of c."""
    x, c = cp.Variable(pos=True), cp.Parameter(pos=True)
    solution = CvxpyLayer(cp.Problem(cp.Minimize(x + c / x)), [c], [x], gp=True).solve(4.0)
    return {"value": relative(solution.values[0], 2.0), "gradient": relative(solution.vjp(1.0)[0], 0.25)}


def _mixed() -> tuple[CvxpyLayer, Array]:
    """A problem with most cones in it, and a batch of its parameter."""
    x, X, c = cp.Variable(3), cp.Variable((2, 2), symmetric=True), cp.Parameter(3)
    objective = cp.sum_squares(x - c) + cp.norm(x - 1) + cp.sum(cp.exp(x)) + cp.lambda_max(X)
    problem = cp.Problem(
        cp.Minimize(objective + cp.sum(cp.power(x + 3, 1.7))), [cp.sum(x) == 1, X >> cp.diag(x[:2]), x <= 2]
    )
    return CvxpyLayer(problem, [c], [x]), np.random.default_rng(0).standard_normal((96, 3))


def differences() -> Errors:
    """Both modes against differences of fourth order along a direction."""
    layer, values = _mixed()
    values = values[:4]
    rng, h = np.random.default_rng(1), 1e-3
    direction, w = rng.standard_normal(values.shape), rng.standard_normal(values.shape)
    along = {k: layer(values + k * h * direction)[0] for k in (-2, -1, 1, 2)}
    slope = (8 * (along[1] - along[-1]) - (along[2] - along[-2])) / (12 * h)
    solution = layer.solve(values)
    (g,), (pushed,) = solution.vjp(w), solution.jvp(direction)
    return {
        "gradient": relative(np.sum(np.asarray(g) * direction, axis=1), np.sum(w * slope, axis=1)),
        "forward mode": relative(pushed, slope),
    }


def infeasible_element() -> Errors:
    """The least x above p is p, unless p exceeds the limit on its sum."""
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    layer = CvxpyLayer(problem, [p], [x], solver_args={"on_failure": "nan"})
    batch, good = np.array([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]]), np.array([True, False, True])
    solution = layer.solve(batch)
    (values,), (gradient,) = solution.values, solution.vjp(np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
    if not np.isnan(values[1]).all() or solution.status[1] != "infeasible":
        raise ArithmeticError(f"an infeasible element was not found out: {solution.status}, {values[1]}")
    return {
        "values of the others": relative(values[good], batch[good]),
        "gradient": relative(gradient, [[1, 2], [0, 0], [3, 4]]),
    }


def kink() -> Errors:
    """At p = 0 max(p, 0) has no derivative: any number from 0 to 1 will do, if it comes with a warning."""
    x, p = cp.Variable(), cp.Parameter()
    solution = CvxpyLayer(cp.Problem(cp.Minimize((x - p) ** 2), [x >= 0]), [p], [x]).solve(0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        slope = float(np.asarray(solution.vjp(1.0)[0]))
    if not any(issubclass(w.category, DegeneracyWarning) for w in caught):
        raise ArithmeticError("there was no DegeneracyWarning at a point without a derivative")
    return {"outside of [0, 1] by": max(0.0, -slope, slope - 1)}


def threads() -> Errors:
    """Results do not depend on threads, to the last bit."""
    layer, values = _mixed()
    found = []
    for count in (1, 2, 5):
        solution = layer.solve(values, solver_args={"threads": count})
        found.append(np.stack([solution.values[0], np.asarray(solution.vjp(np.ones(values.shape))[0])]))
    if not np.isfinite(found[0]).all():
        raise ArithmeticError("a solution or a gradient is not finite")
    return {"entries that differ": float(sum(np.count_nonzero(other != found[0]) for other in found[1:]))}


def _projection() -> tuple[cp.Problem, cp.Parameter, cp.Variable, Array, Array]:
    """Onto the simplex: the problem, its parameter, its variable, a point, and a cotangent.

    The numbers are not rounded in single precision, to which Keras brings its data.
    """
    z, x = cp.Variable(4), cp.Parameter(4, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= 0])
    return problem, x, z, np.array([0.875, 0.5, 0.625, -1.0]), np.array([1.0, -2.0, 0.5, 3.0])


def through_torch(framework: Framework) -> Errors:
    """Autograd through a layer."""
    problem, x, z, point, w = _projection()
    adapter = framework.load()
    tensor = adapter.torch.tensor(point, requires_grad=True)
    (value,) = adapter.CvxpyLayer(problem, [x], [z])(tensor)
    value.backward(adapter.torch.tensor(w))
    exact = CvxpyLayer(problem, [x], [z]).solve(point)
    return {
        "value": relative(value.detach().numpy(), exact.values[0]),
        "gradient": relative(tensor.grad.numpy(), exact.vjp(w)[0]),
    }


def through_keras(framework: Framework) -> Errors:
    """One step of training, in a graph: by a rate of one along the gradient of a weight of the layer."""
    problem, x, z, point, w = _projection()
    adapter = framework.load()
    keras = adapter.keras
    least = cp.Parameter(4, name="least")
    shifted = cp.Problem(problem.objective, [cp.sum(z) == 1, z >= least])
    layer = adapter.CvxpyLayer(
        shifted, [x, least], [z], weights={"least": "zeros"}, single_output=True, dtype="float64"
    )
    inputs = keras.Input((4,), dtype="float64")
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0), loss=lambda true, predicted: keras.ops.sum(true * predicted))
    value = model.predict(point[None], verbose=0)[0]
    model.train_on_batch(point[None], w[None])
    exact = CvxpyLayer(shifted, [x, least], [z]).solve(point, np.zeros(4))
    return {
        "value": relative(value, exact.values[0]),
        "gradient": relative(-layer.get_weights()[0], exact.vjp(w)[1]),
    }
