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
LINEAR = (
    "QADLITTL",
    "QAFIRO",
    "QPCBLEND",
    "QSCAGR7",
    "QSHARE2B",
    "adlittle",
    "afiro",
    "e226",
    "etamacro",
    "israel",
)
QUADRATIC = ("CVXQP1_S", "CVXQP3_S", "DUAL4", "DUALC1", "DUALC5", "GENHS28", "HS118", "HS21", "HS35", "HS76")
LARGER = ("KSIP", "LOTSCHD", "MOSARQP2", "PRIMAL1", "QISRAEL", "TAME")
RIGHT = (*CONIC, *LINEAR, *QUADRATIC, *LARGER, "QGROW7", "PRIMALC1")
REGULAR = ("demb761", "rijc783", "DUAL4", "DUALC1", "HS118", "KSIP", "MOSARQP2", "PRIMAL1")
# Optimal values that the collections publish: Maros, Meszaros (1999); netlib's lp/data/readme (that of e226
# without the constant 7.113 of its file); etamacro: Koch (2004), The final NETLIB-LP results.
PUBLISHED = {
    "CVXQP1_S": 1.15907181e4,
    "CVXQP3_S": 1.19434322e4,
    "DUAL4": 7.46090842e-1,
    "DUALC1": 6.15525083e3,
    "DUALC5": 4.27232327e2,
    "GENHS28": 9.27173694e-1,
    "HS118": 6.64820450e2,
    "HS21": -9.99600000e1,
    "HS35": 1.11111111e-1,
    "HS76": -4.68181818,
    "KSIP": 5.75797941e-1,
    "LOTSCHD": 2.39841590e3,
    "MOSARQP2": -1.59748211e3,
    "PRIMAL1": -3.50129657e-2,
    "PRIMALC1": -6.15525083e3,
    "QADLITTL": 4.80318859e5,
    "QAFIRO": -1.59078179,
    "QISRAEL": 2.53478378e7,
    "QPCBLEND": -7.84254307e-3,
    "QSCAGR7": 2.68659486e7,
    "QSHARE2B": 1.17036917e4,
    "TAME": 0.0,
    "adlittle": 2.2549496316e5,
    "afiro": -4.6475314286e2,
    "e226": -1.8751929066e1 + 7.113,
    "etamacro": -7.557152333749e2,
    "israel": -8.9664482186e5,
}
DEGENERATE = ("CVXQP1_S", "CVXQP3_S", "QPCBLEND", "QGROW7", "QISRAEL", "israel", "e226", "car", "truss1")
LARGE_DEGENERATE = ("etamacro", "hinf1", "theta1", "truss5")


def named(names, known=None, slow=()):
    """Parameters of a test: problems, then those that are known to fail, with the reason."""
    known = known or {}
    parameters = [*names, *(name for name in known if name not in names)]

    def marks(name):
        failing = [pytest.mark.xfail(strict=True, reason=known[name])] if name in known else []
        return [*failing, pytest.mark.slow] if name in slow else failing

    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in parameters])


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


@named(RIGHT)
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


@named(PUBLISHED)
def test_objectives_are_the_published_ones(name):
    value, right = problem(name).objective(solved(name)[0].x), PUBLISHED[name]
    assert value == pytest.approx(right, rel=1e-8, abs=1e-9)  # nine digits are published


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


@named((*REGULAR, *DEGENERATE, *LARGE_DEGENERATE), slow=LARGE_DEGENERATE)
def test_vjp_is_the_adjoint_of_jvp(name):
    program, (solution, _) = problem(name).program, solved(name)
    rng = np.random.default_rng(0)
    u, dA = rng.standard_normal(program.n), program.A
    dA.data *= rng.standard_normal(dA.nnz)
    tangent = 0 * program.P, dA, program.b * rng.standard_normal(program.m), np.zeros(program.n)
    derivative = solution.derivative()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name not in REGULAR:
            warnings.simplefilter("ignore", cd.DegeneracyWarning)
        if name in LARGE_DEGENERATE:
            warnings.simplefilter("ignore", cd.AccuracyWarning)
        answer, g = derivative.jvp(dA=dA, db=tangent[2]), derivative.vjp(dx=u)
    assert judge.adjoint_error(tangent, answer, u, g) <= 1e-8
    if name in REGULAR:
        point = solution.x, solution.y, solution.s
        assert max(judge.linear_residuals(program, point, tangent, answer, u, g)) <= 1e-10
