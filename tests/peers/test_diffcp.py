"""conediff.compat beside diffcp itself: the same calls, and the same answers wherever diffcp's are right."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import conediff.compat as ours
from tests.programs import cotangent, draw

theirs = pytest.importorskip("diffcp")

TIGHT = {"eps": 1e-12, "max_iters": 200_000}
# n is drawn too, so that the derivative is well conditioned.
PROGRAMS = {
    "lp": {"z": 2, "l": 6},
    "socp": {"z": 1, "l": 3, "q": [4, 3]},
    "sdp": {"l": 2, "s": [3, 2]},
    "exponential": {"l": 2, "ep": 3},
    "mixed": {"z": 2, "l": 4, "q": [4], "s": [3], "ep": 2},
}


def programs(name, count=1, with_P=False):
    """Random programs as SCS takes them: A, b, c, cones, and directions dA, db, dc and cotangents."""
    result = []
    for seed in range(count):
        rng = np.random.default_rng(100 + seed)
        known = draw(rng, PROGRAMS[name], with_P=with_P, sparse=False, condition=1e3)
        p = known.program
        A = sp.csc_matrix(p.A)
        dA = sp.csc_matrix((rng.standard_normal(A.nnz), A.indices, A.indptr), shape=A.shape)
        direction = dA, rng.standard_normal(p.m), rng.standard_normal(p.n)
        result.append(((A, p.b, p.c, PROGRAMS[name]), direction, cotangent(rng, known), sp.csc_matrix(p.P)))
    return result


def same(left, right, tol):
    """Both tuples of arrays, relative to the largest entry, and of the same types."""
    for a, b in zip(left, right, strict=True):
        assert type(a) is type(b)
        a, b = (m.toarray() if sp.issparse(m) else m for m in (a, b))
        np.testing.assert_allclose(a, b, atol=tol * max(1.0, np.abs(b).max()), rtol=0)


@pytest.fixture(autouse=True)
def quiet():
    """diffcp warns where SCS does not quite reach 1e-12."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solved/Inaccurate")
        yield


@pytest.mark.parametrize(
    "name",
    [
        "solve_and_derivative",
        "solve_and_derivative_batch",
        "solve_and_derivative_internal",
        "solve_internal",
        "solve_only",
        "solve_only_batch",
    ],
)
def test_signatures(name):
    mine, other = (inspect.signature(getattr(module, name)).parameters for module in (ours, theirs))
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in other.values()
    ]


@pytest.mark.parametrize("name", ["ZERO", "POS", "SOC", "PSD", "EXP"])
def test_constants(name):
    assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mode", ["lsqr", "lsmr", "dense"])
