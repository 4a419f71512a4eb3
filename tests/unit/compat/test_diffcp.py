"""diffcp's interface: conventions, errors, batches, and derivatives that diffcp lacks. No diffcp needed."""

from __future__ import annotations

import clarabel
import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
import conediff.compat as diffcp
from conediff.compat.arguments import read_settings
from conediff.compat.cvxpylayers import translate_arguments
from conediff.solver.batch_solver import BatchSolver
from tests.programs import cotangent, curve, dense, distance, draw

MIXED = {"z": 1, "l": 2, "q": [3], "s": [2], "ep": 1, "ed": 1, "p": [0.4, -0.7]}
EXACT = ("lsqr", "lsmr", "dense")
LPGD = ("lpgd", "lpgd_left", "lpgd_right")
SMALL = {"tau": 1e-5, "rho": 0.0}


def stated(program, P="whole"):
    """A program as diffcp's callers state it: A, b, c, cones, and P as a keyword."""
    given = {} if P is None else {"P": sp.csc_matrix(program.P if P == "whole" else sp.triu(program.P))}
    return (sp.csc_matrix(program.A), program.b, program.c, program.cones), given


@pytest.fixture(scope="module")
def known():
    return draw(np.random.default_rng(5), MIXED, condition=1e3)


def matrix(*rows):
    return sp.csc_matrix(np.array(rows, dtype=float))


# minimise x, x >= 1; infeasible: x <= -1 and x >= 1; unbounded: minimise -x, x >= 1.
GOOD = matrix([-1]), np.array([-1.0]), np.array([1.0]), {"l": 1}
INFEASIBLE = matrix([1], [-1]), np.array([-1.0, -1.0]), np.array([1.0]), {"l": 2}
UNBOUNDED = matrix([-1]), np.array([-1.0]), np.array([-1.0]), {"l": 1}


# Derivatives


@pytest.mark.parametrize("mode", EXACT)
def test_derivatives_of_every_cone_with_a_quadratic_objective(known, mode):
    """Along a curve of programs whose solutions are known."""
    rng = np.random.default_rng(0)
    arguments, P = stated(known.program)
    x, y, s, D, DT = diffcp.solve_and_derivative(*arguments, mode=mode, **P)
    assert distance((x, y, s), known.solution) < 1e-8
    line, g = curve(rng, known), cotangent(rng, known)
    moved = D(sp.csc_matrix(line.dA), line.db, line.dc, sp.csc_matrix(line.dP))
    assert distance(moved, line.solution) < 1e-5
    dA, db, dc, dP = DT(*g, return_dP=True)
    there = sum(np.vdot(a, b) for a, b in zip(g, moved, strict=True))
    back = np.vdot(dense(dA), line.dA) + db @ line.db + dc @ line.dc + np.vdot(dense(dP), line.dP)
    assert back == pytest.approx(there, rel=1e-7)


@pytest.mark.parametrize("mode", LPGD)
def test_lpgd_tends_to_the_derivative(known, mode):
    rng = np.random.default_rng(1)
    arguments, P = stated(known.program)
    line, g = curve(rng, known), cotangent(rng, known)
    tangent = sp.csc_matrix(line.dA), line.db, line.dc, sp.csc_matrix(line.dP)
    D, DT = diffcp.solve_and_derivative(*arguments, **P)[3:]
    L, LT = diffcp.solve_and_derivative(*arguments, mode=mode, derivative_kwargs=SMALL, eps=1e-12, **P)[3:]
    assert distance(L(*tangent), D(*tangent)) < 2e-3
    assert distance(LT(*g, return_dP=True), DT(*g, return_dP=True)) < 2e-3


