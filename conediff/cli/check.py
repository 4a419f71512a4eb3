"""A self-test of an installation: are solutions and gradients right on this machine?

Each check solves a small problem whose solution and derivative are known, and returns the errors. It does not
replace the test suite: it covers what differs between machines, which are the builds of SCS, QDLDL, BLAS and
cvxpy, threads, and frameworks.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np

from conediff.cli.check_cases import CASES, measure_errors
from conediff.cli.info import FRAMEWORKS, Framework
from conediff.errors import ConediffWarning, DegeneracyWarning
from conediff.layer.layer import CvxpyLayer
from conediff.program import Array

# Largest accepted error, relative to the largest entry of the known result. Errors at default settings are
# far below it; a larger value would accept wrong digits of a broken build.
TOLERANCE = 1e-7
Errors = Mapping[str, float]


def main() -> bool:
    """Run all checks; print a line per check and a summary; return whether all passed."""
    print(f"conediff checks itself: errors relative to the known results, at most {TOLERANCE:g}\n")
    start, failed, worst, count = time.perf_counter(), [], 0.0, 0
    for name, check in list_checks():
        count += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConediffWarning)
                errors = check()
        except Exception as error:  # any error of a check is a result to report
            failed.append(name)
            print(f"FAIL  {name}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
            continue
        good = all(error <= TOLERANCE for error in errors.values())  # False if an error is NaN
        if not good:
            failed.append(name)
        worst = max(worst, *errors.values())
        listed = ", ".join(f"{key} {error:.1e}" if error else f"{key} 0" for key, error in errors.items())
        print(f"{'ok  ' if good else 'FAIL'}  {name}: {listed}", flush=True)
    for framework in FRAMEWORKS:
        if not framework.installed:
            print(f"--    {framework.name}: not installed, so not checked; {framework.advice}")
    print(f"\n{_summarise(failed, count, worst, time.perf_counter() - start)}")
    return not failed


def _summarise(failed: list[str], count: int, worst: float, seconds: float) -> str:
    """Return the last lines of the report."""
    if not failed:
        return (
            f"This installation gives right answers: all {count} checks passed in {seconds:.0f} seconds, "
            f"largest error {worst:.1e}."
        )
    return (
        f"This installation gives WRONG answers or errors: {len(failed)} of {count} checks failed "
        f"({'; '.join(failed)}).\n"
        "Do not rely on its gradients. Repeat the check in a new environment (python -m venv) with only\n"
        "conediff in it; if it still fails, report these lines and the output of: python -m conediff info"
    )


def list_checks() -> Iterator[tuple[str, Callable[[], Errors]]]:
    """Yield the name and the function of every check whose packages are installed."""
    for case in CASES:
        yield case.name, partial(measure_errors, case)
    yield "quadratic form with a PSD parameter", check_quadratic_form
    yield "dual variable and optimal value", check_dual_and_value
    yield "geometric program", check_geometric_program
    yield "all cones together, against differences", check_differences
    yield "infeasible element in a batch", check_infeasible_element
    yield "no derivative: a warning, and least squares", check_kink
    yield "threads: the same digits as one thread", check_threads
    for framework in FRAMEWORKS:
        if framework.installed:
            check = _OF_FRAMEWORKS[framework.package]
            yield f"{framework.name}: the same gradient as from NumPy", partial(check, framework)


def relative_error(found: Any, exact: Any) -> float:
    """Return the largest error relative to the largest exact entry; NaN if an entry found is NaN."""
    found, exact = np.asarray(found, dtype=float), np.asarray(exact, dtype=float)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def check_quadratic_form() -> Errors:
    """Check that the minimiser of x'Px / 2 - 1'x is P^-1 1."""
    x, P = cp.Variable(2), cp.Parameter((2, 2), PSD=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, P) / 2 - cp.sum(x))), [P], [x])
    value, w = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -2.0])
    solution, exact = layer.solve(value), np.linalg.solve(value, np.ones(2))
    pulled = -np.outer(np.linalg.solve(value, w), exact)
    gradient = relative_error(solution.vjp(w)[0], (pulled + pulled.T) / 2)
    return {"value": relative_error(solution.values[0], exact), "gradient": gradient}


def check_dual_and_value() -> Errors:
    """Check |x|^2 minimised subject to 1'x = b: the dual variable is -2 b / n, the value b^2 / n (n = 4)."""
    x, b = cp.Variable(4), cp.Parameter()
    total = cp.sum(x) == b
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [total])
    solution = CvxpyLayer(problem, [b], [total.dual_variables[0], problem.objective]).solve(3.0)
    return {
        "value": relative_error(solution.values, [-1.5, 2.25]),
        "gradient": relative_error([solution.vjp(1.0, None)[0], solution.vjp(None, 1.0)[0]], [-0.5, 1.5]),
    }


