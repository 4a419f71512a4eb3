"""SCS behind one call: piles, settings, statuses, warm starts."""

from __future__ import annotations

import numpy as np
import pytest

import conediff as cd
from conediff.program import ConeData
from conediff.solver import scs
from conediff.solver.scs import Pile, SCSRefusal
from conediff.solver.scs_settings import SCS_SETTINGS, checked_settings
from conediff.solver.settings import Settings
from tests.programs import CONES, distance, draw

PILEABLE = [name for name, cones in CONES.items() if "bl" not in cones]
TIGHT = {"eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 200_000, "acceleration_lookback": 0}


def family(name, count=3, with_P=True):
    """Programs of one structure, by small changes of one."""
    known = draw(np.random.default_rng(50), CONES[name], with_P, sparse=True)
    p, rng = known.program, np.random.default_rng(51)
    b = p.b + 1e-3 * rng.standard_normal((count, p.m))
    c = p.c + 1e-3 * rng.standard_normal((count, p.n))
    return known, p.structure, ConeData(p.data.P, np.repeat(p.data.A, count, 0), b, c)


@pytest.mark.parametrize("name", PILEABLE)
@pytest.mark.parametrize("with_P", [True, False], ids=["P", "LP"])
def test_a_pile_answers_as_its_programs_do(name, with_P):
    _, structure, data = family(name, 3, with_P)
    piled = Pile(structure, 3).solve(data, TIGHT)
    assert (
        piled.status == "solved" and piled.x.shape == (3, structure.n) and piled.y.shape == (3, structure.m)
    )
    for i in range(3):
        alone = Pile(structure, 1).solve(data.take(np.array([i])), TIGHT)
        mine = (piled.x[i], piled.y[i], piled.s[i])
        assert distance(mine, (alone.x[0], alone.y[0], alone.s[0])) < 1e-2
        A, P = structure.A.matrix(data.A[i]), structure.P.matrix(data.P[0])
        size = 1 + np.abs(piled.y[i]).max() + np.abs(piled.s[i]).max()
        np.testing.assert_allclose(A @ piled.x[i] + piled.s[i], data.b[i], atol=1e-5 * size)
        np.testing.assert_allclose(P @ piled.x[i] + A.T @ piled.y[i], -data.c[i], atol=1e-5 * size)


def test_a_box_cone_is_not_piled():
    _, structure, data = family("box", 2)
    assert Pile(structure, 1).solve(data.take(np.array([0])), TIGHT).status == "solved"
    with pytest.raises(cd.ConeError, match="box"):
        Pile(structure, 2)


@pytest.mark.parametrize("name", ["mixed", "linear"])
def test_a_warm_start_is_used(name):
    _, structure, data = family(name, 2)
    pile = Pile(structure, 2)
    cold = pile.solve(data, TIGHT)
    warm = pile.solve(data, TIGHT, (cold.x, cold.y, cold.s))
    assert warm.iterations < cold.iterations / 2
    assert distance((warm.x, warm.y, warm.s), (cold.x, cold.y, cold.s)) < 1e-4


def test_no_rows_and_one_variable():
    p = cd.ConeProgram(np.zeros((0, 1)), [], [-3.0], {}, np.eye(1))
    for count in (1, 3):
        raw = Pile(p.structure, count).solve(p.data, TIGHT, None)
        np.testing.assert_allclose(raw.x, 3.0, atol=1e-6)
        assert raw.y.shape == raw.s.shape == (count, 0)


def test_statuses_and_certificates():
    empty = cd.ConeProgram([[1.0], [-1.0]], [-1.0, -1.0], [1.0], {"l": 2})
    raw = Pile(empty.structure, 1).solve(empty.data, {})
    assert raw.status == "infeasible"
    np.testing.assert_allclose(raw.y[0], [0.5, 0.5], atol=1e-5)
    endless = cd.ConeProgram([[1.0]], [1.0], [1.0], {"l": 1})
    raw = Pile(endless.structure, 1).solve(endless.data, {})
    assert raw.status == "unbounded"
    np.testing.assert_allclose(raw.x[0], [-1.0], atol=1e-5)
    _, structure, data = family("mixed", 1)
    assert Pile(structure, 1).solve(data, {"max_iters": 3}).status == "inaccurate"


def test_data_stay_as_they_are():
    _, structure, data = family("mixed", 3)
    before = [
        part.copy() for part in (data.P, data.A, data.b, data.c, structure.A.indices, structure.P.indices)
    ]
    Pile(structure, 3).solve(data, TIGHT)
    after = (data.P, data.A, data.b, data.c, structure.A.indices, structure.P.indices)
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["mixed", "exponential"])
def test_a_workspace_that_is_kept_gives_what_a_new_one_gives(name, monkeypatch):
    """Where only b and c move SCS is set up once, and nothing of the call before is left."""
    _, structure, data = family(name, 5)
    made = []
    new = Pile._workspace
    monkeypatch.setattr(Pile, "_workspace", lambda *args: made.append(1) or new(*args))
    pile = Pile(structure, 1)
    fixed = ConeData(data.P[:1], data.A[:1], data.b, data.c)
    short = {"max_iters": 25, "scale": 0.5, "acceleration_lookback": 0}
    for k in range(5):
        program = ConeData(fixed.P, fixed.A, data.b[k : k + 1], data.c[k : k + 1])
        again, fresh = pile.solve(program, short), Pile(structure, 1).solve(program, short)
        assert again.iterations == fresh.iterations
        for part in ("x", "y", "s"):
            np.testing.assert_array_equal(getattr(again, part), getattr(fresh, part))
    assert len(made) == 1 + 5
    pile.solve(program, {**short, "scale": 1.0})
    assert len(made) == 7, "other settings need another workspace"
    doubled = ConeData(program.P, 2 * program.A, program.b, program.c)
    pile.solve(doubled, {**short, "scale": 1.0})
    assert len(made) == 8, "and so does another matrix"
    pile.solve(doubled, {**short, "scale": 1.0})
    assert len(made) == 8
    for _ in range(2):
        pile.solve(doubled, {**short, "scale": 1.0, "acceleration_lookback": 5})
    assert len(made) == 10, "the acceleration remembers"


