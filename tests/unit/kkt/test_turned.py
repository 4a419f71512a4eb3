"""K in the eigenbasis of large PSD cones: the same K, solved with exactly."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import conediff as cd
from conediff.cones import PSD, ComplexPSD, ProductCone
from conediff.kkt import blocks
from conediff.kkt.deflation import deflation
from conediff.kkt.matrix import KKTOperator, KKTPattern
from conediff.kkt.system import KKTSystem
from conediff.program import ConeData

CONES = {
    "one": {"s": [6]},
    "two of a size": {"s": [6, 6]},
    "complex": {"cs": [5]},
    "with others": {"z": 2, "l": 3, "q": [4], "s": [2, 7, 6], "cs": [5], "ep": 1},
}


@pytest.fixture(autouse=True)
def _large_from_20_rows(monkeypatch):
    for cone in (PSD, ComplexPSD):
        monkeypatch.setattr(cone, "dense_limit", 20)
    monkeypatch.setattr(blocks, "TURNED_COLUMNS", 10.0)


def stack(name, count=3, is_regular=True):
    """Programs with so many variables that the multipliers are unique."""
    rng = np.random.default_rng(1)
    cones = CONES[name]
    m = ProductCone.from_dict(cones).dim
    n = 4 * m // 5
    root = rng.standard_normal((n, n)) * is_regular
    program = cd.ConeProgram(rng.standard_normal((m, n)), np.zeros(m), np.zeros(n), cones, root @ root.T)
    s = program.structure
    data = ConeData(program.data.P, rng.standard_normal((count, s.A.nnz)), program.data.b, program.data.c)
    return s, data, s.cone.project_dual(rng.standard_normal((count, m))).derivative()


@pytest.mark.parametrize("name", CONES)
def test_solutions_leave_no_residual_and_singular_values_are_those_of_k(name):
    s, data, derivative = stack(name)
    system = KKTSystem(s)
    assert system.pattern.turned and system.pattern.exact
    factor = system.factor(data, derivative)
    rhs = np.random.default_rng(2).standard_normal((3, s.n + s.m))
    z, error = factor.solve(rhs)
    assert error.max() < 1e-11
    operator = KKTOperator(s, data, derivative)
    np.testing.assert_allclose(operator.apply(z), rhs, atol=1e-9)
    inverse = factor.scaled_inverse(factor.scaled_product(rhs))
    np.testing.assert_allclose(inverse, rhs, atol=1e-5 * np.abs(rhs).max())


@pytest.mark.parametrize("name", CONES)
def test_null_vectors_are_those_of_k(name):
    s, data, derivative = stack(name, is_regular=False)
    A = data.A.reshape(3, s.n, s.m)  # dense, and so column by column
    A[:, 0] = A[:, 1] - A[:, 2]
    factor = KKTSystem(s).factor(data, derivative, 1e-7).checked()[0]
    assert factor.is_exact
    found = deflation(factor, 200, np.full(3, 1e-11))
    assert found.is_complete.all() and found.is_null.any(axis=1).all()
    operator = KKTOperator(s, data, derivative)
    for j in range(found.null_vectors.shape[2]):
        assert np.abs(operator.apply(found.null_vectors[:, :, j])).max() < 1e-11
    rhs = operator.apply(np.random.default_rng(3).standard_normal((3, s.n + s.m)))
    z, inconsistent, residual = found.solve(rhs)
    assert inconsistent.max() < 1e-11 and residual.max() < 1e-11
    np.testing.assert_allclose(operator.apply(z), rhs, atol=1e-8)


@pytest.mark.parametrize("columns, turned", [(6, True), (200, False)])
def test_only_cones_with_few_columns_are_turned(monkeypatch, columns, turned):
    monkeypatch.setattr(blocks, "TURNED_COLUMNS", 1 / 3)
    program = cd.ConeProgram(np.ones((21, columns)), np.zeros(21), np.zeros(columns), {"s": [6]})
    assert bool(KKTPattern(program.structure).turned) == turned


def test_derivatives_of_a_degenerate_semidefinite_program_are_adjoint():
    """The Lovasz number of a graph: many null vectors, in one PSD cone of 21 rows."""
    order, edges = 6, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (1, 3)]
    column, row = np.triu_indices(order)
    inside = np.array([(j, i) in edges for i, j in zip(row, column, strict=True)]) | (row == column)
    A = np.eye(column.size)[:, inside]
    A = np.column_stack([A[:, A[row == column].any(axis=0)].sum(axis=1), A[:, ~A[row == column].any(axis=0)]])
    b = np.where(row == column, 1.0, np.sqrt(2.0))
    program = cd.ConeProgram(-A, -b, np.r_[1.0, np.zeros(A.shape[1] - 1)], {"s": [order]})
    derivative = cd.solve(program).derivative()
    u, dc = np.random.default_rng(4).standard_normal((2, program.n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cd.DegeneracyWarning)
        left, right = derivative.jvp(dc=dc)[0] @ u, derivative.vjp(dx=u).dc @ dc
    assert not derivative.diagnostics.differentiable[0]
    assert left == pytest.approx(right, rel=1e-8, abs=1e-10)
