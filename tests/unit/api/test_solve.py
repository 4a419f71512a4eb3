"""The front door: settings, warm starts, stacked data, and the errors of each."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import conediff as cd
from tests.programs import CONES, distance, draw

KNOWN = draw(np.random.default_rng(60), CONES["mixed"])
P = KNOWN.program


def test_the_example():
    program = cd.ConeProgram(np.array([[-1.0]]), [-1.0], [2.0], {"l": 1})
    solution = cd.solve(program)
    np.testing.assert_allclose([solution.x, solution.y, solution.s], [[1.0], [2.0], [0.0]], atol=1e-9)
    assert solution.status == "solved"
    assert repr(solution).startswith("Solution(status='solved', residual=")


def test_info():
    info = cd.solve(P).info
    times = {"setup_time", "solve_time", "refine_time"}
    assert set(info) == {"iterations", "refinements", "residual", "solver"} | times
    assert info["iterations"] > 0 and info["refinements"] > 0 and 0 <= info["residual"] <= 1e-10
    assert all(isinstance(value, (int, float)) for name, value in info.items() if name != "solver")
    assert info["solver"] == "scs"
    batch = cd.solve_batch([P, P]).info
    assert batch["residual"].shape == (2,) and list(batch["status"]) == ["solved"] * 2


@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
def test_tolerance_is_kept(tol):
    assert cd.solve(P, tol=tol).info["residual"] <= tol


def test_without_refinement_scs_does_it_alone():
    solution = cd.solve(P, refine=False, tol=1e-8, max_iters=200_000)
    assert solution.info["refinements"] == 0
    assert distance((solution.x, solution.y, solution.s), KNOWN.solution) < 1e-4


def test_what_is_stopped_early_is_never_silent():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        try:
            solution = cd.solve(P, refine=False, max_iters=20)
        except cd.SolverError as error:
            assert error.statuses == ("failed",)
            return
    assert solution.status == "inaccurate"
    assert any(issubclass(w.category, cd.AccuracyWarning) for w in record)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"epsilon": 1e-3}, TypeError, "'epsilon'; did you mean 'eps'. the known ones are: .*max_iters"),
        ({"tol": 0}, ValueError, "tol must lie between 0 and 1"),
        ({"tol": 2.0}, ValueError, "tol must lie"),
        ({"tol": "small"}, ValueError, "tol must lie"),
        ({"method": "qr"}, ValueError, "unknown method 'qr'; choose one of auto"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"threads": 1.5}, ValueError, "threads must be"),
        (
            {"on_failure": "ignore"},
            ValueError,
            "on_failure must be one of 'raise', 'nan', 'zero_grad', or a callable",
        ),
        ({"validate": False}, TypeError, "'validate' is an argument of layers"),
    ],
)
def test_settings_are_checked(settings, error, message):
    for solve in (lambda: cd.solve(P, **settings), lambda: cd.solve_batch([P], **settings)):
        with pytest.raises(error, match=message):
            solve()


def test_settings_may_be_numpys_own_numbers():
    solution = cd.solve(P, tol=np.float32(1e-8), threads=np.int64(1), max_iters=np.int32(500))
    assert solution.status == "solved"


@pytest.mark.parametrize("form", ["solution", "tuple", "list"])
def test_warm_start(form):
    first = cd.solve(P)
    start = first if form == "solution" else (list if form == "list" else tuple)([first.x, first.y, first.s])
    again = cd.solve(P, warm_start=start)
    assert again.info["iterations"] == 0 and distance([again.x], [first.x]) < 1e-9
    batch = cd.solve_batch([P, P])
    again = cd.solve_batch([P, P], warm_start=batch if form == "solution" else (batch.x, batch.y, batch.s))
    assert (again.info["iterations"] == 0).all()


def test_a_warm_start_of_a_neighbour_saves_scs():
    first = cd.solve(P)
    near = cd.ConeProgram(P.A, P.b + 1e-4, P.c, P.cones, P.P)
    assert cd.solve(near, warm_start=first).info["iterations"] == 0


def test_a_bad_warm_start_does_no_harm():
    rng = np.random.default_rng(61)
    for start in (
        (1e6 * rng.standard_normal(P.n), 1e6 * rng.standard_normal(P.m), 1e6 * rng.standard_normal(P.m)),
        (np.full(P.n, np.nan), np.zeros(P.m), np.zeros(P.m)),
        (np.zeros(P.n), np.zeros(P.m), np.zeros(P.m)),
    ):
        assert distance([cd.solve(P, warm_start=start).x], [KNOWN.x]) < 1e-6


def test_a_failed_neighbour_as_warm_start():
    """Rows that are not finite are not used."""
    good = cd.ConeProgram([[-1.0], [1.0]], [-1.0, 2.0], [1.0], {"l": 2})
    bad = cd.ConeProgram([[-1.0], [1.0]], [-2.0, 1.0], [1.0], {"l": 2})
    first = cd.solve_batch([good, bad], on_failure="nan")
    again = cd.solve_batch([good, good], warm_start=first)
    np.testing.assert_allclose(again.x, 1.0, atol=1e-9)


@pytest.mark.parametrize(
    "start",
    [1.0, np.zeros(P.n), (np.zeros(P.n),), (np.zeros(P.n + 1), np.zeros(P.m), np.zeros(P.m)), "yes"],
    ids=["number", "array", "short", "shape", "string"],
)
def test_warm_starts_that_do_not_fit(start):
    with pytest.raises(ValueError, match="warm_start"):
        cd.solve(P, warm_start=start)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: cd.solve_batch([]), "at least one program"),
        (lambda: cd.solve_batch([P], b=np.zeros((1, P.m))), "stacked P, A, b, c go with a single program"),
        (
            lambda: cd.solve_batch([P, cd.ConeProgram([[1.0]], [1.0], [1.0], {"l": 1})]),
            "program 1 differs from program 0",
        ),
        (lambda: cd.solve_batch(P, b=np.zeros(P.m)), "b must have shape"),
        (lambda: cd.solve_batch(P, b=np.zeros((2, P.m + 1))), "b must have shape"),
        (lambda: cd.solve_batch(P, A=np.zeros((2, P.m, P.n))), "A must have shape"),
        (lambda: cd.solve_batch(P, b=np.zeros((2, P.m)), c=np.zeros((3, P.n))), "same number of rows"),
        (lambda: cd.solve_batch(P, c=np.full((2, P.n), np.nan)), r"c is not finite: c\[0, 0\] is nan"),
        (
            lambda: cd.solve_batch([P, P], warm_start=(KNOWN.x, KNOWN.y, KNOWN.s)),
            "warm_start: x must have shape",
        ),
    ],
)
def test_batches_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cones_in_the_same_place_only():
    one = cd.ConeProgram(-np.eye(2), [-1.0, -1.0], [1.0, 1.0], {"l": 2})
    other = cd.ConeProgram(-np.eye(2), [-1.0, -1.0], [1.0, 1.0], {"q": [2]})
    with pytest.raises(ValueError, match="program 1 differs"):
        cd.solve_batch([one, other])


def test_no_rows():
    p = cd.ConeProgram(np.zeros((0, 2)), [], [1.0, 2.0], {}, np.diag([1.0, 4.0]))
    solution = cd.solve(p)
    np.testing.assert_allclose(solution.x, [-1.0, -0.5], atol=1e-9)
    pulled = solution.derivative().vjp(dx=[1.0, 1.0])
    np.testing.assert_allclose(pulled.dc, [-1.0, -0.25])
    np.testing.assert_allclose(pulled.dP.toarray().diagonal(), [1.0, 0.125])
    with pytest.raises(cd.SolverError, match="unbounded"):
        cd.solve(cd.ConeProgram(np.zeros((0, 1)), [], [1.0], {}))


def test_the_error_of_a_single_program():
    p = cd.ConeProgram([[1.0], [-1.0]], [-1.0, -1.0], [1.0], {"l": 2})
    with pytest.raises(cd.SolverError, match="the problem is infeasible") as caught:
        cd.solve(p)
    certificate = caught.value.solutions[0].y
    np.testing.assert_allclose(p.A.T @ certificate, 0, atol=1e-8)
    assert p.b @ certificate == pytest.approx(-1)
    assert isinstance(caught.value, cd.ConediffError) and isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("value", ["x", 10**400, [[1.0], [1.0, 2.0]], object()])
def test_what_is_no_array_of_numbers_is_a_type_error(value):
    program = cd.ConeProgram(np.array([[-1.0]]), [-1.0], [2.0], {"l": 1})
    for call in (
        lambda: cd.solve_batch(program, b=value),
        lambda: cd.solve(program, warm_start=(value, [0.0], [0.0])),
        lambda: cd.solve(program).derivative().vjp(dx=value),
        lambda: cd.solve(program).derivative().jvp(dA=value),
    ):
        with pytest.raises(TypeError, match="array of numbers"):
            call()


def test_there_is_no_derivative_without_a_solution():
    infeasible = cd.ConeProgram(np.array([[1.0], [-1.0]]), [-1.0, 0.0], [1.0], {"l": 2})
    good = cd.ConeProgram(np.array([[1.0], [-1.0]]), [1.0, 0.0], [1.0], {"l": 2})
    found = cd.solve_batch([good, infeasible], on_failure="nan")
    with pytest.raises(cd.SolverError, match="no derivative, .* the program is infeasible") as caught:
        found[1].derivative()
    assert caught.value.solutions.status == "infeasible"
    with pytest.raises(ValueError, match="unknown method 'qr'"):
        found[0].derivative("qr")
    g = found.derivative().vjp(dx=np.ones((2, 1)))
    assert np.isfinite(g.db[0]).all() and np.isnan(g.db[1]).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda D, B: D.jvp(dP=np.eye(P.n + 1)), "dP must have shape"),
        (lambda D, B: D.jvp(dA=np.ones((P.n, P.m + 1))), "dA must have shape"),
        (lambda D, B: D.jvp(db=np.ones(P.m + 1)), r"db must have shape \(\d+,\)"),
        (lambda D, B: D.vjp(dx=np.ones((1, P.n))), r"dx must have shape \(\d+,\)"),
        (lambda D, B: B.jvp(dA=np.ones((3, P.A.nnz))), r"dA must have shape \(2, \d+\), but has \(3,"),
        (lambda D, B: B.jvp(dP=np.ones((2, P.P.nnz + 1))), "dP must have shape"),
        (lambda D, B: B.vjp(ds=np.ones(P.m)), r"ds must have shape \(2, \d+\)"),
        (lambda D, B: B.hvp({"dx": np.ones((2, P.n))}, {"c": 1.0}), "names among dP, dA, db, dc, got 'c'"),
        (lambda D, B: B.hvp([None, None], {}), r"expected 3 arrays \(dx, dy, ds\), or a mapping, got 2"),
    ],
)
def test_what_derivatives_are_given_has_to_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(cd.solve(P).derivative(), cd.solve_batch([P, P]).derivative())
