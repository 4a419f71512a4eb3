"""The forward pass: solutions reach the tolerance, whatever the scale, the neighbours or the stage.

A solution is judged by residuals that are computed here, from the definition, and by no code of the library.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.program import ConeData, ConeProgram, Point
from conediff.scaling.magnitude import Magnitude
from conediff.solver import constants
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.newton import damped_newton, full_newton
from conediff.solver.settings import Settings

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "maros_meszaros"
PROBLEMS = sorted(DATA.glob("*.mat"))


def point(structure, x, v):
    """x, y and s of v = y - s."""
    y = structure.cone.project_dual(v).point
    return Point(x, y, y - v)


def solve(program, data=None, **settings):
    return BatchSolver(program.structure).solve(program.data if data is None else data, Settings(**settings))


def violation(program, x, y, s):
    """Largest of the KKT conditions' violations, each relative to its largest term."""
    P, A, b, c = program.P, program.A, program.b, program.c
    dual = np.abs(P @ x + A.T @ y + c).max(initial=0) / size(P @ x, A.T @ y, c)
    primal = np.abs(A @ x + s - b).max(initial=0) / size(A @ x, s, b)
    cone = program.structure.cone
    inside = np.abs(cone.project_dual(y - s).point - y).max(initial=0) / size(y, s)
    return max(dual, primal, inside)


def size(*terms):
    return max([np.abs(term).max(initial=0) for term in terms] + [1e-10])


def quadratic_program(rng, n=6, equalities=2, inequalities=5):
    """A bounded, feasible quadratic program, and with it a stack of its like."""
    root = rng.standard_normal((n, n))
    A = rng.standard_normal((equalities + inequalities, n))
    slack = np.r_[np.zeros(equalities), rng.random(inequalities)]
    b = A @ rng.standard_normal(n) + slack
    return ConeProgram(A, b, rng.standard_normal(n), {"z": equalities, "l": inequalities}, root @ root.T)


def stack(program, count, rng):
    """So many programs that differ in c; all arrays are written out and may be changed."""
    data = program.data
    repeated = [np.repeat(part, count, axis=0) for part in (data.P, data.A, data.b, data.c)]
    repeated[3] += 0.3 * rng.standard_normal(repeated[3].shape)
    return ConeData(*repeated)


def maros_meszaros(path):
    """minimise x'Px/2 + q'x subject to l <= Ax <= u."""
    raw = scipy.io.loadmat(path)
    lower, upper = raw["l"].ravel().astype(float), raw["u"].ravel().astype(float)
    A, P = sp.csr_array(raw["A"]).astype(float), sp.csc_array(raw["P"]).astype(float)
    equal = np.flatnonzero(lower == upper)
    above = np.flatnonzero((upper < 1e19) & (lower != upper))
    below = np.flatnonzero((lower > -1e19) & (lower != upper))
    rows = sp.vstack([A[equal], A[above], -A[below]])
    b = np.concatenate([upper[equal], upper[above], -lower[below]])
    cones = {"z": equal.size, "l": above.size + below.size}
    return ConeProgram(rows, b, raw["q"].ravel(), cones, (P + P.T) / 2)


