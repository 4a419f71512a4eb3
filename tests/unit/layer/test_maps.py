"""The maps by themselves, on made-up ones: no cvxpy, no solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from conediff.cones import ProductCone
from conediff.layer.maps import AffineBlock, OutputSpec, ParameterSpec, ProblemMaps
from conediff.program import ConeData, Pattern, Structure

N, M = 3, 4


def made_up(log=True):
    """Maps of three parameters: a real one, a complex one, and one whose logarithm enters.

    The first reaches A and c, the second b, the third c and d; P is constant.
    """
    rng = np.random.default_rng(0)
    parameters = (
        ParameterSpec("first", (2, 2)),
        ParameterSpec("second", (2,), complex=True),
        ParameterSpec("third", (), log=log),
    )
    width = sum(spec.width for spec in parameters)
    A, P = Pattern.of(sp.csc_array(np.ones((M, N)))), Pattern.of(sp.csc_array(np.ones((N, N))))
    reaches = ((), (0,), (1,), (0, 2), (2,))
    ends = np.cumsum([0] + [spec.width for spec in parameters])
    blocks = []
    for count, members in zip((P.nnz, A.nnz, M, N, 1), reaches, strict=True):
        matrix = np.zeros((count, width))
        for j in members:
            matrix[:, ends[j] : ends[j + 1]] = rng.normal(size=(count, ends[j + 1] - ends[j]))
        blocks.append(AffineBlock(sp.csc_array(matrix), rng.normal(size=count)))
    outputs = (
        OutputSpec("x", "primal", (2,), exp=log, matrix=sp.csr_array(rng.normal(size=(2, N)))),
        OutputSpec("z", "primal", (1, 2), complex=True, matrix=sp.csr_array(rng.normal(size=(4, N)))),
        OutputSpec("y", "dual", (), matrix=sp.csr_array(rng.normal(size=(1, M)))),
        OutputSpec("objective", "objective", ()),
    )
    cones = {"z": 1, "l": 3, "q": [], "s": [], "ep": 0, "p": []}
    structure = Structure(P, A, ProductCone.from_dict(cones))
    return ProblemMaps(structure, cones, parameters, outputs, tuple(blocks), -1.0, log)


def values_of(maps, rows, rng):
    values = [
        np.abs(rng.normal(size=(k, *s.shape))) + 0.5 for s, k in zip(maps.parameters, rows, strict=True)
    ]
    values[1] = values[1] + 1j * rng.normal(size=values[1].shape)
    return values


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ((1, 1, 1), (1, 1, 1, 1, 1)),
        ((5, 1, 1), (1, 5, 1, 5, 1)),
        ((1, 5, 1), (1, 1, 5, 1, 1)),
        ((1, 1, 5), (1, 1, 1, 5, 5)),
        ((5, 5, 5), (1, 5, 5, 5, 5)),
        ((0, 0, 0), (1, 0, 0, 0, 0)),
    ],
)
def test_what_is_shared_keeps_one_row(rows, counts):
    maps = made_up()
    data, d = maps.evaluate(values_of(maps, rows, np.random.default_rng(1)))
    assert tuple(len(a) for a in (data.P, data.A, data.b, data.c, d)) == counts


def test_a_stack_is_its_elements_one_by_one():
    maps = made_up()
    values = values_of(maps, (4, 1, 4), np.random.default_rng(2))
    data, d = maps.evaluate(values)
    for k in range(4):
        alone, d_alone = maps.evaluate([v[k : k + 1] if len(v) > 1 else v for v in values])
        for whole, one in zip((data.A, data.c, d), (alone.A, alone.c, d_alone), strict=True):
            np.testing.assert_allclose(whole[k], one[0], rtol=1e-13)


def test_features_are_values_imaginary_parts_and_logarithms_in_c_order():
    first, second, third = made_up().parameters
    np.testing.assert_array_equal(first.features(np.arange(4).reshape(1, 2, 2)), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(second.features(np.array([[1 + 2j, 3 + 4j]])), [[1, 3, 2, 4]])
    np.testing.assert_allclose(third.features(np.array([2.0])), [[2, np.log(2)]])


def test_columns_of_adjoining_spans_are_found():
    matrix = sp.csc_array(np.arange(12.0).reshape(2, 6))
    block = AffineBlock(matrix, np.zeros(2))
    np.testing.assert_array_equal(block.columns([(1, 3)]).toarray(), matrix.toarray()[:, 1:3])
    np.testing.assert_array_equal(block.columns([(1, 3), (3, 4)]).toarray(), matrix.toarray()[:, 1:4])
    np.testing.assert_array_equal(
        block.columns([(0, 2), (4, 6)]).toarray(), matrix.toarray()[:, [0, 1, 4, 5]]
    )
    assert block.columns([(0, 3), (3, 6)]) is matrix
    assert not AffineBlock(sp.csc_array((2, 6)), np.zeros(2)).touched_by((0, 6))


def test_cotangents_are_summed_for_a_shared_value():
    maps = made_up()
    rng = np.random.default_rng(3)
    shared = values_of(maps, (1, 1, 1), rng)
    repeated = [np.repeat(v, 4, axis=0) for v in shared]
    g = ConeData(*(rng.normal(size=(4, k)) for k in (maps.structure.P.nnz, maps.structure.A.nnz, M, N)))
    gd = rng.normal(size=4)
    one, many = maps.pull_back(shared, g, gd), maps.pull_back(repeated, g, gd)
    for a, b in zip(one, many, strict=True):
        assert len(a) == 1 and len(b) == 4
        np.testing.assert_allclose(a, b.sum(axis=0, keepdims=True), rtol=1e-12)


def test_only_what_is_needed_is_pulled_back():
    maps = made_up()
    rng = np.random.default_rng(4)
    values = values_of(maps, (2, 2, 2), rng)
    data, d = maps.evaluate(values)
    everything = maps.pull_back(values, data, d)
    some = maps.pull_back(values, data, d, needed=[True, False, True])
    assert some[1] is None
    np.testing.assert_allclose(some[0], everything[0])
    np.testing.assert_allclose(some[2], everything[2])
    without = maps.pull_back(values, data)
    assert not np.allclose(without[2], everything[2])


def test_none_is_no_change():
    maps = made_up()
    values = values_of(maps, (2, 2, 2), np.random.default_rng(5))
    data, d = maps.push_forward(values, [None, values[1], None])
    assert not data.A.any() and not data.c.any() and not d.any() and data.b.any()


def test_the_gradient_of_a_complex_parameter_is_for_the_real_inner_product():
    maps = made_up()
    values = values_of(maps, (1, 1, 1), np.random.default_rng(6))
    gb = np.random.default_rng(7).normal(size=(1, M))
    zeros = [np.zeros((1, len(block.constant))) for block in maps.blocks]
    g = maps.pull_back(values, ConeData(zeros[0], zeros[1], gb, zeros[3]))[1]

    def loss(z):
        data, _ = maps.evaluate([values[0], z, values[2]])
        return float(np.sum(gb * data.b))

    h = 1e-6
    for k in range(2):
        step = np.zeros((1, 2), dtype=complex)
        step[0, k] = h
        real = (loss(values[1] + step) - loss(values[1] - step)) / (2 * h)
        imag = (loss(values[1] + 1j * step) - loss(values[1] - 1j * step)) / (2 * h)
        np.testing.assert_allclose(g[0, k], real + 1j * imag, rtol=1e-7)


@pytest.mark.parametrize("log", [False, True])
def test_value_and_its_derivative(log):
    maps = made_up(log)
    rng = np.random.default_rng(8)
    values = values_of(maps, (3, 1, 3), rng)
    data, d = maps.evaluate(values)
    x, y = rng.normal(size=(3, N)), rng.normal(size=(3, M))
    for k in range(3):
        P = maps.structure.P.matrix(data.P[0]).toarray()
        expected = -(0.5 * x[k] @ P @ x[k] + data.c[k] @ x[k] + d[k])
        np.testing.assert_allclose(maps.value(data, d, x)[k], np.exp(expected) if log else expected)
    change = [rng.normal(size=a.shape) for a in (data.P, data.A, data.b, data.c, d)]
    A = maps.structure.A
    slope = maps.value_tangent(data, d, x, y, ConeData(*change[:4]), change[4])
    for k in range(3):
        # Of the Lagrangian, at fixed x and y.
        dP, dA = maps.structure.P.matrix(change[0][0]).toarray(), A.matrix(change[1][k]).toarray()
        lagrangian = 0.5 * x[k] @ dP @ x[k] + change[3][k] @ x[k] + change[4][k]
        lagrangian += y[k] @ (dA @ x[k]) - change[2][0] @ y[k]
        factor = -maps.value(data, d, x)[k] if log else -1.0
        np.testing.assert_allclose(slope[k], factor * lagrangian)
    g = rng.normal(size=3)
    gdata, gd = maps.value_cotangent(data, d, x, y, g)
    pairs = zip((gdata.P, gdata.A, gdata.b, gdata.c, gd), change, strict=True)
    np.testing.assert_allclose(sum(np.sum(a * b) for a, b in pairs), g @ slope)


def test_the_objective_among_the_outputs():
    maps = made_up()
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, N)), rng.normal(size=(2, M))
    with pytest.raises(ValueError, match="value must be given"):
        maps.recover(x, y)
    value = np.array([1.0, 2.0])
    assert maps.recover(x, y, value)[3] is value
    gx, gy, gvalue = maps.recover_cotangent(x, y, [None, None, None, value])
    assert not gx.any() and not gy.any()
    np.testing.assert_array_equal(gvalue, value)
    assert maps.recover_cotangent(x, y, [None] * 4)[2] is None


def test_shapes_of_outputs():
    maps = made_up()
    outputs = maps.recover(np.ones((2, N)), np.ones((2, M)), np.ones(2))
    assert [o.shape for o in outputs] == [(2, 2), (2, 1, 2), (2,), (2,)]
    assert [np.iscomplexobj(o) for o in outputs] == [False, True, False, False]
    empty = maps.recover(np.ones((0, N)), np.ones((0, M)), np.ones(0))
    assert [o.shape for o in empty] == [(0, 2), (0, 1, 2), (0,), (0,)]
    gx, gy, _ = maps.recover_cotangent(np.ones((0, N)), np.ones((0, M)), empty)
    assert gx.shape == (0, N) and gy.shape == (0, M)


def test_callers_arrays_are_not_written():
    maps = made_up()
    values = values_of(maps, (2, 1, 2), np.random.default_rng(10))
    for v in values:
        v.setflags(write=False)
    data, d = maps.evaluate(values)
    for a in (data.P, data.A, data.b, data.c, d):
        assert not any(np.shares_memory(a, v) for v in values)
        assert not any(np.shares_memory(a, block.constant) for block in maps.blocks)
        a.setflags(write=False)
    maps.push_forward(values, values)
    for g, v in zip(maps.pull_back(values, data, d), values, strict=True):
        assert not np.shares_memory(g, v)
