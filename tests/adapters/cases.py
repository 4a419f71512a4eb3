"""Problems on which the adapters' contract is checked, each with values of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

import conediff as cd

Array = NDArray[Any]
Stated = tuple[cp.Problem, list[cp.Parameter], list[Any]]
Sample = Callable[[np.random.Generator, tuple[int, ...]], list[Array]]


@dataclass(frozen=True)
class Case:
    """A problem, and where to solve it.

    Parameters
    ----------
    name : str
    state : callable
        Returns a problem, its parameters and what the layer is to return.
    sample : callable
        Draws values of the parameters, of the batch shape given.
    gp : bool
    """

    name: str
    state: Callable[[], Stated]
    sample: Sample
    gp: bool = False

    def __str__(self) -> str:
        return self.name

    def build(self, adapter: Any, **options: Any) -> tuple[Any, cd.CvxpyLayer]:
        """Build the adapter's layer, and the oracle."""
        stated = self.state()
        return adapter.layer(*stated, gp=self.gp, **options), cd.CvxpyLayer(*stated, gp=self.gp, **options)

    def values(self, batch: tuple[int, ...] = (), seed: int = 0) -> list[Array]:
        """Draw values of the parameters."""
        return self.sample(np.random.default_rng(seed), batch)


def _normal(*shapes: tuple[int, ...]) -> Sample:
    return lambda rng, batch: [rng.standard_normal(batch + shape) for shape in shapes]


def _uniform(*shapes: tuple[int, ...]) -> Sample:
    return lambda rng, batch: [rng.uniform(1, 2, batch + shape) for shape in shapes]


# ---------------------------------------------------------------------- cones


def _quadratic() -> Stated:
    """Free, zero and nonnegative rows; a matrix, a vector and a scalar parameter; duals and the value."""
    x, A, b, lam = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4), cp.Parameter(nonneg=True)
    constraints = [cp.sum(x) == 0.5, x >= -0.3]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + lam * cp.sum_squares(x)), constraints)
    duals = [c.dual_variables[0] for c in constraints]
    return problem, [A, b, lam], [x, *duals, problem.objective]


def _quadratic_values(rng: np.random.Generator, batch: tuple[int, ...]) -> list[Array]:
    return [rng.standard_normal((*batch, 4, 3)), rng.standard_normal((*batch, 4)), rng.uniform(1, 2, batch)]


def _box() -> Stated:
    x, c = cp.Variable(4, bounds=[-0.5, 0.5]), cp.Parameter(4)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c))), [c], [x]


def _second_order() -> Stated:
    x, c, r = cp.Variable(3), cp.Parameter(3), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= r])
    return problem, [c, r], [x, problem.constraints[0].dual_variables[0]]


def _exponential() -> Stated:
    x, c = cp.Variable(3), cp.Parameter(3)
    return cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1]), [c], [x]


def _power() -> Stated:
    x, p = cp.Variable(2), cp.Parameter(2, neg=True)
    return cp.Problem(cp.Maximize(p @ x), [cp.PowCone3D(x[0], x[1], 1, 0.3), cp.sum(x) <= 3]), [p], [x]


def _semidefinite() -> Stated:
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, cp.diag(X) == 1])
    return problem, [C], [X, problem.constraints[0].dual_variables[0]]


def _complex_semidefinite() -> Stated:
    X, C = cp.Variable((2, 2), hermitian=True), cp.Parameter((2, 2), complex=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0]), [C], [X]


# ---------------------------------------------------------------------- kinds of parameters


def _quadratic_form() -> Stated:
    x, P, q = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    return cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, P) + q @ x), [x >= -0.4]), [P, q], [x]


def _quadratic_form_values(rng: np.random.Generator, batch: tuple[int, ...]) -> list[Array]:
    root = rng.standard_normal((*batch, 3, 3))
    return [root @ root.swapaxes(-1, -2) + np.eye(3), rng.standard_normal((*batch, 3))]


def _structured() -> Stated:
    """A symmetric, a diagonal and a sparse parameter, and one with bounds of its own."""
    x, S = cp.Variable(3), cp.Parameter((3, 3), symmetric=True)
    D, lower = cp.Parameter((3, 3), diag=True), cp.Parameter(3, nonpos=True)
    objective = cp.sum_squares(x - S @ np.ones(3)) + cp.sum_squares(D @ x)
    return cp.Problem(cp.Minimize(objective), [x >= lower]), [S, D, lower], [x]


def _structured_values(rng: np.random.Generator, batch: tuple[int, ...]) -> list[Array]:
    S = rng.standard_normal((*batch, 3, 3))
    return [
        S + S.swapaxes(-1, -2),
        rng.uniform(1, 2, (*batch, 3, 1)) * np.eye(3),
        -rng.uniform(0.1, 1, (*batch, 3)),
    ]


def _geometric() -> Stated:
    x, y = cp.Variable(pos=True), cp.Variable(pos=True)
    a, b = cp.Parameter(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(a / x + x / y + y), [x * y <= b])
    return problem, [a, b], [x, y, problem.objective]


def _line() -> Stated:
    x, p, q = cp.Variable(2), cp.Parameter(name="p"), cp.Parameter(2, name="q")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - q) + p * cp.sum(x))), [p, q], [x]


CASES = (
    Case("quadratic", _quadratic, _quadratic_values),
    Case("box", _box, _normal((4,))),
    Case("second_order", _second_order, _uniform((3,), ())),
    Case("exponential", _exponential, _normal((3,))),
    Case("power", _power, lambda rng, batch: [-rng.uniform(1, 2, (*batch, 2))]),
    Case("semidefinite", _semidefinite, _normal((3, 3))),
    Case(
        "complex",
        _complex_semidefinite,
        lambda rng, batch: [rng.standard_normal((*batch, 2, 2)) + 1j * rng.standard_normal((*batch, 2, 2))],
    ),
    Case("quadratic_form", _quadratic_form, _quadratic_form_values),
    Case("structured", _structured, _structured_values),
    Case("geometric", _geometric, _uniform((), ()), gp=True),
)
QUADRATIC = CASES[0]
LINE = Case("line", _line, _normal((), (2,)))  # solves in a millisecond