@pytest.mark.parametrize(("rho", "slack"), [(0.0, True), (0.3, True), (0.3, False)])
def test_lpgd_far_from_the_limit(known, rho, slack):
    """The perturbed program written out, with the slack a variable: A x + t = b - tau dy, t in K."""
    rng = np.random.default_rng(2)
    (A, b, c, cones), given = stated(known.program)
    P, (m, n), tau = given["P"], A.shape, 0.05
    dx, dy, ds = cotangent(rng, known)
    ds = ds * slack
    options = {"mode": "lpgd_right", "derivative_kwargs": {"tau": tau}, "eps": 1e-12}
    x, y, s, _, DT = diffcp.solve_and_derivative(A, b, c, cones, P=P, **options)
    dA, db, dc, dP = DT(dx, dy, ds, return_dP=True, rho=rho)
    eye, weight = sp.eye(m), rho * slack
    program = cd.ConeProgram(
        sp.block_array([[A, eye], [None, -eye]]),
        np.append(b - tau * dy, np.zeros(m)),
        np.append(c + tau * dx - rho * x, tau * ds - weight * s),
        {**cones, "z": m + cones.get("z", 0)},
        sp.block_diag([P + rho * sp.eye(n), weight * eye]),
    )
    there = cd.solve(program, tol=1e-11)
    u, v = there.x[:n], there.y[:m]
    assert distance((db, dc), ((y - v) / tau, (u - x) / tau)) < 1e-6
    outer = (np.outer(v, u) - np.outer(y, x)) / tau
    assert distance((dA, dP), (outer, (np.outer(u, u) - np.outer(x, x)) / (2 * tau))) < 1e-6


@pytest.mark.parametrize("mode", ["lsqr", "lpgd"])
def test_the_power_cone_counts(mode):
    """Case A: maximise p'x, (x0, x1, 1) in a power cone, x0 + x1 <= 3; checked by finite differences."""
    A = sp.csc_matrix(np.array([[1.0, 1], [-1, 0], [0, -1], [0, 0]]))
    b, cones = np.array([3.0, 0, 0, 1]), {"l": 1, "p": [0.3]}
    p, h = np.array([-1.0, -2.0]), 1e-5
    x, _, _, D, DT = diffcp.solve_and_derivative(A, b, -p, cones, mode=mode, derivative_kwargs=SMALL)
    np.testing.assert_allclose(x, [0.89771, 1.04733], atol=1e-5)
    zero, none = sp.csc_matrix(A.shape), np.zeros(4)
    forward = np.column_stack([D(zero, none, -e)[0] for e in np.eye(2)])
    reverse = np.vstack([-DT(e, none, none)[2] for e in np.eye(2)])
    ends = [[diffcp.solve_only(A, b, -(p + t * e), cones)[0] for t in (h, -h)] for e in np.eye(2)]
    difference = np.column_stack([(u - v) / (2 * h) for u, v in ends])
    np.testing.assert_allclose(difference, [[0.6284, -0.3142], [-0.3142, 0.1571]], atol=1e-4)
    np.testing.assert_allclose(forward, difference, atol=1e-5)
    np.testing.assert_allclose(reverse, difference, atol=1e-5)
    # And what A and b do to x, y and s, entry by entry.
    g = np.array([0.3, -0.7]), np.array([0.2, 0.5, -0.1, 0.4]), np.array([-0.3, 0.1, 0.6, 0.2])
    dA, db, _ = DT(*g)

    def loss(A, b):
        return sum(u @ v for u, v in zip(g, diffcp.solve_only(A, b, -p, cones), strict=True))

    for i in range(4):
        e = h * np.eye(4)[i]
        assert db[i] == pytest.approx((loss(A, b + e) - loss(A, b - e)) / (2 * h), abs=1e-4)
    for k in range(A.nnz):
        up, down = A.copy(), A.copy()
        up.data[k] += h
        down.data[k] -= h
        assert dA.data[k] == pytest.approx((loss(up, b) - loss(down, b)) / (2 * h), abs=1e-4)


