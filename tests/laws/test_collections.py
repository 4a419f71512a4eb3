"""Laws on public problems: objectives are Clarabel's, certificates hold, statuses are never wrong.

The problems lie in ``../shared/data`` beside the checkout, and are skipped where they do not. These are quick
ones; ``python -m tests.benchmarks.collections`` measures all.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import conediff as cd
from tests.benchmarks import judge
from tests.benchmarks.readers.files import files_of, name_of, read
from tests.benchmarks.solvers import by_clarabel

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {name_of(path): path for path in files_of(DATA)} if DATA.is_dir() else {}
INFEASIBLE = ("galenet", "klein1", "refinery", "woodinfe", "isil01")
CONIC = ("car", "demb761", "fiac81a", "gp_dave_1", "rijc783", "sambal", "truss1")
LINEAR = ("QADLITTL", "QAFIRO", "QPCBLEND", "QSCAGR7", "QSHARE2B", "adlittle", "afiro", "e226", "israel")
QUADRATIC = ("CVXQP1_S", "CVXQP3_S", "DUAL4", "DUALC1", "DUALC5", "GENHS28", "HS118", "HS21", "HS35", "HS76")
LARGER = ("KSIP", "LOTSCHD", "MOSARQP2", "PRIMAL1", "TAME")
RIGHT = (*CONIC, *LINEAR, *QUADRATIC, *LARGER)
OPEN = {
    "QGROW7": "the residual stays at 2e-10, and counts as a failure in place of an inaccurate solution",
    "etamacro": "the residual stays at 2e-10, and counts as a failure in place of an inaccurate solution",
    "QISRAEL": "the residual stays at 4e-8; Clarabel's answer is inaccurate too",
    "PRIMALC1": "the residual stays at 9e-7, with a violated row of small terms",
}
REGULAR = ("demb761", "rijc783", "DUAL4", "DUALC1", "HS118", "KSIP", "MOSARQP2", "PRIMAL1")
DEGENERATE = {
    "CVXQP1_S": "K is singular, and LSQR stops before the least-squares answer is accurate",
    "QPCBLEND": "K is singular, and LSQR stops before the least-squares answer is accurate",
    "israel": "K is singular, and LSQR stops before the least-squares answer is accurate",
}
SLOW = {"PRIMALC1", *DEGENERATE}


def named(names, reasons=None):
    """Parameters of a test: problems, those with a reason as known to fail."""
    reasons = reasons or {}

    def marks(name):
        known = [pytest.mark.xfail(strict=True, reason=reasons[name])] if name in reasons else []
        return [*known, pytest.mark.slow] if name in reasons and name in SLOW else known

    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks(name)) for name in [*names, *reasons]]
    )


def problem(name):
    if name not in FILES:
        pytest.skip("the public problems are not beside the checkout")
    return read(FILES[name])


@cache
def solved(name):
    """A problem's solution, and the warnings on the way."""
    program = problem(name).program
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return cd.solve(program, on_failure="nan"), [warning.category for warning in caught]


@named(RIGHT, OPEN)
def test_objectives_and_residuals_are_right(name):
    pytest.importorskip("clarabel")
    stated, (solution, told) = problem(name), solved(name)
    assert solution.status == "solved" or (solution.status == "inaccurate" and cd.AccuracyWarning in told)
    if solution.status == "solved":
        assert judge.kkt_residual(stated.program, solution.x, solution.y, solution.s) <= 1e-9
    reference = by_clarabel(stated.program, 60.0)
    if reference.status == "solved":
        right = stated.objective(reference.x)
        assert stated.objective(solution.x) == pytest.approx(right, abs=1e-6 * max(1, abs(right)))


@named(INFEASIBLE)
def test_infeasible_problems_are_never_called_solved(name):
    program, (found, _) = problem(name).program, solved(name)
    assert found.status in ("infeasible", "failed")
    if found.status == "infeasible":
        assert judge.certificate_residual(program, found.status, found.x, found.y, found.s) < 1e-6


@named((*RIGHT, *INFEASIBLE))
def test_no_warning_but_ours_leaks(name):
    assert all(issubclass(category, cd.ConediffWarning) for category in solved(name)[1])


def test_what_is_not_convex_is_refused():
    program = problem("VALUES").program
    assert np.linalg.eigvalsh(program.P.toarray())[0] < 0
    with pytest.raises(cd.ProblemError, match="not convex"):
        cd.solve(program)


@named(REGULAR, DEGENERATE)
def test_vjp_is_the_adjoint_of_jvp(name):
    program, (solution, _) = problem(name).program, solved(name)
    rng = np.random.default_rng(0)
    u, dA = rng.standard_normal(program.n), program.A
    dA.data *= rng.standard_normal(dA.nnz)
    tangent = 0 * program.P, dA, program.b * rng.standard_normal(program.m), np.zeros(program.n)
    derivative = solution.derivative()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if name in DEGENERATE else "error", cd.ConediffWarning)
        answer, g = derivative.jvp(dA=dA, db=tangent[2]), derivative.vjp(dx=u)
    assert judge.adjoint_error(tangent, answer, u, g) <= 1e-8
    if name not in DEGENERATE:
        point = solution.x, solution.y, solution.s
        assert max(judge.linear_residuals(program, point, tangent, answer, u, g)) <= 1e-10
