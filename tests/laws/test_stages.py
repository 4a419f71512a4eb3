"""How a solve spends its work: few steps where few suffice, and no Newton step where it is dear.

Effort is counted in iterations and steps, which do not depend on the machine.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.kkt.matrix import KKTPattern
from conediff.kkt.system import KKTSystem
from conediff.program import ConeData, Point
from conediff.scaling import Equilibrator
from conediff.solver.clarabel import solve_by_clarabel
from conediff.solver.newton import damped_newton, interior_newton, no_newton
from conediff.solver.stages import STAGES, newton_is_dear, stages_of


def logistic(m, n, divided=False, seed=0):
    """Ridge logistic regression as everybody writes it, a layer of lam; and its gradient at w."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, n))
    X *= -np.sign(X @ rng.standard_normal(n) + rng.standard_normal(m))[:, None]
    w, lam = cp.Variable(n), cp.Parameter(nonneg=True)
    scale = 1 / m if divided else 1.0
    loss = scale * cp.sum(cp.logistic(X @ w)) + (scale * lam) * cp.sum_squares(w)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(loss)), [lam], [w])
    return layer, lambda w, lam: X.T @ (1 / (1 + np.exp(-(X @ w)))) + 2 * lam * w


def semidefinite(order, columns, c, C):
    """Minimise c'x with sum x_k F_k - C positive semidefinite; F_k by rows, columns and values."""
    j, i = np.triu_indices(order)  # the lower triangle by columns
    root = np.where(i == j, 1.0, np.sqrt(2))
    place = np.zeros((order, order), dtype=int)
    place[i, j] = np.arange(i.size)
    A = np.zeros((i.size, len(columns)))
    for k, (row, column, value) in enumerate(columns):
        at = place[np.maximum(row, column), np.minimum(row, column)]
        A[at, k] = -root[at] * value
    return cd.ConeProgram(sp.csc_array(A), -root * C[i, j], np.asarray(c, dtype=float), {"s": [order]})


def theta(order, edges, seed=0):
    """The Lovász theta function of a random graph."""
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(order, 1)
    chosen = rng.choice(i.size, edges, replace=False)
    diagonal = np.arange(order)
    columns = [(diagonal, diagonal, 1.0), *((j[k], i[k], 1.0) for k in chosen)]
    return semidefinite(order, columns, [1.0] + [0.0] * edges, np.ones((order, order)))


def max_cut(order, density=0.3, seed=0):
    """The relaxation of max-cut on a random graph."""
    weights = np.triu(np.random.default_rng(seed).random((order, order)) < density, 1).astype(float)
    weights += weights.T
    laplacian = (np.diag(weights.sum(axis=1)) - weights) / 4
    return semidefinite(order, [(k, k, 1.0) for k in range(order)], np.ones(order), laplacian)


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("lam", [1e-3, 1e-1, 1.0, 1e3])
def test_ridge_logistic_regression_takes_few_steps(lam, divided):
    layer, gradient = logistic(500, 20, divided)
    solution = layer.solve(lam)
    w, info = solution.values[0], solution.info
    assert np.abs(gradient(w, lam)).max() < 1e-7 * max(500, lam)
    assert info["solver"] == "scs" and info["iterations"] <= 50 and info["refinements"] <= 9


def test_wide_logistic_regression_is_left_to_scs():
    layer, gradient = logistic(60, 200)
    assert np.abs(gradient(layer.solve(1.0).values[0], 1.0)).max() < 1e-7
    assert layer.solve(1.0).info["refinements"] <= 3


@pytest.mark.parametrize("program", [theta(34, 150, seed=1), max_cut(36)], ids=["theta", "max-cut"])
def test_large_psd_cones_take_few_newton_steps(program):
    assert newton_is_dear(program.structure.cone)
    solution = cd.solve(program)
    assert solution.status == "solved" and solution.info["refinements"] <= 3
    assert abs(program.c @ solution.x + program.b @ solution.y) < 1e-8 * abs(program.c @ solution.x)