def test_solutions_and_derivatives(name, mode):
    [(arguments, direction, g, _)] = programs(name)
    mine = ours.solve_and_derivative(*arguments, mode=mode, **TIGHT)
    other = theirs.solve_and_derivative(arguments[0].copy(), *arguments[1:], mode=mode, **TIGHT)
    same(mine[:3], other[:3], 1e-8)
    same(mine[3](*direction), other[3](*direction), 1e-5)
    same(mine[4](*g), other[4](*g), 1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mode", ["lpgd", "lpgd_left", "lpgd_right"])
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_lpgd(name, mode, rho):
    """Finite perturbations; without a proximal term SCS often does not finish diffcp's program for ds."""
    [(arguments, direction, g, _)] = programs(name)
    options = {"mode": mode, "derivative_kwargs": {"tau": 1e-2, "rho": rho}}
    mine = ours.solve_and_derivative(*arguments, eps=1e-12, **options)
    other = theirs.solve_and_derivative(arguments[0].copy(), *arguments[1:], **TIGHT, **options)
    same(mine[3](*direction), other[3](*direction), 1e-5)
    if rho == 0:
        g = (*g[:2], 0 * g[2])
    same(mine[4](*g), other[4](*g), 1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("triangle", ["upper", "whole"])
def test_lpgd_with_P(rho, triangle):
    """diffcp's dP is not compared: it lies on A's columns instead of P's sparsity."""
    [(arguments, direction, g, P)] = programs("socp", with_P=True)
    P = sp.triu(P).tocsc() if triangle == "upper" else P
    dP = sp.csc_matrix((np.random.default_rng(0).standard_normal(P.nnz), P.indices, P.indptr), shape=P.shape)
    dP = dP if triangle == "upper" else (dP + dP.T).tocsc()
    options = {"mode": "lpgd", "derivative_kwargs": {"tau": 1e-3, "rho": rho}, "P": P}
    mine = ours.solve_and_derivative(*arguments, eps=1e-12, **options)
    other = theirs.solve_and_derivative(arguments[0].copy(), *arguments[1:], **TIGHT, **options)
    same(mine[:3], other[:3], 1e-8)
    same(mine[3](*direction, dP), other[3](*direction, dP), 1e-5)
    g = (*g[:2], 0 * g[2])
    same(mine[4](*g), other[4](*g), 1e-5)


@pytest.mark.parametrize("name", ["lp", "mixed"])
def test_batches(name):
    drawn = programs(name, 5)
    As, bs, cs, cones = (list(column) for column in zip(*(one[0] for one in drawn), strict=True))
    directions = [list(column) for column in zip(*(one[1] for one in drawn), strict=True)]
    gs = [list(column) for column in zip(*(one[2] for one in drawn), strict=True)]
    options = {"n_jobs_forward": 2, "n_jobs_backward": 2, **TIGHT}
    mine = ours.solve_and_derivative_batch(As, bs, cs, cones, **options)
    other = theirs.solve_and_derivative_batch([A.copy() for A in As], bs, cs, cones, **options)
    for left, right in zip(mine[:3], other[:3], strict=True):
        same(left, right, 1e-8)
    for call, inputs in ((3, directions), (4, gs)):
        for left, right in zip(mine[call](*inputs), other[call](*inputs), strict=True):
            assert isinstance(left, list)
            same(left, right, 1e-5)
    only = ours.solve_only_batch(As, bs, cs, cones, n_jobs_forward=1, **TIGHT)
    for left, right in zip(only, other[:3], strict=True):
        same(left, right, 1e-8)


@pytest.mark.parametrize("mode", ["lsqr", "dense"])
def test_the_dual_exponential_cone(mode):
    """diffcp solves it and differentiates through it."""
    known = draw(np.random.default_rng(1), {"l": 2, "ed": 2}, with_P=False, condition=1e3)
    p, rng = known.program, np.random.default_rng(2)
    arguments = sp.csc_matrix(p.A), p.b, p.c, {"l": 2, "ed": 2}
    g = cotangent(rng, known)
    mine = ours.solve_and_derivative(*arguments, mode=mode)
    other = theirs.solve_and_derivative(arguments[0].copy(), *arguments[1:], mode=mode, **TIGHT)
    same(mine[:3], other[:3], 1e-8)
    same(mine[4](*g), other[4](*g), 1e-5)


def test_errors():
    infeasible = sp.csc_matrix([[1.0], [-1.0]]), np.array([-1.0, -1.0]), np.array([1.0]), {"l": 2}
    for module in (ours, theirs):
        with pytest.raises(module.SolverError, match="infeasible"):
            module.solve_and_derivative(infeasible[0].copy(), *infeasible[1:])
        with pytest.raises(ValueError, match="mode"):
            module.solve_and_derivative(*infeasible, mode="none")
        with pytest.raises(ValueError, match="OSQP"):
            module.solve_only(*infeasible, solve_method="OSQP")


def test_the_power_cone_where_diffcp_is_wrong():
    """Case A: x solves alike, and diffcp's derivative leaves the cone out."""
    A = sp.csc_matrix(np.array([[1.0, 1], [-1, 0], [0, -1], [0, 0]]))
    arguments = np.array([3.0, 0, 0, 1]), np.array([1.0, 2.0]), {"l": 1, "p": [0.3]}
    right = np.array([[0.6284, -0.3142], [-0.3142, 0.1571]])
    zero, none = sp.csc_matrix(A.shape), np.zeros(4)
    mine = ours.solve_and_derivative(A, *arguments)
    np.testing.assert_allclose([-mine[4](e, none, none)[2] for e in np.eye(2)], right, atol=1e-4)
    np.testing.assert_allclose(
        np.transpose([mine[3](zero, none, -e)[0] for e in np.eye(2)]), right, atol=1e-4
    )
    other = theirs.solve_and_derivative(A.copy(), *arguments, **TIGHT)
    np.testing.assert_allclose(mine[0], other[0], atol=1e-8)
    assert not np.allclose([-other[4](e, none, none)[2] for e in np.eye(2)], right, atol=1e-2)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_a_layer_of_cvxpylayers_runs_on_it(monkeypatch):
    """cvxpylayers calls diffcp through two functions of its module."""
    interface = pytest.importorskip("cvxpylayers.interfaces.diffcp_if")
    torch = pytest.importorskip("torch")
    cp = pytest.importorskip("cvxpy")
    from cvxpylayers.torch import CvxpyLayer

    x, A, b = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.pnorm(A @ x - b, p=1)), [x >= 0])
    layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
    torch.manual_seed(0)
    values = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    results, called = [], []
    for module in (theirs, ours):
        monkeypatch.setattr(interface, "diffcp", module)
        leaves = [value.clone().requires_grad_() for value in values]
        (solution,) = layer(*leaves, solver_args={"eps": 1e-10})
        (solution**2).sum().backward()
        results.append((solution.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)))
        called.append(module.__name__)
    assert called == ["diffcp", "conediff.compat"]
    same(results[1], results[0], 1e-5)