def test_a_box_cone_does_not_see_the_call_before():
    """Where SCS's projection onto it begins outlives a call, so that no workspace is kept."""
    program = draw(np.random.default_rng(20), CONES["everything"], True, sparse=False).program
    short = {"eps_abs": 1e-2, "eps_rel": 1e-2, "max_iters": 25, "scale": 4.0, "acceleration_lookback": 0}
    pile = Pile(program.structure, 1)
    first, again = (pile.solve(program.data, short) for _ in range(2))
    for part in ("x", "y", "s"):
        np.testing.assert_array_equal(getattr(again, part), getattr(first, part))


def test_settings():
    assert checked_settings({"eps": 1e-3}) == {"eps_abs": 1e-3, "eps_rel": 1e-3}
    assert checked_settings({"eps": 1e-3, "eps_rel": 1e-5}) == {"eps_abs": 1e-3, "eps_rel": 1e-5}
    assert checked_settings({"eps": None, "alpha": 1.2}) == {"alpha": 1.2}
    with pytest.raises(TypeError, match="unknown solver setting 'epsilon'") as caught:
        checked_settings({"epsilon": 1e-3})
    assert all(name in str(caught.value) for name in SCS_SETTINGS)


@pytest.mark.parametrize(
    "setting",
    [
        {"normalize": False},
        {"scale": 1.0},
        {"adaptive_scale": False},
        {"rho_x": 1e-5},
        {"alpha": 1.2},
        {"acceleration_lookback": 0},
        {"acceleration_interval": 5},
        {"time_limit_secs": 10.0},
        {"verbose": False},
        {"eps_infeas": 1e-8},
    ],
    ids=str,
)
def test_scs_accepts_each_setting(setting):
    known, _, _ = family("linear", 1)
    solution = cd.solve(known.program, **setting)
    assert distance([solution.x], [known.x]) < 1e-6


def test_a_refusal_of_the_data_is_told_apart_from_other_errors(monkeypatch):
    """SCS cannot factorise a P that is not convex; a wrong keyword is an error of ours, and not hidden."""
    program = cd.ConeProgram(np.eye(2), np.ones(2), np.zeros(2), {"l": 2})
    indefinite = cd.ConeProgram(np.eye(2), np.ones(2), np.zeros(2), {"l": 2}, np.diag([1.0, -1e12]))
    with pytest.raises(SCSRefusal):
        Pile(indefinite.structure, 1).solve(indefinite.data, {"linear_solver": "qdldl"})
    with pytest.raises(ValueError, match="scale"):
        Pile(program.structure, 1).solve(program.data, {"scale": np.nan})
    monkeypatch.setattr(Pile, "_vectors", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cd.solve(program)


def test_every_status_of_scs_is_known():
    """SCS's glbopts.h has the statuses from -7 to 2; -5 is an interruption."""
    assert sorted([*scs._STATUS, scs._INTERRUPTED]) == list(range(-7, 3))
    assert {scs._STATUS[k] for k in (-6, -7)} == {"inaccurate"}, "an inaccurate certificate is none"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_iters", 2**63, "from 1 to 2147483647"),
        ("max_iters", 0, "from 1 to"),
        ("max_iters", 10.0, "whole number"),
        ("acceleration_lookback", -1, "from 0 to"),
        ("acceleration_interval", 2**40, "from 1 to"),
        ("linear_solver", None, "auto, qdldl"),
        ("linear_solver", "x", "auto, qdldl"),
        ("linear_solver", [], "auto, qdldl"),
        ("normalize", "yes", "True or False"),
        ("verbose", None, "True or False"),
        ("adaptive_diag_scale", 2, "True or False"),
        ("scale", 10**400, "too large|above 0"),
        ("alpha", np.nan, "between 0 and 2"),
        ("acceleration_relaxation", "a", "from 0 to 2"),
        ("acceleration_regularization", np.inf, "finite number"),
        ("write_data_filename", 3, "file name"),
        ("tol_gap_abs", 0, "above 0"),
        ("tol_feas", None, "above 0"),
        ("solver", "ECOS", "'scs', 'clarabel'"),
    ],
)
def test_what_the_solvers_would_not_take_is_refused_with_the_range(name, value, words):
    with pytest.raises(ValueError, match=words) as caught:
        Settings().updated({name: value})
    assert name in str(caught.value)


def test_settings_that_scs_takes_in_several_types():
    given = {"max_iters": np.int64(5), "eps_abs": np.float32(0.5), "normalize": np.True_, "alpha": 1}
    expected = {"max_iters": 5, "eps_abs": 0.5, "normalize": True, "alpha": 1.0}
    found = checked_settings(given)
    assert found == expected and [type(v) for v in found.values()] == [int, float, bool, float]
    given = {
        "acceleration_type_1": True,
        "adaptive_diag_scale": 1,
        "linear_solver": "auto",
        "max_iters": 1000,
    }
    assert cd.solve(family("linear", 1)[0].program, **given).status == "solved"