def check_geometric_program() -> Errors:
    """Check that the minimiser of x + c / x is the square root of c."""
    x, c = cp.Variable(pos=True), cp.Parameter(pos=True)
    solution = CvxpyLayer(cp.Problem(cp.Minimize(x + c / x)), [c], [x], gp=True).solve(4.0)
    return {
        "value": relative_error(solution.values[0], 2.0),
        "gradient": relative_error(solution.vjp(1.0)[0], 0.25),
    }


def _build_mixed_problem() -> tuple[CvxpyLayer, Array]:
    """Return a layer whose problem has most kinds of cones, and a batch of values of its parameter."""
    x, X, c = cp.Variable(3), cp.Variable((2, 2), symmetric=True), cp.Parameter(3)
    objective = cp.sum_squares(x - c) + cp.norm(x - 1) + cp.sum(cp.exp(x)) + cp.lambda_max(X)
    problem = cp.Problem(
        cp.Minimize(objective + cp.sum(cp.power(x + 3, 1.7))), [cp.sum(x) == 1, X >> cp.diag(x[:2]), x <= 2]
    )
    return CvxpyLayer(problem, [c], [x]), np.random.default_rng(0).standard_normal((96, 3))


def check_differences() -> Errors:
    """Check both modes against central differences of fourth order along one direction."""
    layer, values = _build_mixed_problem()
    values = values[:4]
    rng, h = np.random.default_rng(1), 1e-3
    direction, w = rng.standard_normal(values.shape), rng.standard_normal(values.shape)
    along = {k: layer(values + k * h * direction)[0] for k in (-2, -1, 1, 2)}
    slope = (8 * (along[1] - along[-1]) - (along[2] - along[-2])) / (12 * h)
    solution = layer.solve(values)
    (g,), (pushed,) = solution.vjp(w), solution.jvp(direction)
    return {
        "gradient": relative_error(np.sum(np.asarray(g) * direction, axis=1), np.sum(w * slope, axis=1)),
        "forward mode": relative_error(pushed, slope),
    }


