"""The suite: each function states a problem and draws values of its parameters; none knows any library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Values = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Case:
    """A problem, its parameters, the variables whose values are wanted, and a sampler of parameters."""

    problem: cp.Problem
    parameters: list[cp.Parameter]
    variables: list[cp.Variable]
    sample: Callable[[np.random.Generator], tuple[object, ...]]

    def batch(self, size: int, seed: int) -> Values:
        """Draw parameters, shape (size, *shape) each; a smaller batch is the beginning of a larger one."""
        # The last word tells these streams from those that state problems: [0, 0] would be that of 0.
        elements = [self.sample(np.random.default_rng([seed, i, 1])) for i in range(size)]
        return tuple(np.array(part, dtype=float) for part in zip(*elements, strict=True))

    def path(self, size: int, seed: int, steps: int) -> list[Values]:
        """Draw parameters that move slowly, by half a percent of the way from one batch to another a step."""
        start, end = self.batch(size, seed), self.batch(size, seed + 1)
        return [
            tuple(a + 0.005 * step * (b - a) for a, b in zip(start, end, strict=True))
            for step in range(steps)
        ]

    def cotangents(self, size: int) -> Values:
        """Draw what the gradient is taken of: a random weight for every entry of the variables."""
        rng = np.random.default_rng(1)
        return tuple(rng.standard_normal((size, *variable.shape)) for variable in self.variables)


def qp(n: int, inequalities: int, equalities: int) -> Case:
    """A dense quadratic program, all data parameters."""
    x = cp.Variable(n)
    L, p = cp.Parameter((n, n)), cp.Parameter(n)
    G, h = cp.Parameter((inequalities, n)), cp.Parameter(inequalities)
    A, b = cp.Parameter((equalities, n)), cp.Parameter(equalities)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(L @ x) + p @ x), [G @ x <= h, A @ x == b])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        inside = rng.standard_normal(n)
        G, A = rng.standard_normal((inequalities, n)), rng.standard_normal((equalities, n))
        L = np.eye(n) + rng.standard_normal((n, n)) / np.sqrt(n)
        return L, rng.standard_normal(n), G, G @ inside + rng.uniform(0, 1, inequalities), A, A @ inside

    return Case(problem, [L, p, G, h, A, b], [x], sample)


def sparsemax(n: int) -> Case:
    """The projection onto the probability simplex."""
    x, y = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [x >= 0, cp.sum(x) == 1])
    return Case(problem, [y], [x], lambda rng: (rng.standard_normal(n),))


def softmax(n: int) -> Case:
    """Entropy over the probability simplex."""
    x, y = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(-y @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    return Case(problem, [y], [x], lambda rng: (rng.standard_normal(n),))


def polytope(faces: int) -> Case:
    """The projection onto a polygon that is learned as well."""
    x, y = cp.Variable(2), cp.Parameter(2)
    G, h = cp.Parameter((faces, 2)), cp.Parameter(faces)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [G @ x <= h])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        angles = 2 * np.pi * (np.arange(faces) + rng.uniform(0, 0.5, faces)) / faces
        G = np.column_stack([np.cos(angles), np.sin(angles)])
        return 2 * rng.standard_normal(2), G, rng.uniform(0.8, 1.2, faces)

    return Case(problem, [y, G, h], [x], sample)


def portfolio(n: int, factors: int) -> Case:
    """A long-only portfolio with factor and diagonal risk, and an l1 limit on its turnover."""
    w, mu = cp.Variable(n), cp.Parameter(n)
    F, d = cp.Parameter((factors, n)), cp.Parameter(n)
    risk = cp.sum_squares(F @ w) + cp.sum_squares(cp.multiply(d, w))
    limits = [cp.sum(w) == 1, w >= 0, cp.norm1(w - np.ones(n) / n) <= 0.8]
    problem = cp.Problem(cp.Maximize(mu @ w - risk), limits)

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        return 0.3 * rng.standard_normal(n), rng.standard_normal((factors, n)), rng.uniform(0.5, 1.5, n)

    return Case(problem, [mu, F, d], [w], sample)


def correlation(n: int) -> Case:
    """The nearest correlation matrix."""
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, cp.diag(X) == 1])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        noise = rng.uniform(-1, 1, (n, n))
        return ((noise + noise.T) / 2,)

    return Case(problem, [C], [X], sample)


def logistic(m: int, n: int) -> Case:
    """Regularised logistic regression; the labels' signs are in the rows of X."""
    w, X = cp.Variable(n), cp.Parameter((m, n))
    weight = cp.Parameter(nonneg=True)
    loss = cp.sum(cp.logistic(-X @ w)) / m
    problem = cp.Problem(cp.Minimize(loss + weight * cp.sum_squares(w)))

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        X, truth = rng.standard_normal((m, n)), rng.standard_normal(n)
        labels = np.where(rng.uniform(size=m) < 1 / (1 + np.exp(-X @ truth)), 1, -1)
        return labels[:, None] * X, rng.uniform(0.05, 0.2)

    return Case(problem, [X, weight], [w], sample)


def nonnegative_lasso(m: int, n: int) -> Case:
    """Least squares with nonnegative coefficients and an l1 penalty."""
    x, A, b = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m)
    weight = cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.sum(x)), [x >= 0])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        A, truth = rng.standard_normal((m, n)), rng.standard_normal(n)
        return A, A @ truth + rng.standard_normal(m), rng.uniform(0.5, 2)

    return Case(problem, [A, b, weight], [x], sample)