class TestRefinement:
    @pytest.mark.parametrize("tol", [1e-6, 1e-10])
    def test_reaches_the_tolerance_and_says_what_it_reached(self, rng, tol):
        program = quadratic_program(rng)
        solution = solve(program, tol=tol)
        assert solution.status[0] == "solved"
        assert solution.residual[0] <= tol
        assert violation(program, solution.x[0], solution.y[0], solution.s[0]) <= tol

    def test_what_is_accurate_is_not_touched(self, rng):
        program = quadratic_program(rng)
        solution = solve(program)
        v = solution.y - solution.s
        refined = damped_newton(
            KKTSystem(program.structure), program.data, point(program.structure, solution.x, v), tol=1e-9
        )
        assert refined.steps[0] == 0
        assert np.array_equal(refined.x, solution.x)

    def test_never_worsens_a_residual(self, rng):
        program = quadratic_program(rng)
        data = stack(program, 40, rng)
        x, v = 10 * rng.standard_normal((40, program.n)), 10 * rng.standard_normal((40, program.m))
        before = Residual(program.structure, data)(x, v)
        refined = damped_newton(
            KKTSystem(program.structure), data, point(program.structure, x, v), tol=1e-10, max_steps=3
        )
        after = Residual(program.structure, data)(refined.x, refined.y - refined.s)
        assert (after.merit(before.scale1, before.scale2) <= before.merit(before.scale1, before.scale2)).all()
        assert np.allclose(after.relative, refined.residual, rtol=1e-3, atol=1e-14)

    def test_a_start_that_is_not_finite_stays_alone(self, rng):
        program = quadratic_program(rng)
        data = stack(program, 3, rng)
        x, v = np.zeros((3, program.n)), np.zeros((3, program.m))
        alone = damped_newton(
            KKTSystem(program.structure),
            data.take(np.array([0, 2])),
            point(program.structure, x[:2], v[:2]),
            tol=1e-10,
        )
        x[1] = np.nan
        together = damped_newton(
            KKTSystem(program.structure), data, point(program.structure, x, v), tol=1e-10
        )
        assert np.isinf(together.residual[1])
        assert np.allclose(together.x[[0, 2]], alone.x, rtol=1e-12)

    def test_full_steps_find_the_active_set_though_the_residual_rises(self, rng):
        program = quadratic_program(rng)
        data = stack(program, 40, rng)
        x, v = rng.standard_normal((40, program.n)), rng.standard_normal((40, program.m))
        start = point(program.structure, x, v)
        found = full_newton(KKTSystem(program.structure), data, start, tol=1e-10)
        after = Residual(program.structure, data)(found.x, found.y - found.s)
        before = Residual(program.structure, data)(x, v)
        assert (found.residual <= before.relative).all()
        assert np.allclose(after.relative, found.residual, rtol=1e-3, atol=1e-14)
        one = [
            full_newton(KKTSystem(program.structure), data, start, tol=1e-10, max_steps=k).residual
            for k in (1, 2, 3)
        ]
        assert (one[0] >= one[1]).all() and (one[1] >= one[2]).all()

    def test_full_steps_that_lead_nowhere_end_soon(self):
        """x >= 1 and x <= -1: the best point is kept, after three steps that did not help."""
        program = ConeProgram(
            np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0]), np.zeros(1), {"l": 2}, np.eye(1)
        )
        x, y, s = np.zeros((1, 1)), np.full((1, 2), 0.5), np.full((1, 2), 0.1)
        start = Residual(program.structure, program.data)(x, y - s)
        found = full_newton(KKTSystem(program.structure), program.data, Point(x, y, s), tol=1e-10)
        assert found.steps[0] <= 5
        assert found.residual[0] <= start.relative[0]

    def test_parts_give_what_the_whole_gives(self, rng, monkeypatch):
        program = quadratic_program(rng)
        data = stack(program, 30, rng)
        whole = solve(program, data)
        monkeypatch.setattr(constants, "ENTRIES_WITHOUT_PARTS", 1)
        monkeypatch.setattr(constants, "ENTRIES_OF_A_PART", 7 * KKTSystem(program.structure).pattern.nnz)
        cut = solve(program, data)
        assert len(cut.factors) == 8
        assert np.allclose(cut.x, whole.x, rtol=1e-12)
        assert np.array_equal(cut.refinements, whole.refinements)

    def test_linearly_dependent_rows_do_not_stop_the_factorisation(self):
        # Integers, so that the pivots vanish exactly where rounding eats the regularisation.
        A = np.vstack([np.ones((4, 3)), np.eye(3), -np.eye(3)])
        b = np.r_[np.ones(4), np.ones(3), np.zeros(3)]
        program = ConeProgram(A, b, np.array([1.0, 2.0, 3.0]), {"z": 4, "l": 6})
        solution = solve(program)
        assert solution.status[0] == "solved"
        assert np.allclose(solution.x, [1, 0, 0], atol=1e-9)


