"""A cone added by one line in the registry works in products, piles, solves and both modes of the derivative.

The cone is {(a, b, c): 2 a c >= b^2, a, c >= 0}, which is SCS's PSD cone of order 2. Every program has to
give the same results with either.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import conediff as cd
from conediff.cones import (
    BlockDerivative,
    ConeDefaults,
    DerivativeDefaults,
    ProductCone,
    SecondOrder,
    parse,
    registry,
)
from conediff.errors import ConeError
from conediff.scaling import ConeScalings
from tests.programs import Known, cotangent, curve, distance, draw

R = np.array([[1, 0, 1], [1, 0, -1], [0, np.sqrt(2), 0]]) / np.sqrt(2)
# A new cone among others of its own kind, of SCS's kind, before and behind.
NEW = {"z": 1, "l": 2, "q": [3], "s": [2, 3], "r": 2, "ep": 1, "p": [0.4]}
SAME = {"z": 1, "l": 2, "q": [3], "s": [2, 3, 2, 2], "ep": 1, "p": [0.4]}


@dataclass(frozen=True)
class RotatedProjection:
    inner: object

    @property
    def point(self):
        return self.inner.point @ R

    def derivative(self):
        inner = self.inner.derivative()
        D, S = (R.T @ block @ R for block in inner.dense())
        return BlockDerivative(D, S, lambda: inner.margin, lambda h, k: inner.bend(h @ R.T, k @ R.T) @ R)


@dataclass(frozen=True)
class Rotated(ConeDefaults):
    count: int
    dim = 3
    diagonal = False

    def project_dual(self, v, near=None):
        return RotatedProjection(SecondOrder(self.count, 3).project_dual(v @ R.T))


LINE = registry.Kind(
    ("r",), "rotated second-order", parse.size, registry.one(Rotated), scs=lambda count: {"s": [2] * count}
)


@pytest.fixture
def registered(monkeypatch):
    behind = [kind.keys for kind in registry.KINDS].index(("s",)) + 1
    monkeypatch.setattr(registry, "KINDS", [*registry.KINDS[:behind], LINE, *registry.KINDS[behind:]])


def pair(seed, sparse=False):
    """A program with the new cone, its solution, and the same with PSD cones."""
    known = draw(np.random.default_rng(seed), SAME, sparse=sparse)
    p = known.program
    return Known(cd.ConeProgram(p.A, p.b, p.c, NEW, p.P), *known.solution), known


def test_a_product_projects_as_with_the_known_cone(registered):
    cone, same = ProductCone.from_dict(NEW), ProductCone.from_dict(SAME)
    assert cone.dim == same.dim and cone.to_dict() == NEW and cone.to_scs() == SAME
    assert cone != same and pickle.loads(pickle.dumps(cone)) == cone
    assert (Rotated, 2, 3) in [(type(group), group.count, group.dim) for group, _ in cone.groups]
    v, h = np.random.default_rng(0).standard_normal((2, 50, cone.dim))
    found, expected = cone.project_dual(v), same.project_dual(v)
    np.testing.assert_allclose(found.point, expected.point, atol=1e-13)
    found, expected = found.derivative(), expected.derivative()
    np.testing.assert_allclose(found.apply(h), expected.apply(h), atol=1e-12)
    np.testing.assert_allclose(found.apply_root(h), expected.apply_root(h), atol=1e-12)


def test_a_pile_keeps_its_rows(registered):
    cone = ProductCone.from_dict(NEW)
    pile, rows = cone.pile(3)
    assert pile.to_dict()["r"] == 6 and pile.to_scs()["s"] == [2, 3] * 3 + [2] * 6
    v = np.random.default_rng(1).standard_normal((3, cone.dim))
    stacked = np.empty(pile.dim)
    stacked[rows] = v
    np.testing.assert_allclose(pile.project_dual(stacked).point[rows], cone.project_dual(v).point, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_a_solve_and_both_modes_of_the_derivative(registered, seed):
    known, same = pair(seed, sparse=seed == 1)
    solution = cd.solve(known.program)
    assert solution.status == "solved"
    assert distance((solution.x, solution.y, solution.s), known.solution) < 1e-7
    rng = np.random.default_rng(seed)
    line, g = curve(rng, known), cotangent(rng, known)
    derivative = solution.derivative()
    assert distance(derivative.jvp(*line.data), line.solution) < 1e-5
    pulled, expected = derivative.vjp(*g), cd.solve(same.program).derivative().vjp(*g)
    parts = [(d.dP, d.dA, d.db, d.dc) for d in (pulled, expected)]
    assert distance(*parts) < 1e-6
    products = [cd.solve(one.program).derivative().hvp(g, line.data) for one in (known, same)]
    assert distance(*products) < 1e-5


def test_a_cone_without_bend_refuses_second_derivatives_only(registered, monkeypatch):
    monkeypatch.setattr(BlockDerivative, "bend", DerivativeDefaults.bend)
    derivative = cd.solve(pair(0)[0].program).derivative()
    assert np.isfinite(derivative.vjp(dx=np.ones(pair(0)[0].program.n)).dc).all()
    with pytest.raises(ConeError, match="second derivatives need the derivative of D"):
        derivative.hvp({"dx": np.ones(pair(0)[0].program.n)}, {"dc": np.ones(pair(0)[0].program.n)})


def test_a_batch(registered):
    known, same = pair(3)
    b = known.program.b + 1e-3 * np.random.default_rng(3).standard_normal((20, known.program.m))
    found, expected = (cd.solve_batch(one.program, b=b) for one in (known, same))
    np.testing.assert_allclose(found.x, expected.x, atol=1e-7)
    g = np.ones((20, known.program.n))
    pulled, wanted = (one.derivative().vjp(dx=g) for one in (found, expected))
    np.testing.assert_allclose(pulled.db, wanted.db, atol=1e-6 * np.abs(wanted.db).max())


def test_a_scaling_by_a_number_is_the_default(registered):
    known, _ = pair(4)
    cone, rng = known.program.structure.cone, np.random.default_rng(4)
    (rows,) = (rows for group, rows in cone.groups if isinstance(group, Rotated))
    v = rng.standard_normal((30, cone.dim))
    y = cone.project_dual(v).point
    s = y - v
    y[:, rows] *= 2.0**12
    zero = np.zeros((1, cone.dim))
    scaling = ConeScalings(known.program.structure)._primal_dual(known.program.data, y, s, zero, zero)
    factors = scaling.diagonal[:, rows]
    assert (factors == factors[:, :, :1]).all() and (factors != 1).any()


@pytest.mark.parametrize("limit", [2, 500])
def test_large_blocks_are_left_out_of_K(registered, monkeypatch, limit):
    """A single eigenvalue replaces the block; GMRES makes up for the difference."""
    monkeypatch.setattr(Rotated, "dense_limit", limit)
    known, _ = pair(5)
    solution = cd.solve(known.program)
    line = curve(np.random.default_rng(5), known)
    assert distance(solution.derivative().jvp(*line.data), line.solution) < 1e-5


def test_a_product_whose_kind_is_not_registered_any_more_is_refused(registered, monkeypatch):
    cone = ProductCone.from_dict({"l": 1, "r": 2})
    monkeypatch.setattr(registry, "KINDS", [kind for kind in registry.KINDS if kind is not LINE])
    with pytest.raises(ConeError, match="registry"):
        _ = cone.dim
    with pytest.raises(ConeError, match="unknown cone 'r'"):
        ProductCone.from_dict({"r": 2})