@pytest.mark.parametrize("mode", ["lsqr", "lpgd"])
def test_P_as_an_upper_triangle(known, mode):
    """The same program, and a derivative in the entries that are stored."""
    rng = np.random.default_rng(2)
    options = {"mode": mode, "derivative_kwargs": SMALL}
    arguments, whole = stated(known.program)
    _, upper = stated(known.program, "upper")
    x, y, s, D, DT = diffcp.solve_and_derivative(*arguments, **whole, **options)
    u, v, w, U, UT = diffcp.solve_and_derivative(*arguments, **upper, **options)
    assert distance((u, v, w), (x, y, s)) < 1e-9
    g, zero = cotangent(rng, known), (0 * arguments[0], 0 * arguments[1], 0 * arguments[2])
    dP, dU = DT(*g, return_dP=True)[3], UT(*g, return_dP=True)[3]
    assert distance((dU,), (sp.triu(dP) + sp.triu(dP, 1),)) < 1e-7
    tangent = sp.triu(sp.csc_matrix(curve(rng, known).dP)).tocsc()
    mirrored = tangent + sp.triu(tangent, 1).T
    assert distance(U(*zero, tangent), D(*zero, mirrored)) < 1e-7
    assert dU.nnz == upper["P"].nnz


def test_gradients_lie_on_the_given_sparsity():
    """Explicit zeros included, as matrices of diffcp's class."""
    A = sp.csc_matrix(([-1.0, 0.0, -1.0], [0, 0, 1], [0, 1, 3]), shape=(2, 2))
    P = sp.csc_matrix(([1.0, 0.0, 2.0], [0, 0, 1], [0, 1, 3]), shape=(2, 2))
    DT = diffcp.solve_and_derivative(A, -np.ones(2), np.ones(2), {"l": 2}, P=P)[4]
    dA, _, _, dP = DT(np.ones(2), np.ones(2), np.zeros(2), return_dP=True)
    for gradient, given in ((dA, A), (dP, P)):
        assert isinstance(gradient, sp.csc_matrix)
        np.testing.assert_array_equal(gradient.indices, given.indices)
        np.testing.assert_array_equal(gradient.indptr, given.indptr)


def test_small_cotangents_are_not_zeros(known):
    arguments, P = stated(known.program)
    DT = diffcp.solve_and_derivative(*arguments, **P)[4]
    g = cotangent(np.random.default_rng(3), known)
    tiny = DT(*(1e-12 * part for part in g))
    assert distance([1e12 * part for part in tiny], DT(*g)) < 1e-9


# Conventions


def test_nothing_of_the_callers_changes(known):
    (A, b, c, cones), given = stated(known.program)
    A = A + sp.csc_matrix(([0.0], ([0], [0])), shape=A.shape)
    A.data[0] = 0.0
    P = given["P"]
    rng = np.random.default_rng(4)
    line, g = curve(rng, known), cotangent(rng, known)
    dA, dP = sp.csc_matrix(line.dA), sp.csc_matrix(line.dP)
    start = [part.copy() for part in known.solution]
    sparse, vectors = (A, P, dA, dP), (b, c, line.db, line.dc, *g, *start)
    arrays = [array for M in sparse for array in (M.data, M.indices, M.indptr)] + list(vectors)
    before = [array.tobytes() for array in arrays]
    frozen = dict(cones)
    for mode in (*EXACT, *LPGD):
        options = {"mode": mode, "derivative_kwargs": {"tau": 1e-3, "rho": 0.1}, "warm_start": tuple(start)}
        x, y, s, D, DT = diffcp.solve_and_derivative(A, b, c, cones, P=P, eps=1e-9, **options)
        moved = D(dA, line.db, line.dc, dP)
        x[:], y[:], s[:] = 0, 0, 0  # the results are the caller's own: the derivative does not read them
        np.testing.assert_array_equal(D(dA, line.db, line.dc, dP)[0], moved[0])
        DT(*g, return_dP=True)
    diffcp.solve_only(A, b, c, cones, P=P)
    assert [array.tobytes() for array in arrays] == before
    assert cones == frozen


