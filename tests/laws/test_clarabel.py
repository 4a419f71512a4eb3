"""Clarabel beside SCS: refined they are one point, and their certificates prove the same.

Certificates are judged by residuals that are computed here, from the definition.
"""

from __future__ import annotations

import time
import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.cones import ProductCone
from conediff.solver import schedule, stages
from conediff.solver.certificates import Certificates
from conediff.solver.clarabel import solve_by_clarabel
from conediff.solver.clarabel_cones import clarabel_work, in_clarabel
from conediff.solver.constants import CLARABEL_WORK
from conediff.solver.settings import Settings
from tests.programs import CONES, distance, draw, random_cones

CLARABEL_ALONE = [stages.CLARABEL]


@pytest.fixture
def rng():
    return np.random.default_rng(30)


@pytest.fixture
def without_scs(monkeypatch):
    """Let the schedule be Clarabel and Newton's method alone."""
    monkeypatch.setattr(schedule, "stages_for", lambda settings, given, last: CLARABEL_ALONE if given else [])


def infeasible(known):
    """The program with x'A'y = 0 in place of its objective's and b'y < 0: y of its solution is a certificate.

    A's columns lose their component along y, and b gets one.
    """
    p, y = known.program, known.y
    A = p.A.toarray()
    A -= np.outer(y, y @ A) / (y @ y)
    b = p.b - y * (y @ p.b + 1) / (y @ y)
    return cd.ConeProgram(A, b, p.c, p.cones, p.P)


def unbounded(rng, known):
    """A feasible program that improves along x: A x = -s with s in K, P x = 0 and c'x = -1."""
    p, s = known.program, known.s
    x = rng.standard_normal(p.n)
    A, b = p.A.toarray(), known.s + p.A @ known.x
    A -= np.outer(A @ x + s, x) / (x @ x)
    b = A @ known.x + known.s
    c = p.c - x * (x @ p.c + 1) / (x @ x)
    P = p.P.toarray()
    projector = np.eye(p.n) - np.outer(x, x) / (x @ x)
    return cd.ConeProgram(A, b, c, p.cones, projector @ P @ projector)


def check_certificate(program, status, x, y, s):
    """Check b'y = -1, A'y = 0, y in K*; or c'x = -1, P x = 0, A x + s = 0, s in K."""
    cone = program.structure.cone
    if status == "infeasible":
        size = np.abs(y).max()
        assert program.b @ y == pytest.approx(-1)
        assert np.abs(program.A.T @ y).max() <= 1e-6 * size
        assert np.abs(cone.project_dual(y).point - y).max() <= 1e-6 * size
    else:
        size = np.abs(x).max()
        assert program.c @ x == pytest.approx(-1)
        assert np.abs(program.P @ x).max() <= 1e-6 * size
        assert np.abs(program.A @ x + s).max() <= 1e-6 * size
        assert np.abs(cone.project_dual(-s).point).max() <= 1e-6 * size


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("with_P", [True, False], ids=["P", "LP"])
class TestEveryCone:
    def test_its_point_is_near_the_solution(self, name, with_P):
        known = draw(np.random.default_rng(1), CONES[name], with_P, sparse=True)
        raw = solve_by_clarabel(known.program.structure, known.program.data, {})
        assert raw.status in ("solved", "inaccurate")
        assert distance((raw.x[0], raw.y[0], raw.s[0]), known.solution) < 1e-2

    def test_refined_it_is_the_solution(self, name, with_P, without_scs):
        for seed in range(3):
            known = draw(np.random.default_rng(seed), CONES[name], with_P, sparse=seed == 1)
            solution = cd.solve(known.program)
            assert solution.info["solver"] == "clarabel"
            assert distance((solution.x, solution.y, solution.s), known.solution) < 1e-6

    def test_the_choice_of_the_solver_changes_no_solution(self, name, with_P):
        known = draw(np.random.default_rng(2), CONES[name], with_P)
        found = [cd.solve(known.program, solver=solver) for solver in ("scs", "clarabel")]
        assert [r.info["solver"] for r in found] == ["scs", "clarabel"]
        one, other = ((r.x, r.y, r.s) for r in found)
        assert distance(one, other) < 1e-6


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("solver", ["scs", "clarabel"])
class TestCertificates:
    def test_of_infeasible_programs(self, name, solver):
        program = infeasible(draw(np.random.default_rng(3), CONES[name], False))
        solution = cd.solve(program, solver=solver, on_failure="nan")
        assert solution.status in ("infeasible", "unbounded"), "now and then it is both"
        assert solution.info["solver"] in ("scs", "clarabel")
        check_certificate(program, solution.status, solution.x, solution.y, solution.s)

    def test_of_unbounded_programs(self, rng, name, solver):
        program = unbounded(rng, draw(np.random.default_rng(3), CONES[name], True))
        solution = cd.solve(program, solver=solver, on_failure="nan")
        assert solution.status == "unbounded"
        check_certificate(program, "unbounded", solution.x, solution.y, solution.s)