def test_tables_by_structure():
    def first(program):
        return stages_of(KKTPattern(program.structure), program.data)[0][0]

    rng = np.random.default_rng(0)
    narrow = cd.ConeProgram(rng.standard_normal((60, 10)), np.ones(60), np.ones(10), {"ep": 20})
    wide = cd.ConeProgram(rng.standard_normal((60, 500)), np.ones(60), np.ones(500), {"ep": 20})
    linear = cd.ConeProgram(rng.standard_normal((60, 200)), np.ones(60), np.ones(200), {"l": 60})
    assert first(narrow) is STAGES[0] and first(linear) is STAGES[0]
    assert first(wide).own["max_iters"] >= 1000 and first(theta(34, 20)).newton is no_newton


def assignment(k, seed=0):
    """A linear program with a degenerate vertex: assign k to k, at costs of few values."""
    costs = np.random.default_rng(seed).integers(1, 4, (k, k)).astype(float)
    rows = np.vstack([np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))])
    A, b = np.vstack([rows, -np.eye(k * k)]), np.r_[np.ones(2 * k), np.zeros(k * k)]
    return cd.ConeProgram(A, b, costs.ravel(), {"z": 2 * k, "l": k * k})


class TestInteriorPoints:
    """From an interior point in the middle of a face of solutions."""

    @pytest.mark.parametrize("eps", [1e-4, 1e-6, 1e-8])
    @pytest.mark.parametrize("seed", range(3))
    def test_few_steps_reach_rounding(self, eps, seed):
        p = assignment(6, seed)
        raw = solve_by_clarabel(
            p.structure, p.data, {"tol_gap_abs": eps, "tol_gap_rel": eps, "tol_feas": eps}
        )
        start = Point(raw.x, raw.y, raw.s)
        found = interior_newton(KKTSystem(p.structure), p.data, start, 1e-10)
        assert found.residual[0] <= 1e-12 and found.steps[0] <= 6

    def test_what_is_left_gets_damped_steps(self, monkeypatch):
        p = assignment(4)
        zero = Point(*(np.ones((2, size)) for size in (p.n, p.m, p.m)))
        data = ConeData(*(np.repeat(part, 2, axis=0) for part in (p.data.P, p.data.A, p.data.b, p.data.c)))
        system = KKTSystem(p.structure)
        monkeypatch.setattr("conediff.solver.newton.FULL_MAX_STEPS", 0)
        found, alone = (newton(system, data, zero, 1e-10) for newton in (interior_newton, damped_newton))
        np.testing.assert_array_equal(found.x, alone.x)
        np.testing.assert_array_equal(found.steps, alone.steps)


class TestEquilibrationOfTheObjective:
    """P of some columns and c of the others have one size; each program's own."""

    @pytest.fixture
    def program(self):
        P = np.diag([2000.0, 2000.0, 0.0, 0.0])
        A = np.array([[1.0, -1, 1, 0], [1, 1, 0, 1], [0, 0, -1, 0], [0, 0, 0, -1.0]])
        return cd.ConeProgram(A, [1.0, -1, 0, 0], [1.0, 1, 1, 1], {"z": 1, "l": 3}, P)

    def test_columns_are_brought_together(self, program):
        found = Equilibrator(program.structure).equilibration(program.data)
        scaled = found.scale_data(program.data)
        sizes = np.r_[scaled.P[0], scaled.c[0, 2:]]
        assert sizes.max() <= 32 * sizes.min()

    def test_a_stack_shares_what_its_programs_share(self, program):
        d, equilibrator = program.data, Equilibrator(program.structure)
        quadratic = np.repeat(d.c, 3, axis=0) * [[1.0, 1, 1, 1], [1e4, 5, 1, 1], [0, 1e-3, 1, 1]]
        assert len(equilibrator.equilibration(ConeData(d.P, d.A, d.b, quadratic)).columns) == 1
        linear = np.repeat(d.c, 3, axis=0) * [[1.0, 1, 1, 1], [1, 1, 2000, 2000], [1, 1, 1e-2, 1]]
        together = equilibrator.equilibration(ConeData(d.P, d.A, d.b, linear))
        for k in range(3):
            alone = equilibrator.equilibration(ConeData(d.P, d.A, d.b, linear[k : k + 1]))
            np.testing.assert_array_equal(together.take(slice(k, k + 1)).columns, alone.columns)
            np.testing.assert_array_equal(together.take(slice(k, k + 1)).rows, alone.rows)
        many = cd.solve_batch(program, c=linear)
        for k in range(3):
            one = cd.solve(cd.ConeProgram(program.A, program.b, linear[k], program.cones, program.P))
            np.testing.assert_allclose(many.x[k], one.x, atol=1e-9)