class TestScale:
    @pytest.mark.parametrize("exponent", [-12, -6, -3, 3, 6, 12])
    @pytest.mark.parametrize("what", ["objective", "rows", "vectors"])
    def test_does_not_matter(self, rng, exponent, what):
        program, factor = quadratic_program(rng), 10.0**exponent
        P, A, b, c = program.P, program.A, program.b, program.c
        scaled, x_factor, y_factor = {
            "objective": ((A, b, c * factor, program.cones, P * factor), 1, factor),
            "rows": ((A * factor, b * factor, c, program.cones, P), 1, 1 / factor),
            "vectors": (
                (A, b * factor, c * factor, program.cones, P),
                factor,
                factor,
            ),
        }[what]
        expected, solution = solve(program), solve(ConeProgram(*scaled))
        assert solution.status[0] == "solved"
        assert np.allclose(solution.x / x_factor, expected.x, rtol=1e-8, atol=1e-8)
        assert np.allclose(solution.y / y_factor, expected.y, rtol=1e-8, atol=1e-8)

    def test_differs_within_a_pile(self, rng):
        program = quadratic_program(rng)
        data = stack(program, 12, rng)
        expected = solve(program, data)
        factor = 10.0 ** rng.uniform(-8, 8, (12, 1))
        solution = solve(program, ConeData(data.P * factor, data.A, data.b, data.c * factor))
        assert np.allclose(solution.x, expected.x, rtol=1e-8, atol=1e-8)
        assert np.allclose(solution.y / factor, expected.y, rtol=1e-8, atol=1e-8)

    def test_ordinary_programs_are_not_scaled(self, rng):
        assert Magnitude.of(quadratic_program(rng).data).is_identity

    def test_a_warm_start_is_scaled_too(self, rng):
        program = quadratic_program(rng)
        tiny = ConeProgram(program.A, program.b, program.c * 1e-9, program.cones, program.P * 1e-9)
        solver, first = BatchSolver(tiny.structure), solve(tiny)
        again = solver.solve(tiny.data, Settings(), first.point)
        assert again.iterations[0] == 0
        assert again.status[0] == "solved"

    @pytest.mark.parametrize("factor", [1e-8, 1.0, 1e8])
    def test_certificates_keep_their_size(self, factor):
        A, b = factor * np.array([[1.0], [-1.0]]), factor * np.array([-1.0, -1.0])
        y = solve(ConeProgram(A, b, np.ones(1) / factor, {"l": 2})).y[0]
        assert b @ y == pytest.approx(-1)
        assert abs(A.T @ y) <= 1e-6 * factor * np.abs(y).max()
        unbounded = solve(ConeProgram(A[:1], -b[:1], np.ones(1) / factor, {"l": 1}))
        x, s = unbounded.x[0], unbounded.s[0]
        assert x[0] / factor == pytest.approx(-1)
        assert abs(A[0] @ x + s[0]) <= 1e-6 * factor * np.abs(x).max()

    def test_a_bound_far_away_hides_no_residual(self, rng):
        program = quadratic_program(rng)
        far = ConeProgram(
            np.vstack([program.A.toarray(), np.eye(program.n)]),
            np.r_[program.b, np.full(program.n, 1e20)],
            program.c,
            {"z": 2, "l": 5 + program.n},
            program.P,
        )
        assert np.allclose(solve(far).x, solve(program).x, rtol=1e-8, atol=1e-8)