class TestBatches:
    """Hard elements in every position: each has its own status, and the others do not notice."""

    COUNT = 5

    def stack(self, rng, name):
        """Return programs of one structure: solvable ones, and an unbounded one."""
        known = draw(np.random.default_rng(4), CONES[name], True)
        p = known.program
        good = [
            cd.ConeProgram(
                p.A,
                p.b + 1e-3 * rng.standard_normal(p.m),
                p.c + 1e-3 * rng.standard_normal(p.n),
                p.cones,
                p.P,
            )
            for _ in range(self.COUNT)
        ]
        return good, unbounded(rng, known)

    @pytest.mark.parametrize("solver", ["scs", "clarabel"])
    @pytest.mark.parametrize("name", ["nonnegative", "soc_3", "psd_2", "exponential", "mixed"])
    def test_an_unbounded_element(self, rng, name, solver):
        good, bad = self.stack(rng, name)
        alone = [cd.solve(program, solver=solver, on_failure="nan") for program in good]
        for place in range(self.COUNT + 1):
            batch = [*good[:place], bad, *good[place:]]
            found = cd.solve_batch(batch, solver=solver, on_failure="nan")
            assert found.status[place] == "unbounded"
            check_certificate(bad, "unbounded", found.x[place], found.y[place], found.s[place])
            rest = [found[k] for k in range(len(batch)) if k != place]
            for one, other in zip(rest, alone, strict=True):
                assert one.status == other.status
                if one.status == "solved":
                    assert distance((one.x, one.y, one.s), (other.x, other.y, other.s)) < 1e-6

    def test_an_infeasible_element_and_who_solved_what(self, rng):
        A = np.vstack([np.eye(2), -np.eye(2)])
        program = cd.ConeProgram(A, np.ones(4), np.ones(2), {"l": 4}, np.eye(2))
        for place in range(self.COUNT):
            b = 1 + rng.random((self.COUNT, 4))
            b[place] = -1
            found = cd.solve_batch(program, b=b, on_failure="nan")
            assert list(found.status) == ["infeasible" if k == place else "solved" for k in range(len(b))]
            assert found.info["solver"][place] == "clarabel"
            assert list(cd.solve_batch(program, b=abs(b)).info["solver"]) == ["scs"] * len(b)

    def test_threads_do_not_matter(self, rng):
        good, _ = self.stack(rng, "mixed")
        one, two = (cd.solve_batch(good, solver="clarabel", threads=threads) for threads in (1, 2))
        for part in ("x", "y", "s"):
            np.testing.assert_array_equal(getattr(one, part), getattr(two, part))


class TestTransformations:
    def test_rows_without_a_bound(self):
        cones = {"bl": [-np.inf, -1.0, -np.inf, 2.0], "bu": [np.inf, np.inf, 1.0, 2.0]}
        found = in_clarabel(ProductCone.from_dict(cones))
        assert list(found.free) == [1]
        assert [name for name, _ in found.cones] == ["NonnegativeConeT"] * 3 + ["ZeroConeT"]

    @pytest.mark.parametrize("seed", range(10))
    def test_the_map_back_undoes_the_map_forth(self, seed):
        cone = ProductCone.from_dict(random_cones(np.random.default_rng(seed)))
        found = in_clarabel(cone)
        identity = (found.from_clarabel @ found.to_clarabel).toarray()
        identity[found.free, found.free] += 1
        np.testing.assert_allclose(identity, np.eye(cone.dim), atol=1e-12)

    @pytest.mark.parametrize("bound", [1e8, 1e15, 1e20, 1e30])
    @pytest.mark.parametrize("more", [{}, {"cs": [2]}, {"s": [4]}], ids=str)
    def test_a_bound_far_away(self, rng, bound, more):
        cones = {"l": 3, **more}
        A = rng.standard_normal((ProductCone.from_dict(cones).dim, 2))
        b = np.ones(len(A))
        near = cd.solve(cd.ConeProgram(np.delete(A, 0, 0), b[1:], np.ones(2), {**cones, "l": 2}, np.eye(2)))
        b[0] = bound
        program = cd.ConeProgram(A, b, np.ones(2), cones, np.eye(2))
        raw = solve_by_clarabel(program.structure, program.data, {})
        assert raw.status in ("solved", "inaccurate")
        np.testing.assert_allclose(raw.x[0], near.x, atol=1e-3)
        np.testing.assert_allclose(raw.s[0, 0], bound, rtol=1e-6)

    def test_programs_without_rows(self):
        def status(P, c):
            p = cd.ConeProgram(np.zeros((0, 2)), [], c, {}, P)
            return solve_by_clarabel(p.structure, p.data, {}).status

        assert status(np.eye(2), np.ones(2)) == "solved"
        assert status(None, np.ones(2)) == "unbounded"

    def test_large_dense_psd_cones_come_last(self):
        def work(order, dense):
            rows = order * (order + 1) // 2
            A = sp.csc_array(np.ones((rows, 1))) if dense else sp.random_array((rows, 1), density=0.02)
            p = cd.ConeProgram(A, np.zeros(rows), [1.0], {"z": 0, "s": [order]})
            return clarabel_work(p.structure, p.data)

        assert work(40, True) == 0
        assert work(100, False) < CLARABEL_WORK < work(100, True)
        first, last = (stages.stages_for(Settings(), stages.STAGES, late) for late in (False, True))
        assert [stage.solver for stage in first].index("clarabel") == 4
        assert list(last) == [s for s in first if s.solver == "scs"] + CLARABEL_ALONE