def test_the_zero_cone_by_both_its_names():
    A, b, c = matrix([1, 1], [-1, 0], [0, -1]), np.array([1.0, 0, 0]), np.array([1.0, 2.0])
    for cones in ({"f": 1, "l": 2}, {"z": 1, "l": 2}, {"z": 0, "f": 1, "l": 2, "q": [], "ep": 0, "pnd": []}):
        np.testing.assert_allclose(diffcp.solve_only(A, b, c, cones)[0], [1, 0], atol=1e-9)
    np.testing.assert_allclose(diffcp.solve_only(A, b, c, {"f": 1, "z": 1, "l": 1})[0], [0, 1], atol=1e-9)


def test_the_psd_cone_is_the_lower_triangle_by_columns():
    """Minimise trace(C X), trace X = 1, X PSD: the smallest eigenvalue's projector."""
    C = np.array([[2.0, 1, 0], [1, 3, 1], [0, 1, 1]])
    rows, columns = np.tril_indices(3)
    order = np.lexsort((rows, columns))
    rows, columns = rows[order], columns[order]
    scale = np.where(rows == columns, 1.0, np.sqrt(2))
    A = sp.vstack([sp.csc_matrix(np.where(rows == columns, 1.0, 0.0)), -sp.eye(6)]).tocsc()
    b, c, cones = np.append(1.0, np.zeros(6)), scale * C[rows, columns], {diffcp.ZERO: 1, diffcp.PSD: [3]}
    x, _, _, _, DT = diffcp.solve_and_derivative(A, b, c, cones)
    value, vectors = np.linalg.eigh(C)
    X = np.outer(vectors[:, 0], vectors[:, 0])
    np.testing.assert_allclose(x, scale * X[rows, columns], atol=1e-8)
    assert c @ x == pytest.approx(value[0])
    # The value's gradient is X itself, so that of x'c is what is left: (dx/dc)'c = 0 along X.
    assert abs(DT(c, np.zeros(7), np.zeros(7))[2] @ x) < 1e-7


CLARABEL = [name for name in dir(clarabel.DefaultSettings()) if not name.startswith("_")]


def of_clarabel():
    """Every setting of Clarabel, at Clarabel's default; diffcp sets whatever it is given."""
    defaults = clarabel.DefaultSettings()
    named = {name: getattr(defaults, name) for name in CLARABEL}
    return {name: value for name, value in named.items() if not callable(value)} | {"verbose": False}


@pytest.mark.parametrize("method", ["SCS", "ECOS", "Clarabel", "CLARABEL"])
def test_solvers_are_accepted_with_their_own_keywords(method):
    names = "abstol", "reltol", "feastol", "abstol_inacc", "reltol_inacc", "feastol_inacc"
    own = {
        "SCS": {"eps": 1e-8, "max_iters": 5000, "acceleration_lookback": 10, "verbose": False},
        "ECOS": {**dict.fromkeys(names, 1e-9), "max_iters": 2, "nitref": 3, "verbose": False},
    }.get(method, of_clarabel())
    x, y, s = diffcp.solve_only(*GOOD, solve_method=method, **own)
    np.testing.assert_allclose((x[0], y[0], s[0]), (1, 1, 0), atol=1e-9)
    if method == "CLARABEL":
        assert len(own) > 40 and "tol_ktratio" in own
    with pytest.raises(TypeError, match="tol_gap_abz"):
        diffcp.solve_only(*GOOD, solve_method=method, **own, tol_gap_abz=1e-9)


def test_clarabels_time_limit_is_ours():
    assert read_settings({"solve_method": "Clarabel", "time_limit": 3.0}, 1)["time_limit_secs"] == 3.0
    assert "time_limit_secs" not in read_settings({"solve_method": "Clarabel", "time_limit": np.inf}, 1)
    assert translate_arguments({"solve_method": "Clarabel", "time_limit": 3.0})["time_limit_secs"] == 3.0