class TestNeighbours:
    """One bad program in a pile: its own status says so, and the others do not notice."""

    COUNT, BAD = 24, 7

    @pytest.fixture
    def program(self, rng):
        return quadratic_program(rng)

    @pytest.fixture
    def data(self, program, rng):
        return stack(program, self.COUNT, rng)

    def check(self, program, data, expected, status):
        solution = solve(program, data)
        others = np.arange(self.COUNT) != self.BAD
        assert solution.status[self.BAD] == status
        assert (solution.status[others] == "solved").all()
        for part in ("x", "y", "s"):
            assert np.allclose(getattr(solution, part)[others], getattr(expected, part)[others], atol=1e-8)

    def test_infeasible(self, program, data):
        expected = solve(program, data)
        A = program.A.toarray()
        A[3] = -A[2]
        data.A[self.BAD] = A.T.ravel()
        data.b[self.BAD, 3] = -data.b[self.BAD, 2] - 1
        self.check(program, data, expected, "infeasible")

    def test_unbounded(self, program, data):
        expected = solve(program, data)
        data.P[self.BAD] = data.A[self.BAD] = data.b[self.BAD] = 0
        self.check(program, data, expected, "unbounded")

    @pytest.mark.parametrize("part", ["P", "A", "b", "c"])
    def test_not_a_number(self, program, data, part):
        expected = solve(program, data)
        getattr(data, part)[self.BAD, 0] = np.nan
        self.check(program, data, expected, "failed")


class TestSmallPrograms:
    def test_without_rows(self, rng):
        P, c = np.diag([1.0, 2.0, 4.0]), rng.standard_normal(3)
        none, nothing = sp.csc_array((0, 3)), np.zeros(0)
        assert np.allclose(solve(ConeProgram(none, nothing, c, {}, P)).x, -c / P.diagonal())
        assert solve(ConeProgram(none, nothing, c, {})).status[0] == "unbounded"
        assert solve(ConeProgram(none, nothing, c, {}, np.diag([1.0, 1.0, 0.0]))).status[0] == "unbounded"
        assert solve(ConeProgram(none, nothing, 0 * c, {})).status[0] == "solved"

    def test_with_equalities_alone(self, rng):
        A, b, c = rng.standard_normal((2, 4)), rng.standard_normal(2), rng.standard_normal(4)
        solution = solve(ConeProgram(A, b, c, {"z": 2}, np.eye(4)))
        saddle = np.block([[np.eye(4), A.T], [A, np.zeros((2, 2))]])
        expected = np.linalg.solve(saddle, np.r_[-c, b])
        assert np.allclose(np.r_[solution.x[0], solution.y[0]], expected, atol=1e-9)
        assert solve(ConeProgram(A, b, c, {"z": 2})).status[0] == "unbounded"

    def test_with_rows_said_twice(self, rng):
        A, b, c = rng.standard_normal((2, 4)), rng.standard_normal(2), rng.standard_normal(4)
        once = solve(ConeProgram(A, b, c, {"z": 2}, np.eye(4)))
        twice = solve(ConeProgram(np.vstack([A, A]), np.r_[b, b], c, {"z": 4}, np.eye(4)))
        assert np.allclose(twice.x, once.x, atol=1e-9)

    @pytest.mark.parametrize("cones", [{"z": 2}, {"l": 2}])
    def test_without_objective(self, rng, cones):
        A, b = rng.standard_normal((2, 4)), rng.standard_normal(2)
        program = ConeProgram(A, b, np.zeros(4), cones)
        solution = solve(program)
        assert solution.status[0] == "solved"
        assert violation(program, solution.x[0], solution.y[0], solution.s[0]) <= 1e-10

    def test_with_zeros_alone(self):
        program = ConeProgram(np.zeros((2, 2)), np.zeros(2), np.zeros(2), {"l": 2})
        assert solve(program).status[0] == "solved"
        impossible = ConeProgram(np.zeros((2, 2)), -np.ones(2), np.zeros(2), {"l": 2})
        assert solve(impossible).status[0] == "infeasible"


@pytest.mark.slow
@pytest.mark.parametrize("path", PROBLEMS, ids=[path.stem for path in PROBLEMS])
def test_real_problems_are_solved(path):
    """Maros and Mészáros's quadratic programs, many of them degenerate and badly scaled."""
    program = maros_meszaros(path)
    solution = solve(program)
    assert solution.status[0] == "solved"
    assert solution.iterations[0] <= 20_000
    assert violation(program, solution.x[0], solution.y[0], solution.s[0]) <= 1e-9


@pytest.fixture
def rng():
    return np.random.default_rng(20)
