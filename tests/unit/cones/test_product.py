"""The product of cones: SCS's dictionary, rows, grouping, piles."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from conediff.cones import PSD, Exponential, NonNegative, Power, ProductCone, SecondOrder, Zero
from conediff.errors import ConeError

MIXED = {
    "z": 2,
    "l": 3,
    "bl": [-1.0, -np.inf],
    "bu": [1.0, 2.0],
    "q": [3, 4, 3, 1, 4],
    "s": [2, 3, 2],
    "cs": [2, 3],
    "ep": 2,
    "ed": 1,
    "p": [0.3, -0.6, 0.5],
}
UNBOXED = {key: value for key, value in MIXED.items() if not key.startswith("b")}


def singles(cones):
    """The cones one by one, in SCS's order, each as a product of its own."""
    for key in ("z", "l"):
        yield from [{key: 1}] * cones.get(key, 0)
    if "bl" in cones:
        yield {"bl": cones["bl"], "bu": cones["bu"]}
    for key in ("q", "s", "cs"):
        yield from ({key: [size]} for size in cones.get(key, []))
    for key in ("ep", "ed"):
        yield from [{key: 1}] * cones.get(key, 0)
    yield from ({"p": [exponent]} for exponent in cones.get("p", []))


def blocks(cones, v):
    """Π(v), D and margin, put together one cone at a time."""
    offset, points, derivatives = 0, [], []
    for one in singles(cones):
        cone = ProductCone.from_dict(one)
        projection = cone.project_dual(v[..., offset : offset + cone.dim])
        points.append(projection.point)
        derivatives.append((slice(offset, offset + cone.dim), projection.derivative()))
        offset += cone.dim
    assert offset == v.shape[-1]
    return np.concatenate(points, axis=-1), derivatives


def test_dimension_is_scs_s():
    assert ProductCone.from_dict(MIXED).dim == 2 + 3 + 3 + 15 + (3 + 6 + 3) + (4 + 9) + 6 + 3 + 9
    assert ProductCone.from_dict({}).dim == 0


def test_equal_cones_are_one_group_and_rows_cover_all():
    cone = ProductCone.from_dict(MIXED)
    kinds = [(type(group), group.count, group.dim) for group, _ in cone.groups]
    assert kinds[0] == (Zero, 2, 1)
    assert kinds[1] == (NonNegative, 3, 1)
    assert (SecondOrder, 2, 3) in kinds and (SecondOrder, 2, 4) in kinds and (SecondOrder, 1, 1) in kinds
    assert (PSD, 2, 3) in kinds and (Exponential, 2, 3) in kinds and (Power, 3, 3) in kinds
    for group, rows in cone.groups:
        assert rows.shape == (group.count, group.dim)
    every = np.concatenate([rows.ravel() for _, rows in cone.groups])
    np.testing.assert_array_equal(np.sort(every), np.arange(cone.dim))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_product_equals_the_cones_one_by_one(batch):
    cone = ProductCone.from_dict(MIXED)
    v = np.random.default_rng(0).normal(size=(*batch, cone.dim))
    h = np.random.default_rng(1).normal(size=v.shape)
    projection = cone.project_dual(v)
    D = projection.derivative()
    point, parts = blocks(MIXED, v)
    np.testing.assert_allclose(projection.point, point, atol=1e-13)
    for operator in ("apply", "apply_root"):
        expected = [getattr(derivative, operator)(h[..., rows]) for rows, derivative in parts]
        np.testing.assert_allclose(getattr(D, operator)(h), np.concatenate(expected, axis=-1), atol=1e-13)
    assert D.margin.shape == batch
    if v.size:
        np.testing.assert_allclose(D.margin, np.min([part.margin for _, part in parts], axis=0), rtol=1e-9)
    for group, rows, derivative in D.groups:
        assert derivative.dense()[0].shape == (*batch, group.count, group.dim, group.dim)
        assert rows.shape == (group.count, group.dim)


def test_tangents_without_a_batch_and_the_margin_of_free_rows():
    cone = ProductCone.from_dict({"z": 2, "l": 1, "q": [3]})
    v = np.random.default_rng(2).normal(size=(4, cone.dim))
    D = cone.project_dual(v).derivative()
    h = np.ones(cone.dim)
    np.testing.assert_array_equal(D.apply(h), D.apply(np.ones((4, cone.dim))))
    assert (
        ProductCone.from_dict({"z": 2}).project_dual(np.zeros((3, 2))).derivative().margin.tolist()
        == [np.inf] * 3
    )
    assert (
        ProductCone.from_dict({}).project_dual(np.zeros((3, 0))).derivative().margin.tolist() == [np.inf] * 3
    )