@pytest.mark.parametrize("method", ["SCS", "ECOS", "Clarabel"])
def test_reports(method):
    """The keys that callers read, the same words and values; SCS reports more about its own steps."""
    if method == "ECOS":
        pytest.importorskip("ecos")
    [((A, b, c, cones), *_)] = programs("lp")
    mine = ours.solve_and_derivative_internal(A, b, c, cones, solve_method=method)["info"]
    other = theirs.solve_and_derivative_internal(A.copy(), b, c, cones, solve_method=method)["info"]
    assert set(mine) <= set(other)
    if method != "SCS":
        assert set(mine) == set(other)
    assert mine["status"] == other["status"] and mine["pobj"] == pytest.approx(other["pobj"], rel=1e-2)
    assert mine.get("status_val") == other.get("status_val")


@pytest.mark.parametrize("method", ["SCS", "ECOS"])
def test_messages_that_programs_match_on(method):
    """diffcp with Clarabel raises nothing."""
    if method == "ECOS":
        pytest.importorskip("ecos")
    A = sp.csc_matrix([[1.0], [-1.0]])
    start = rf"^Solver {method.lower()} returned status [iI]nfeasible"
    for module in (ours, theirs):
        with pytest.raises(module.SolverError, match=start):
            module.solve_only(A.copy(), -np.ones(2), np.ones(1), {"z": 0, "l": 2}, solve_method=method)


def test_cones():
    cones = {"z": 1, "l": 2, "q": [3], "s": [3], "ep": 2, "ed": 1}
    x = np.random.default_rng(0).standard_normal(1 + 2 + 3 + 6 + 6 + 3)
    listed = ours.cones.parse_cone_dict(cones)
    assert listed == theirs.cones.parse_cone_dict(cones)
    for dual in (False, True):
        np.testing.assert_allclose(
            ours.cones.pi(x, listed, dual), theirs.cones.pi(x, listed, dual), atol=1e-7
        )
    X = ours.cones.unvec_symm(x[6:12], 3)
    np.testing.assert_allclose(X, theirs.cones.unvec_symm(x[6:12], 3))
    np.testing.assert_allclose(ours.cones.vec_symm(X), theirs.cones.vec_symm(X))
