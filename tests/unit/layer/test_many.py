"""Jacobians of a batch, and many cotangents or tangents at once."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.derivative.kkt_derivative import KKTDerivative

x = cp.Variable(2, name="x")
A, b = cp.Parameter((3, 2), name="A"), cp.Parameter(3, name="b")
lam = cp.Parameter(nonneg=True, name="lam")
PROBLEM = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + lam * cp.sum_squares(x)), [cp.sum(x) <= 0.1])
DUAL = PROBLEM.constraints[0].dual_variables[0]
OUTPUTS, PARAMETERS = [x, DUAL, PROBLEM.objective], [A, b, lam]


@pytest.fixture(scope="module")
def layer():
    return cd.CvxpyLayer(PROBLEM, PARAMETERS, OUTPUTS)


def point(*batch):
    rng = np.random.default_rng(0)
    return rng.standard_normal((*batch, 3, 2)), rng.standard_normal((*batch, 3)), rng.uniform(1, 2, batch)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_jacobians_are_those_of_the_elements(layer, batch):
    """Each block, by object, name and position; from jvp and vjp of the elements by themselves."""
    values = point(*batch)
    solution = layer.solve(*values)
    blocks = solution.jacobian()
    for i, output in enumerate(OUTPUTS):
        for j, parameter in enumerate(PARAMETERS):
            J = solution.jacobian(parameter, output)
            shape = batch + solution.values[i].shape[len(batch) :] + parameter.shape
            assert J.shape == shape
            np.testing.assert_allclose(blocks[i][j], J, atol=1e-9)
            np.testing.assert_allclose(solution.jacobian(parameter.name(), i), J, atol=1e-12)
            np.testing.assert_allclose(solution.jacobian(variable=output)[j], J, atol=1e-9)
            np.testing.assert_allclose(solution.jacobian(j)[i], J, atol=1e-9)
            for index in np.ndindex(*batch):
                alone = layer.solve(*(v[index] for v in values))
                t = np.random.default_rng(j).standard_normal(parameter.shape)
                pushed = alone.jvp(*(t if k == j else None for k in range(3)))[i]
                np.testing.assert_allclose(np.tensordot(J[index], t, parameter.ndim), pushed, atol=1e-8)


def test_a_parameter_that_elements_share(layer):
    A_value, b_value, lam_value = point(3)
    solution, shared = layer.solve(A_value, b_value, lam_value[0]), np.full(3, lam_value[0])
    full = layer.solve(A_value, b_value, shared)
    for i in range(3):
        np.testing.assert_allclose(solution.jacobian("lam", i), full.jacobian("lam", i), atol=1e-9)


def test_one_factorisation(layer, monkeypatch):
    made = []
    real = KKTDerivative.__init__
    monkeypatch.setattr(
        KKTDerivative, "__init__", lambda self, *args, **kw: made.append(1) or real(self, *args, **kw)
    )
    layer.solve(*point(4)).jacobian()
    assert len(made) == 1


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_many_at_once_are_each_by_itself(layer, batch, count):
    rng = np.random.default_rng(1)
    solution = layer.solve(*point(*batch))
    gs = [rng.standard_normal((count, *v.shape)) for v in solution.values]
    pulled = solution.vjp(*gs)
    some = solution.vjp(gs[0], None, None, needed=[False, True, False])
    ts = [rng.standard_normal((count, *v.shape)) for v in point(*batch)]
    pushed = solution.jvp(*ts)
    assert [g.shape for g in pulled] == [t.shape for t in ts]
    assert [v.shape for v in pushed] == [g.shape for g in gs]
    assert some[0] is None and some[1].shape == ts[1].shape
    for k in range(count):
        for many, one in zip(pulled, solution.vjp(*(g[k] for g in gs)), strict=True):
            np.testing.assert_allclose(many[k], one, rtol=1e-12)
        for many, one in zip(pushed, solution.jvp(*(t[k] for t in ts)), strict=True):
            np.testing.assert_allclose(many[k], one, rtol=1e-12)


def test_what_is_refused(layer):
    solution = layer.solve(*point())
    with pytest.raises(ValueError, match="either all cotangents have a first axis"):
        solution.vjp(np.ones((2, 2)), np.ones(()), None)
    with pytest.raises(ValueError, match="either all tangents have a first axis"):
        solution.jvp(np.ones((2, 3, 2)), np.ones((4, 3)), None)
    with pytest.raises(ValueError, match="parameter 'c': there is none of the name; the layer has 'A', 'b'"):
        solution.jacobian("c", x)
    with pytest.raises(ValueError, match="output 7"):
        solution.jacobian(A, 7)
    Z, C = cp.Variable((2, 2), hermitian=True, name="Z"), cp.Parameter((2, 2), complex=True)
    of_complex = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(Z - C)), [Z >> 0]), [C], [Z])
    with pytest.raises(ValueError, match="is complex, and has no matrix of derivatives"):
        of_complex.solve(np.eye(2) * 1j).jacobian(C, Z)
