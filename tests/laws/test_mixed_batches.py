"""A batch is its elements one by one, also where some are degenerate, kinked, infeasible or unbounded."""

import warnings
from functools import lru_cache

import numpy as np
import pytest

import conediff as cd
from conediff.cones import ProductCone
from tests.laws.test_kinks import POINTS
from tests.programs import distance

KINDS = ("ordinary", "kinked", "degenerate", "infeasible", "unbounded")
STATUS = {"infeasible": "infeasible", "unbounded": "unbounded"}
# For each cone: its dictionary, v off the kinks, and v at one.
CONES = {name: (cones, smooth[0], kinks[0]) for name, (cones, kinks, smooth) in POINTS.items()}
CONES["product"] = (
    {"z": 1, "l": 2, "q": [3], "s": [2], "ep": 1, "p": [0.3]},
    np.r_[0.5, 1, -1, POINTS["second-order"][2][0], 1, 0.3, -1, 1, -0.5, 0.3, 0.2, -0.4, 1],
    np.r_[0.5, 0, -1, POINTS["second-order"][1][0], 1, 0, 0, 1, -0.5, 0.3, 0.2, -0.4, 1],
)
METHODS = ("auto", "direct", "dense", "lsqr")


@lru_cache
def elements(name):
    """Data of one program of each kind, all of one structure: P, A, b and c of each."""
    cones, smooth, kinked = CONES[name]
    smooth, kinked = np.asarray(smooth, float), np.asarray(kinked, float)
    rng, m = np.random.default_rng(3), len(smooth)
    project = ProductCone.from_dict(cones).project_dual
    found = {}
    for kind in KINDS:
        v = kinked if kind == "kinked" else smooth
        y = project(v).point
        x, A, P = rng.standard_normal(m + 1), rng.standard_normal((m, m + 1)), np.eye(m + 1)
        if kind == "degenerate":  # the last variable is free
            A[:, -1], P[-1, -1], x[-1] = 0, 0, 0
        b, c = A @ x + y - v, -P @ x - A.T @ y
        if kind == "infeasible":  # no x moves a slack that y separates from the cone
            y = next(y for y in (project(3 * rng.standard_normal(m)).point for _ in range(99)) if y @ y > 1)
            A, b = 0 * A, -y
        if kind == "unbounded":
            A, P, b, c = 0 * A, 0 * P, y - v, np.ones(m + 1)
        found[kind] = {"P": P.T.ravel(), "A": A.T.ravel(), "b": b, "c": c}
    return found


def solved(name, kinds, **settings):
    cones, smooth, _ = CONES[name]
    m = len(smooth)
    A, P = np.ones((m, m + 1)), np.ones((m + 1, m + 1))
    full = cd.ConeProgram(A, np.zeros(m), np.zeros(m + 1), cones, P=P)
    found = [elements(name)[kind] for kind in kinds]
    stacks = {part: np.stack([one[part] for one in found]) for part in ("P", "A", "b", "c")}
    return cd.solve_batch(full, on_failure="nan", **stacks, **settings)


def answers(derivative, x, s):
    """Both modes' answers to fixed questions, as stacks, and the kinds of the warnings."""
    count, n, m = len(x), x.shape[1], s.shape[1]
    rng = np.random.default_rng(4)
    g = [np.tile(rng.standard_normal(k), (count, 1)) for k in (n, m, m)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [*derivative.vjp(*g), *derivative.jvp(db=g[1], dc=g[0])]
    return found, told(caught)


def told(caught):
    """The kinds of the warnings: the category, and the reason of a degeneracy."""
    return {(w.category, "singular" in str(w.message), "complementarity" in str(w.message)) for w in caught}


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("turn", range(len(KINDS)))
def test_every_kind_of_element_at_every_position(name, turn):
    kinds = KINDS[turn:] + KINDS[:turn]
    batch = solved(name, kinds)
    alone = [solved(name, [kind]) for kind in kinds]
    for i, kind in enumerate(kinds):
        assert batch.status[i] == alone[i].status[0] == STATUS.get(kind, "solved"), kind
        assert set(batch.info) == set(alone[i].info)
        if batch.status[i] == "solved":
            parts = ["y", "s"] if kind == "degenerate" else ["x", "y", "s"]
            here, there = ([getattr(r, part)[k] for part in parts] for r, k in ((batch, i), (alone[i], 0)))
            assert distance(here, there) < 1e-7, kind
    for method in METHODS:
        found, kinds_of_all = answers(batch.derivative(method), batch.x, batch.s)
        each = set()
        for i, kind in enumerate(kinds):
            if batch.status[i] != "solved":
                assert all(np.isnan(part[i]).all() for part in found), kind
                continue
            one = batch[i].derivative(method)  # at the same point
            (dP, dA, db, dc), (dx, dy, ds), kinds_of_one = single(one, batch.x.shape[1], batch.s.shape[1])
            each |= kinds_of_one
            assert distance([part[i] for part in found], [dP, dA, db, dc, dx, dy, ds]) < 1e-9, (method, kind)
        assert kinds_of_all == each, method


def single(derivative, n, m):
    """The same for a derivative of one program."""
    rng = np.random.default_rng(4)
    g = [rng.standard_normal(k) for k in (n, m, m)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dP, dA, db, dc = derivative.vjp(*g)
        moved = derivative.jvp(db=g[1], dc=g[0])
    return (dP.toarray().T.ravel(), dA.toarray().T.ravel(), db, dc), moved, told(caught)


@pytest.mark.parametrize("name", CONES)
def test_threads_do_not_matter_beside_elements_of_every_kind(name):
    one, two = (solved(name, KINDS * 3, threads=threads) for threads in (1, 2))
    assert (one.status == two.status).all()
    for a, b in (
        (one.x, two.x),
        (one.y, two.y),
        (one.s, two.s),
        (one.info["iterations"], two.info["iterations"]),
    ):
        np.testing.assert_array_equal(a, b)
    (first, kinds), (second, also) = (answers(r.derivative(), r.x, r.s) for r in (one, two))
    assert kinds == also
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