def test_tolerances_tighten_but_never_loosen(monkeypatch):
    seen = []
    real = BatchSolver.solve
    monkeypatch.setattr(
        BatchSolver, "solve", lambda self, data, s, start: seen.append(s.tol) or real(self, data, s, start)
    )
    for given in (
        {},
        {"eps": 1e-3},
        {"eps_abs": 1e-3, "eps_rel": 1e-11},
        {"eps": 1e-16},
        {"eps": 1e-3, "tol": 1e-4},
    ):
        diffcp.solve_only(*GOOD, **given)
    assert seen == pytest.approx([1e-10, 1e-10, 1e-11, 1e-12, 1e-4])


def test_solve_and_derivative_internal():
    result = diffcp.solve_and_derivative_internal(*GOOD, solve_method="SCS", mode="lsqr")
    assert set(result) == {"x", "y", "s", "info", "D", "DT"}
    info = result["info"]
    assert (info["status"], info["status_val"]) == ("solved", 1)
    assert (info["pobj"], info["dobj"]) == pytest.approx((1, 1))
    assert max(info["gap"], info["res_pri"], info["res_dual"]) < 1e-9
    assert {"iter", "setup_time", "solve_time"} <= set(info)
    assert set(diffcp.solve_internal(*GOOD)) == {"x", "y", "s", "info"}
    for bad, value in ((INFEASIBLE, -2), (UNBOUNDED, -1)):
        for function in (diffcp.solve_and_derivative_internal, diffcp.solve_internal):
            result = function(*bad, raise_on_error=False)
            assert result["D"] is None and result["DT"] is None
            assert result["info"]["status_val"] == value
            assert result["info"]["pobj"] == (np.inf if value == -2 else -np.inf)


@pytest.mark.parametrize("method", ["ECOS", "Clarabel", "CLARABEL"])
def test_the_report_of_another_solver(method):
    """As cvxpy reads it; times in seconds."""
    info = diffcp.solve_and_derivative_internal(*GOOD, solve_method=method)["info"]
    assert set(info) == {"status", "solveTime", "setupTime", "iter", "pobj"}
    assert info["status"] == "Solved" and info["pobj"] == pytest.approx(1) and 0 < info["solveTime"] < 5
    for bad, status in ((INFEASIBLE, "Infeasible"), (UNBOUNDED, "Unbounded")):
        found = diffcp.solve_and_derivative_internal(*bad, solve_method=method, raise_on_error=False)
        assert found["info"]["status"] == status


@pytest.mark.parametrize(
    ("method", "start"),
    [
        (None, "Solver scs returned status infeasible"),
        ("SCS", "Solver scs returned status infeasible"),
        ("ECOS", "Solver ecos returned status Infeasible"),
        ("Clarabel", "Solver clarabel returned status Infeasible"),
    ],
)
def test_errors_begin_as_programs_match_them(method, start):
    with pytest.raises(diffcp.SolverError) as caught:
        diffcp.solve_only(*INFEASIBLE, solve_method=method)
    assert str(caught.value).startswith(start)
    A, b, c, cones = zip(GOOD, INFEASIBLE, strict=True)
    with pytest.raises(diffcp.SolverError, match=rf"^{start}: no solution of program 1 \(infeasible\)"):
        diffcp.solve_and_derivative_batch(A, b, c, cones, solve_method=method)


def test_warm_starts_are_used():
    known = draw(np.random.default_rng(6), {"z": 1, "l": 3, "q": [3]}, with_P=False)
    arguments, _ = stated(known.program, None)
    result = diffcp.solve_and_derivative_internal(*arguments, warm_start=known.solution)
    assert result["info"]["iter"] == 0


# Batches