def lasso(m: int, n: int) -> Case:
    """A lasso on a sparse matrix."""
    rng = np.random.default_rng(0)
    A = sp.random_array((m, n), density=0.05, rng=rng, data_sampler=rng.standard_normal, format="csc")
    x, b = cp.Variable(n), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + 2 * cp.norm1(x)))

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        truth = rng.standard_normal(n) * (rng.uniform(size=n) < 0.1)
        return (A @ truth + 0.1 * rng.standard_normal(m),)

    return Case(problem, [b], [x], sample)


def control(horizon: int, states: int, inputs: int) -> Case:
    """Model predictive control with box limits, as a function of the first state."""
    rng = np.random.default_rng(0)
    A = np.eye(states) + 0.1 * rng.standard_normal((states, states))
    A /= max(1, np.abs(np.linalg.eigvals(A)).max())
    B = rng.standard_normal((states, inputs))
    X, U = cp.Variable((states, horizon + 1)), cp.Variable((inputs, horizon))
    first = cp.Parameter(states)
    cost = cp.sum_squares(X) + 0.1 * cp.sum_squares(U)
    steps = [X[:, 0] == first, X[:, 1:] == A @ X[:, :-1] + B @ U]
    boxes = [U <= 0.2, U >= -0.2, X <= 10, X >= -10]
    problem = cp.Problem(cp.Minimize(cost), [*steps, *boxes])
    return Case(problem, [first], [X, U], lambda rng: (rng.standard_normal(states),))


def factor_portfolio(n: int, factors: int) -> Case:
    """A large long-only portfolio with a factor model, as a function of expected returns."""
    rng = np.random.default_rng(0)
    F, d = rng.standard_normal((factors, n)) / np.sqrt(factors), rng.uniform(0.5, 1.5, n)
    w, f, mu = cp.Variable(n), cp.Variable(factors), cp.Parameter(n)
    risk = cp.sum_squares(f) + cp.sum_squares(cp.multiply(d, w))
    problem = cp.Problem(cp.Maximize(mu @ w - risk), [f == F @ w, cp.sum(w) == 1, w >= 0])
    return Case(problem, [mu], [w], lambda rng: (rng.standard_normal(n) / 10,))


def second_order(n: int, cones: int, size: int) -> Case:
    """A linear objective over many small second-order cones and one large."""
    rng = np.random.default_rng(0)
    A, shift = rng.standard_normal((cones, size - 1, n)) / np.sqrt(n), rng.standard_normal((cones, size - 1))
    x, c, radius = cp.Variable(n), cp.Parameter(n), cp.Parameter(cones)
    small = [cp.SOC(radius[i], A[i] @ x + shift[i]) for i in range(cones)]
    problem = cp.Problem(cp.Minimize(c @ x), [*small, cp.norm2(x) <= 10])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        return rng.standard_normal(n), np.linalg.norm(shift, axis=1) + rng.uniform(0.1, 1, cones)

    return Case(problem, [c, radius], [x], sample)


def transport(n: int) -> Case:
    """Optimal transport with a quadratic penalty; the last column's marginal follows from the others."""
    T, C = cp.Variable((n, n)), cp.Parameter((n, n))
    rows, columns = cp.Parameter(n), cp.Parameter(n - 1)
    marginals = [cp.sum(T, axis=1) == rows, cp.sum(T, axis=0)[:-1] == columns]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, T)) + cp.sum_squares(T)), [T >= 0, *marginals])

    def sample(rng: np.random.Generator) -> tuple[object, ...]:
        rows, columns = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n)
        return rng.uniform(0, 1, (n, n)), rows, columns[:-1] * rows.sum() / columns.sum()

    return Case(problem, [C, rows, columns], [T], sample)


def sparse_qp(n: int) -> Case:
    """A chain of variables in a box, coupled to their neighbours: nonzeros and fill grow with n.

    Few parameters move the linear term, since cvxpy keeps an n by parameters matrix of it that is dense.
    """
    rng = np.random.default_rng(0)
    x, weights = cp.Variable(n), cp.Parameter(8)
    directions, b = rng.standard_normal((n, 8)), rng.uniform(-1, 1, n // 4)
    groups = sp.kron(sp.eye_array(n // 4), np.ones((1, 4)), format="csr")
    cost = 0.5 * cp.sum_squares(x) + cp.sum_squares(x[1:] - x[:-1]) + (directions @ weights) @ x
    problem = cp.Problem(cp.Minimize(cost), [groups @ x == b, x >= -1, x <= 1])
    return Case(problem, [weights], [x], lambda rng: (rng.standard_normal(8),))


BATCHED: dict[str, Callable[[], Case]] = {
    "qp-10": lambda: qp(10, 4, 5),
    "qp-50": lambda: qp(50, 20, 10),
    "sparsemax-10": lambda: sparsemax(10),
    "sparsemax-100": lambda: sparsemax(100),
    "softmax-10": lambda: softmax(10),
    "polytope": lambda: polytope(20),
    "portfolio-50": lambda: portfolio(50, 5),
    "correlation-10": lambda: correlation(10),
    "logistic": lambda: logistic(100, 20),
    "nonneg-lasso": lambda: nonnegative_lasso(50, 10),
}
LARGE: dict[str, Callable[[], Case]] = {
    "lasso": lambda: lasso(1000, 500),
    "control": lambda: control(50, 12, 4),
    "factor-portfolio": lambda: factor_portfolio(1000, 50),
    "second-order": lambda: second_order(200, 30, 6),
    "transport": lambda: transport(50),
    "correlation-60": lambda: correlation(60),
}
GROWING: dict[str, Callable[[], Case]] = {
    "sparse-1e3": lambda: sparse_qp(1_000),
    "sparse-1e4": lambda: sparse_qp(10_000),
    "sparse-1e5": lambda: sparse_qp(100_000),
}
ALL = {**BATCHED, **LARGE, **GROWING}
