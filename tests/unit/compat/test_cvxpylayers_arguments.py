"""Calls written for cvxpylayers run as they are, or are refused with a reason."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.compat import cvxpylayers as dialects
from conediff.solver.settings import Settings


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(dialects, "_issued", set())


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def stated(curved=False):
    x, c = cp.Variable(2, pos=curved), cp.Parameter(2, pos=curved)
    if curved:
        return cp.Problem(cp.Minimize(cp.sum(cp.multiply(c, x) + 1 / x))), [c], [x]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x]


def settings(**arguments):
    return Settings().updated(dialects.translate_arguments(arguments), dialects.FOREIGN)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"mode": "lsqr"}, {"method": "auto"}),
        ({"mode": "lsmr"}, {"method": "lsmr"}),
        ({"mode": "dense"}, {"method": "dense"}),
        ({"mode": "dense", "method": "direct"}, {"method": "direct"}),
        ({"n_jobs_forward": 2}, {"threads": 2}),
        ({"n_jobs_forward": 1, "n_jobs_backward": 3}, {"threads": 3}),
        ({"n_jobs_forward": -1, "n_jobs_backward": 3}, {"threads": None}),
        ({"n_jobs_forward": 4, "threads": 2}, {"threads": 2}),
        ({"solve_method": "SCS", "max_iters": 77}, {"scs": {"max_iters": 77}}),
        ({"solve_method": "Clarabel"}, {"solver": "clarabel"}),
        ({"solve_method": "CLARABEL", "max_iter": 20}, {"solver": "clarabel", "clarabel": {"max_iter": 20}}),
        ({"solve_method": "CLARABEL", "max_iters": 20}, {"solver": "clarabel", "clarabel": {"max_iter": 20}}),
        (
            {"solve_method": "Clarabel", "tol_gap_abs": 1e-9, "abstol": 1e-3},
            {"solver": "clarabel", "clarabel": {"tol_gap_abs": 1e-9}},
        ),
        ({"tol_feas": 1e-9}, {"clarabel": {"tol_feas": 1e-9}}),
        ({"solver": "scs", "solve_method": "Clarabel"}, {"solver": "scs"}),
        ({"eps": 1e-8, "solve_method": "scs"}, {"scs": {"eps_abs": 1e-8, "eps_rel": 1e-8}}),
        (
            {"acceleration_lookback": 0, "verbose": True},
            {"scs": {"acceleration_lookback": 0, "verbose": True}},
        ),
        ({"use_indirect": True, "gpu": False, "cg_rate": 2.0}, {}),
    ],
    ids=str,
)
def test_solver_arguments_are_translated(quiet, arguments, expected):
    assert settings(**arguments) == Settings(**expected)


def test_solver_arguments_are_a_mapping():
    with pytest.raises(TypeError, match="solver_args must be a mapping"):
        cd.CvxpyLayer(*stated())(np.ones(2), solver_args=["eps"])


def test_solvers_that_are_not_used_are_named_once():
    ecos = {"solve_method": "ECOS", "abstol": 1e-9, "feastol": 1e-9, "reltol": 1e-9, "max_iters": 20}
    layer = cd.CvxpyLayer(*stated())
    with pytest.warns(UserWarning, match="'ECOS' is not used: conediff solves with SCS") as caught:
        (x,) = layer(np.array([1.0, -1.0]), solver_args=ecos)
        layer(np.array([1.0, -1.0]), solver_args=ecos)
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_allclose(x, [1, 0], atol=1e-9)
    assert settings(**ecos) == Settings()  # a limit on interior-point iterations is none on SCS
    with pytest.warns(UserWarning, match="'OSQP'"):
        cd.CvxpyLayer(*stated(), solver="OSQP", solver_args={"max_iter": 20})
    with pytest.raises(TypeError, match="unknown solver argument 'max_iter'"):
        settings(max_iter=20)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "lpgd"}, ValueError, "conediff.compat"),
        ({"mode": "LSQR"}, ValueError, "mode must be one of lsqr"),
        ({"n_jobs_forward": 0}, ValueError, "positive or -1"),
        ({"n_jobs_backward": 1.5}, ValueError, "positive or -1"),
        ({"n_jobs_backward": True}, ValueError, "positive or -1"),
        ({"solve_method": print}, TypeError, "must be a name"),
        ({"max_itres": 3, "mode": "lsqr"}, TypeError, "unknown solver argument 'max_itres'.*solve_method"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        settings(**arguments)


@pytest.mark.parametrize(
    ("positions", "names"),
    [
        ((), {}),
        ((), {"solver": None, "gp": False, "verbose": False, "canon_backend": None, "solver_args": None}),
        ((), {"solver": "DIFFCP", "canon_backend": "CPP", "solver_args": {"eps": 1e-8}}),
        ((None,), {}),
        ((None, False), {}),
        (("SCS", False), {}),
        ((False,), {}),
        ((False, {"eps": 1e-8}), {}),
        ((), {"gp": False, "custom_method": None}),
    ],
    ids=str,
)
def test_constructors_of_either_cvxpylayers(quiet, positions, names):
    (x,) = cd.CvxpyLayer(*stated(), *positions, **names)(np.array([1.0, -1.0]))
    np.testing.assert_allclose(x, [1, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("positions", "names"), [((True,), {}), ((None, True), {}), ((), {"gp": True})], ids=str
)
def test_geometric_programs_by_either_position(quiet, positions, names):
    (x,) = cd.CvxpyLayer(*stated(curved=True), *positions, **names)(np.array([4.0, 0.25]))
    np.testing.assert_allclose(x, [0.5, 2], rtol=1e-8)


@pytest.mark.parametrize(
    ("positions", "names", "call"),
    [
        ((cp.CLARABEL,), {}, {}),
        ((), {"solver": "Clarabel", "solver_args": {"max_iter": 50}}, {"tol_feas": 1e-9, "max_iter": 40}),
        ((), {"solver_args": {"solver": "clarabel"}}, {}),
        ((), {}, {"solve_method": "Clarabel", "max_iters": 50}),
    ],
    ids=str,
)
def test_clarabel_means_what_it_says(quiet, positions, names, call):
    solution = cd.CvxpyLayer(*stated(), *positions, **names).solve(np.array([1.0, -1.0]), solver_args=call)
    np.testing.assert_allclose(solution.values[0], [1, 0], atol=1e-9)
    assert solution.info["solver"] == "clarabel"


def test_arguments_of_the_constructor(capfd):
    with pytest.warns(UserWarning, match="'MOSEK' is not used"):
        cd.CvxpyLayer(*stated(), cp.MOSEK)
    layer = cd.CvxpyLayer(*stated(), verbose=True)
    layer(np.ones(2))
    assert "SCS" in capfd.readouterr().out
    for wrong in ({"custom_method": (print, print)}, {"solver": object()}, {"gp": 1}):
        with pytest.raises(TypeError, match=r"custom_method|must be a name|True or False"):
            cd.CvxpyLayer(*stated(), **wrong)
    with pytest.raises(TypeError, match="backend"):
        cd.CvxpyLayer(*stated(), backend="CPP")