def test_point_is_not_the_caller_s_memory():
    v = np.ones(2)
    ProductCone.from_dict({"z": 2}).project_dual(v).point[:] = 0
    assert v.tolist() == [1, 1]


def test_to_dict_gives_back_what_was_read():
    assert ProductCone.from_dict(MIXED).to_dict() == MIXED
    assert ProductCone.from_dict({"z": 0, "q": [], "l": 2}).to_dict() == {"l": 2}
    assert ProductCone.from_dict({"q": np.array([3, 2]), "z": np.int64(1)}).to_dict() == {"z": 1, "q": [3, 2]}
    assert ProductCone.from_dict({"q": 3, "p": 0.5, "bl": -1, "bu": 1}).to_dict() == {
        "bl": [-1.0],
        "bu": [1.0],
        "q": [3],
        "p": [0.5],
    }


def test_is_a_value():
    cone, same = ProductCone.from_dict(MIXED), ProductCone.from_dict(dict(reversed(MIXED.items())))
    assert cone == same and hash(cone) == hash(same)
    assert cone != ProductCone.from_dict(UNBOXED)
    assert cone.groups and len(pickle.dumps(cone)) < 1000
    assert pickle.loads(pickle.dumps(cone)) == cone


@pytest.mark.parametrize(
    ("cones", "message"),
    [
        ({"f": 1}, "unknown cone 'f'.*z, l, bl, bu, q, s, cs, ep, ed, p"),
        ({"z": -1}, "'z'.*not negative"),
        ({"l": 1.5}, "'l'.*whole numbers"),
        ({"l": True}, "'l'.*whole numbers"),
        ({"ep": "3"}, "'ep'.*whole numbers"),
        ({"q": [3, -2]}, "'q'.*not negative"),
        ({"s": [2.0]}, "'s'.*whole numbers"),
        ({"cs": [[2]]}, "flat list"),
        ({"q": "34"}, "list of numbers"),
        ({"p": [0.5, 1.0]}, r"exponents.*got 1\.0"),
        ({"p": [0.0]}, "exponents"),
        ({"p": [-1]}, "exponents"),
        ({"p": [np.nan]}, "exponents"),
        ({"p": ["a"]}, "expected a number"),
        ({"bl": [0.0], "bu": [1.0, 2.0]}, "'bl' has 1 bounds and 'bu' has 2"),
        ({"bl": [0.0]}, "'bl' has 1 bounds and 'bu' has 0"),
        ({"bl": [0.0, 2.0], "bu": [1.0, 1.0]}, "lower bound 2.0 at 1 is above"),
        ({"bl": [np.inf], "bu": [np.inf]}, "no interval"),
        ({"bl": [np.nan], "bu": [1.0]}, "no interval"),
    ],
)
def test_malformed_cones_are_refused(cones, message):
    with pytest.raises(ConeError, match=message):
        ProductCone.from_dict(cones)


def test_wrong_length_is_refused():
    cone = ProductCone.from_dict({"l": 3})
    with pytest.raises(ConeError, match="3 rows in all"):
        cone.project_dual(np.zeros(4))
    with pytest.raises(ConeError, match="3 rows in all"):
        cone.project_dual(np.zeros(3)).derivative().apply(np.zeros((3, 1)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pile_projects_as_its_copies_do(count):
    cone = ProductCone.from_dict(UNBOXED)
    pile, rows = cone.pile(count)
    assert pile == ProductCone.from_dict(pile.to_dict())
    assert pile.dim == count * cone.dim
    assert rows.shape == (count, cone.dim)
    np.testing.assert_array_equal(np.sort(rows.ravel()), np.arange(pile.dim))
    v = np.random.default_rng(3).normal(size=(count, cone.dim))
    stacked = np.empty(pile.dim)
    stacked[rows] = v
    projection = pile.project_dual(stacked)
    np.testing.assert_allclose(projection.point[rows], cone.project_dual(v).point, atol=1e-13)
    D = projection.derivative()
    np.testing.assert_allclose(D.apply(stacked)[rows], cone.project_dual(v).derivative().apply(v), atol=1e-13)


def test_only_one_box_can_be_piled():
    cone = ProductCone.from_dict(MIXED)
    assert not cone.pileable and ProductCone.from_dict(UNBOXED).pileable
    assert cone.pile(1)[0] == cone
    with pytest.raises(ConeError, match="box"):
        cone.pile(2)