@pytest.mark.parametrize("mode", ["lsqr", "lsmr", "dense", "lpgd"])
def test_a_mixed_batch_is_what_its_elements_are(mode):
    """Three structures, interleaved; P on some elements; warm starts on some."""
    rng = np.random.default_rng(7)
    kinds = [
        ({"z": 1, "l": 4}, True),
        ({"q": [3, 3]}, True),
        ({"z": 1, "l": 4}, False),
        ({"l": 2, "ep": 1}, True),
    ]
    drawn = [draw(rng, *kinds[k % 4], condition=1e3) for k in range(9)]
    programs = [k.program for k in drawn]
    Ps = [sp.csc_matrix(p.P) if p.P.nnz else None for p in programs]
    data = [[stated(p)[0][k] for p in programs] for k in range(4)]
    starts = [k.solution if i % 2 else None for i, k in enumerate(drawn)]
    options = {"mode": mode, "derivative_kwargs": {"tau": 1e-4, "rho": 0.0}}
    xs, ys, ss, D, DT = diffcp.solve_and_derivative_batch(*data, warm_starts=starts, Ps=Ps, **options)
    tangents = [curve(rng, k, P=False) for k in drawn]
    moves = D([sp.csc_matrix(t.dA) for t in tangents], [t.db for t in tangents], [t.dc for t in tangents])
    g = [cotangent(rng, k) for k in drawn]
    pulls = DT(*zip(*g, strict=True))
    assert len(moves) == len(pulls) == 3
    for i, program in enumerate(programs):
        x, y, s, Di, DTi = diffcp.solve_and_derivative(*stated(program)[0], P=Ps[i], **options)
        assert distance((xs[i], ys[i], ss[i]), (x, y, s)) < 1e-8
        one = Di(sp.csc_matrix(tangents[i].dA), tangents[i].db, tangents[i].dc)
        assert distance([part[i] for part in moves], one) < 1e-5
        assert distance([part[i] for part in pulls], DTi(*g[i])) < 1e-5
        assert pulls[0][i].nnz == program.A.nnz
    only = diffcp.solve_only_batch(*data, Ps=Ps, n_jobs_forward=1)
    assert distance([a for part in only for a in part], [a for part in (xs, ys, ss) for a in part]) < 1e-8


def test_gradients_of_P_in_a_batch():
    rng = np.random.default_rng(8)
    drawn = [draw(rng, {"l": 4}, condition=1e3) for _ in range(4)]
    data = [[stated(k.program)[0][i] for k in drawn] for i in range(4)]
    Ps = [sp.csc_matrix(k.program.P) for k in drawn]
    D, DT = diffcp.solve_and_derivative_batch(*data, Ps=Ps)[3:]
    g, lines = [cotangent(rng, k) for k in drawn], [curve(rng, k) for k in drawn]
    dPs = DT(*zip(*g, strict=True), return_dP=True)[3]
    nothing = [[0 * part for part in column] for column in data[:3]]
    dxs, dys, dss = D(*nothing, dPs=[sp.csc_matrix(t.dP) for t in lines])
    for i in range(4):
        there = sum(np.vdot(u, v) for u, v in zip(g[i], (dxs[i], dys[i], dss[i]), strict=True))
        assert np.vdot(dense(dPs[i]), lines[i].dP) == pytest.approx(there, rel=1e-7)


@pytest.mark.parametrize("mode", ["lsqr", "lpgd_right"])
def test_one_structure_is_one_stack(mode, monkeypatch):
    """Forward, and backward where that solves perturbed programs."""
    rng = np.random.default_rng(9)
    A, c, cones = matrix([1, 0], [0, 1], [-1, -1]), np.array([-1.0, -2.0]), {"l": 3}
    counts = []
    real = BatchSolver.solve
    monkeypatch.setattr(
        BatchSolver, "solve", lambda self, data, *rest: counts.append(data.count) or real(self, data, *rest)
    )
    bs = list(rng.random((20, 3)))
    DT = diffcp.solve_and_derivative_batch(
        [A] * 20, bs, [c] * 20, [cones] * 20, mode=mode, derivative_kwargs=SMALL
    )[4]
    assert counts == [20]
    DT([np.ones(2)] * 20, [np.zeros(3)] * 20, [np.zeros(3)] * 20)
    assert counts == ([20] if mode == "lsqr" else [20, 20])


