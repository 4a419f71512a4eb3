"""conediff in diffcp's place: cvxpy's backward and derivative, and that all is put back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings

import cvxpy as cp
import numpy as np
import pytest
from cvxpy.reductions.solvers import defines

import conediff as cd
import conediff.compat


@pytest.fixture
def installed():
    with conediff.compat.install() as replacement:
        yield replacement


def differentiate(problem, cotangents, **options):
    """Solve, and pull the cotangents of the variables back, as cvxpy does it."""
    problem.solve(requires_grad=True, **options)
    for variable, g in cotangents.items():
        variable.gradient = g
    problem.backward()
    return [p.gradient for p in problem.parameters()]


@pytest.mark.parametrize("options", [{}, {"solve_method": "SCS", "eps": 1e-3}, {"solve_method": "CLARABEL"}])
def test_a_quadratic_objective(installed, options):
    """x* = max(p, 0), to full accuracy also where a loose tolerance was asked for."""
    x, p = cp.Variable(3), cp.Parameter(3, value=np.array([1.0, -1.0, 0.3]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    (gradient,) = differentiate(problem, {x: np.array([1.0, 10.0, 100.0])}, **options)
    assert problem.status == "optimal"
    np.testing.assert_allclose(x.value, [1, 0, 0.3], atol=1e-8)
    np.testing.assert_allclose(gradient, [1, 0, 100], atol=1e-6)
    p.delta = np.ones(3)
    problem.derivative()
    np.testing.assert_allclose(x.delta, [1, 0, 1], atol=1e-8)
    assert problem.solver_stats.solve_time > 0 and problem.solver_stats.num_iters >= 0


@pytest.mark.parametrize("method", ["SCS", "CLARABEL", "ECOS"])
def test_a_power_cone(installed, method):
    """Case A."""
    x, p = cp.Variable(2), cp.Parameter(2, value=np.array([-1.0, -2.0]))
    problem = cp.Problem(cp.Maximize(p @ x), [cp.PowCone3D(x[0], x[1], 1, 0.3), cp.sum(x) <= 3])
    rows = [differentiate(problem, {x: e}, solve_method=method)[0] for e in np.eye(2)]
    np.testing.assert_allclose(x.value, [0.89771, 1.04733], atol=1e-5)
    np.testing.assert_allclose(rows, [[0.6284, -0.3142], [-0.3142, 0.1571]], atol=1e-4)


@pytest.mark.parametrize("method", ["SCS", "CLARABEL", "ECOS"])
@pytest.mark.parametrize(("sense", "status"), [(cp.Minimize, "infeasible"), (cp.Maximize, "unbounded")])
def test_a_problem_without_a_solution(installed, method, sense, status):
    x, p = cp.Variable(), cp.Parameter(value=1.0)
    below = [x <= p - 2] if status == "infeasible" else []
    problem = cp.Problem(sense(x), [x >= p, *below])
    problem.solve(requires_grad=True, solve_method=method)
    assert problem.status == status
    with pytest.raises(cp.SolverError, match="infeasible/unbounded"):
        problem.backward()


def test_warm_start(installed):
    x, p = cp.Variable(2), cp.Parameter(2, value=np.ones(2))
    problem = cp.Problem(cp.Minimize(cp.norm(x - p) + cp.norm1(x)), [])
    problem.solve(requires_grad=True)
    problem.solve(requires_grad=True, warm_start=True)
    assert problem.solver_stats.num_iters == 0


def test_warnings_point_at_the_users_line(installed):
    """max(p, 0) at p = 0."""
    x, p = cp.Variable(), cp.Parameter(value=0.0)
    problem = cp.Problem(cp.Minimize(cp.square(x - p)), [x >= 0])
    problem.solve(requires_grad=True)
    with pytest.warns(cd.DegeneracyWarning) as caught:
        problem.backward()
    assert caught[0].filename == __file__


def test_everything_is_put_back():
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "diffcp"}
    lists = list(defines.INSTALLED_SOLVERS), list(defines.INSTALLED_CONIC_SOLVERS)
    outer = conediff.compat.install()
    with conediff.compat.install() as inner:
        import diffcp
        import diffcp.cones

        assert diffcp is conediff.compat and diffcp.cones is conediff.compat.cones
        assert "in diffcp's place" in repr(inner)
    assert sys.modules["diffcp"] is conediff.compat
    outer.uninstall()
    outer.uninstall()
    after = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "diffcp"}
    assert after == before and "ended" in repr(outer)
    assert (defines.INSTALLED_SOLVERS, defines.INSTALLED_CONIC_SOLVERS) == lists


@pytest.mark.parametrize("first", ["import cvxpy as cp", ""], ids=["cvxpy first", "conediff first"])
def test_without_diffcp(first):
    """In a process that cannot import diffcp."""
    program = textwrap.dedent(
        f"""
        from importlib.machinery import PathFinder

        find = PathFinder.find_spec
        PathFinder.find_spec = lambda name, *args: None if name == "diffcp" else find(name, *args)
        {first}
        import conediff.compat

        def solve():
            import cvxpy as cp
            x, p = cp.Variable(), cp.Parameter(value=3.0)
            problem = cp.Problem(cp.Minimize(cp.square(x - 2 * p)), [x >= 0])
            problem.solve(requires_grad=True)
            problem.backward()
            return p.gradient

        with conediff.compat.install():
            assert abs(solve() - 2) < 1e-9
        try:
            solve()
        except ModuleNotFoundError as error:
            assert "diffcp must be installed" in str(error)
        else:
            raise AssertionError
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_interface_is_new_enough_for_cvxpy(installed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        defines.DIFFCP_con().import_solver()
    assert all(part.isdigit() for part in conediff.compat.__version__.split("."))