class TestChecks:
    """A certificate is accepted only if it is one."""

    @pytest.fixture
    def judged(self):
        program = cd.ConeProgram([[1.0], [-1.0]], [-1.0, -1.0], [1.0], {"l": 2})
        return Certificates(program.structure, program.data)

    @pytest.mark.parametrize(
        ("y", "holds"),
        [
            ([0.5, 0.5], True),
            ([0.5, 0.5 + 1e-9], True),
            ([0.5, 0.51], False),
            ([-0.5, -0.5], False),
            ([1.5, -0.5], False),
            ([0, 0], False),
            ([np.nan, 1], False),
        ],
    )
    def test_of_infeasibility(self, judged, y, holds):
        assert judged.prove_infeasibility(np.array([y], dtype=float))[0] == holds

    @pytest.mark.parametrize(("x", "holds"), [([-1, 0], True), ([1, 0], False), ([-1, 1e-3], False)])
    def test_of_unboundedness(self, x, holds):
        program = cd.ConeProgram([[1.0, 0.0]], [1.0], [1.0, 0.0], {"l": 1}, np.diag([0.0, 1.0]))
        judged = Certificates(program.structure, program.data)
        assert judged.prove_unboundedness(np.array([x], dtype=float))[0] == holds

    def test_a_residual_is_compared_with_the_gain(self):
        """y has entries of 1e9, b'y is -1: A'y of 1 proves nothing, though it is 1e-9 of its terms."""
        program = cd.ConeProgram([[1.0], [-1.0]], [1.0, -1.0 - 1e-9], [1.0], {"l": 2})
        y = np.array([[1e9, 1e9 - 1]])
        assert not Certificates(program.structure, program.data).prove_infeasibility(y)[0]


class TestTimeLimit:
    """It holds for the whole call, and the user is told."""

    @pytest.fixture
    def large(self, rng):
        C = rng.standard_normal((60, 60))
        X = cp.Variable((60, 60), PSD=True)
        problem = cp.Problem(cp.Minimize(cp.trace((C + C.T) @ X)), [cp.diag(X) == 1, X >= -0.5])
        data = problem.get_problem_data(cp.SCS)[0]
        dims = data["dims"]
        return cd.ConeProgram(
            data["A"], data["b"], data["c"], {"z": dims.zero, "l": dims.nonneg, "s": list(dims.psd)}
        )

    @pytest.mark.parametrize("settings", [{}, {"solver": "clarabel"}, {"refine": False}], ids=str)
    def test_of_a_large_program(self, large, settings):
        began = time.perf_counter()
        with pytest.raises(cd.SolverError, match="time limit of 0.1 s"):
            cd.solve(large, time_limit_secs=0.1, **settings)
        assert time.perf_counter() - began < 5

    def test_that_is_over_at_once(self):
        program = cd.ConeProgram([[-1.0]], [-1.0], [2.0], {"l": 1})
        found = cd.solve_batch([program, program], time_limit_secs=1e-9, on_failure="nan")
        assert list(found.status) == ["failed", "failed"] and list(found.info["solver"]) == ["", ""]
        with pytest.raises(cd.SolverError, match=r"2 of 2 elements.*time limit of 1e-09 s"):
            cd.solve_batch([program, program], time_limit_secs=1e-9)

    def test_that_is_not_reached_changes_nothing(self):
        known = draw(np.random.default_rng(5), CONES["mixed"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            free, limited = cd.solve(known.program), cd.solve(known.program, time_limit_secs=100.0)
        np.testing.assert_array_equal(limited.x, free.x)
        assert cd.solve(known.program, time_limit_secs=0).status == "solved", "0 is no limit"

    @pytest.mark.parametrize("limit", [-1.0, np.nan, np.inf, "1", True])
    def test_values(self, limit):
        with pytest.raises(ValueError, match="time_limit_secs"):
            Settings().updated({"time_limit_secs": limit})