@pytest.mark.parametrize("function", [diffcp.solve_and_derivative_batch, diffcp.solve_only_batch])
def test_all_that_failed_in_a_batch_are_named(function):
    data = list(zip(GOOD, INFEASIBLE, GOOD, UNBOUNDED, strict=True))
    with pytest.raises(diffcp.SolverError, match=r"1 \(infeasible\), 3 \(unbounded\)") as caught:
        function(*data)
    assert caught.value.indices == ((1,), (3,))
    assert caught.value.statuses == ("infeasible", "unbounded")
    certificate = caught.value.solutions[1].y
    assert INFEASIBLE[1] @ certificate < 0 and abs(INFEASIBLE[0].T @ certificate) < 1e-6


# Errors


def test_the_error_is_ours():
    assert diffcp.SolverError is cd.SolverError
    for function in (diffcp.solve_and_derivative, diffcp.solve_only, diffcp.solve_and_derivative_internal):
        with pytest.raises(diffcp.SolverError, match="infeasible"):
            function(*INFEASIBLE)
        with pytest.raises(diffcp.SolverError, match="unbounded"):
            function(*UNBOUNDED)


def test_a_perturbed_program_without_a_solution():
    """0 <= x <= 1 becomes 0 <= x <= -1."""
    A, b, c = matrix([1], [-1]), np.array([1.0, 0.0]), np.array([1.0])
    D = diffcp.solve_and_derivative(A, b, c, {"l": 2}, mode="lpgd_right", derivative_kwargs={"tau": 2.0})[3]
    with pytest.raises(diffcp.SolverError, match=r"perturbed by \+2 .*infeasible"):
        D(0 * A, np.array([-1.0, 0.0]), np.zeros(1))
    dx, _, _ = D(0 * A, np.array([-1.0, 0.0]), np.zeros(1), tau=1e-3)
    assert dx == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"mode": "exact"}, ValueError, "lpgd_left"),
        ({"solve_method": "OSQP"}, ValueError, "OSQP"),
        ({"epsilon": 1e-3}, TypeError, "epsilon"),
        ({"P": matrix([1, 0], [0, 1])}, ValueError, "P must have shape"),
        ({"warm_start": (np.zeros(2), np.zeros(1), np.zeros(1))}, ValueError, "shape"),
    ],
)
def test_what_cannot_be_used_is_refused(keywords, error, match):
    with pytest.raises(error, match=match):
        diffcp.solve_and_derivative(*GOOD, **keywords)


def test_what_the_callables_refuse():
    A, b, c, _ = GOOD
    D, DT = diffcp.solve_and_derivative(*GOOD)[3:]
    with pytest.raises(ValueError, match="without P"):
        D(A, b, c, matrix([1]))
    with pytest.raises(ValueError, match="P"):
        DT(c, b, b, return_dP=True)
    for wrong in (np.zeros(2), 0.0 * np.ones((1, 3))):
        with pytest.raises(ValueError, match="reshape"):
            D(A, wrong, c)
        with pytest.raises(ValueError, match="reshape"):
            DT(wrong, b, b)
    for parameters in (
        {},
        {"tau": 0.0},
        {"tau": -1.0},
        {"tau": 1.0, "rho": -1.0},
        {"tau": 1.0, "sigma": 1.0},
    ):
        D, DT = diffcp.solve_and_derivative(*GOOD, mode="lpgd", derivative_kwargs=parameters)[3:]
        with pytest.raises(ValueError, match="tau > 0"):
            D(A, b, c)
        with pytest.raises(ValueError, match="tau > 0"):
            DT(c, b, b)


def test_not_a_number():
    A = matrix([np.nan])
    with pytest.raises(ValueError, match=r"A\[0, 0\] is nan"):
        diffcp.solve_only(A, *GOOD[1:])


@pytest.mark.parametrize("cones", [None, 3, [("l", 1)], np.zeros((0, 0))])
def test_cones_are_a_mapping(cones):
    with pytest.raises(TypeError, match="mapping"):
        diffcp.solve_only(*GOOD[:3], cones)