def check_infeasible_element() -> Errors:
    """Check a batch whose second element is infeasible, as sum(p) > 1; the others have x = p."""
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    layer = CvxpyLayer(problem, [p], [x], solver_args={"on_failure": "nan"})
    batch, good = np.array([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]]), np.array([True, False, True])
    solution = layer.solve(batch)
    (values,), (gradient,) = solution.values, solution.vjp(np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
    if not np.isnan(values[1]).all() or solution.status[1] != "infeasible":
        raise ArithmeticError(f"an infeasible element was not recognised: {solution.status}, {values[1]}")
    return {
        "values of the others": relative_error(values[good], batch[good]),
        "gradient": relative_error(gradient, [[1, 2], [0, 0], [3, 4]]),
    }


def check_kink() -> Errors:
    """Check max(p, 0) at p = 0, where it has no derivative: the answer lies in [0, 1], with a warning."""
    x, p = cp.Variable(), cp.Parameter()
    solution = CvxpyLayer(cp.Problem(cp.Minimize((x - p) ** 2), [x >= 0]), [p], [x]).solve(0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        slope = float(np.asarray(solution.vjp(1.0)[0]))
    if not any(issubclass(w.category, DegeneracyWarning) for w in caught):
        raise ArithmeticError("there was no DegeneracyWarning at a point without a derivative")
    return {"outside of [0, 1] by": max(0.0, -slope, slope - 1)}


def check_threads() -> Errors:
    """Check that results with 1, 2 and 5 threads agree to the last bit."""
    layer, values = _build_mixed_problem()
    found = []
    for count in (1, 2, 5):
        solution = layer.solve(values, solver_args={"threads": count})
        found.append(np.stack([solution.values[0], np.asarray(solution.vjp(np.ones(values.shape))[0])]))
    if not np.isfinite(found[0]).all():
        raise ArithmeticError("a solution or a gradient is not finite")
    return {"entries that differ": float(sum(np.count_nonzero(other != found[0]) for other in found[1:]))}


def _build_projection() -> tuple[cp.Problem, cp.Parameter, cp.Variable, Array, Array]:
    """Return the projection onto the simplex: problem, parameter, variable, a point, and a cotangent.

    The numbers are exact in single precision, to which Keras, JAX and MLX convert data.
    """
    z, x = cp.Variable(4), cp.Parameter(4, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [cp.sum(z) == 1, z >= 0])
    return problem, x, z, np.array([0.875, 0.5, 0.625, -1.0]), np.array([1.0, -2.0, 0.5, 3.0])


def check_torch(framework: Framework) -> Errors:
    """Check a PyTorch layer and its gradient by autograd against NumPy."""
    problem, x, z, point, w = _build_projection()
    adapter = framework.load()
    tensor = adapter.torch.tensor(point, requires_grad=True)
    (value,) = adapter.CvxpyLayer(problem, [x], [z])(tensor)
    value.backward(adapter.torch.tensor(w))
    return _compare_with_numpy(problem, x, z, value.detach().numpy(), tensor.grad.numpy())


def check_keras(framework: Framework) -> Errors:
    """Check one training step of a Keras layer in a graph: the step of a weight at rate 1 is its gradient."""
    problem, x, z, point, w = _build_projection()
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
        "value": relative_error(value, exact.values[0]),
        "gradient": relative_error(-layer.get_weights()[0], exact.vjp(w)[1]),
    }


def check_jax(framework: Framework) -> Errors:
    """Check a JAX layer and its gradient in compiled code against NumPy."""
    problem, x, z, point, w = _build_projection()
    adapter = framework.load()
    jax, layer = adapter.jax, adapter.CvxpyLayer(problem, [x], [z], single_output=True)
    value = jax.jit(layer)(jax.numpy.asarray(point))
    gradient = jax.jit(jax.grad(lambda x: layer(x) @ w.astype(value.dtype)))(jax.numpy.asarray(point))
    return _compare_with_numpy(problem, x, z, value, gradient)


def check_mlx(framework: Framework) -> Errors:
    """Check an MLX layer and its gradient against NumPy."""
    problem, x, z, point, w = _build_projection()
    adapter = framework.load()
    mx, layer = adapter.mlx.core, adapter.CvxpyLayer(problem, [x], [z], single_output=True)
    values, gradients = mx.vjp(layer, [mx.array(point)], [mx.array(w)])
    return _compare_with_numpy(problem, x, z, np.array(values[0]), np.array(gradients[0]))


def _compare_with_numpy(problem: cp.Problem, x: Any, z: Any, value: Any, gradient: Any) -> Errors:
    """Return the errors of a projection and its gradient."""
    *_, point, w = _build_projection()
    exact = CvxpyLayer(problem, [x], [z]).solve(point)
    return {
        "value": relative_error(value, exact.values[0]),
        "gradient": relative_error(gradient, exact.vjp(w)[0]),
    }


_OF_FRAMEWORKS: Mapping[str, Callable[[Framework], Errors]] = {
    "torch": check_torch,
    "keras": check_keras,
    "jax": check_jax,
    "mlx": check_mlx,
}
