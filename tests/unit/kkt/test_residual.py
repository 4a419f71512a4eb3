"""The residual: relative to terms that are there, and to the terms of every row by itself."""

import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.kkt.constants import ROW_SHARE, ROW_TOLERANCE
from conediff.kkt.residual import Residual
from conediff.program import ConeData
from tests.programs import CONES, draw


def at(program, x, y, s=0.0):
    """The evaluation of one program at one point."""
    x, v = np.atleast_2d(np.asarray(x, float)), np.atleast_2d(np.asarray(y, float) - s)
    return Residual(program.structure, program.data)(x, v)


@pytest.mark.parametrize("size", [1e6, 1e9, 1e13, 1e16])
def test_a_dual_in_an_empty_row_hides_no_gradient(size):
    """minimise x1 + x2^2 / 2 subject to x0 = 1e9, 0 = 0: at x2 = 0 the gradient is 1."""
    A = sp.csc_array(np.array([[1.0, 0], [0, 0]]))
    program = cd.ConeProgram(A, [1e9, 0], [0, 1], {"z": 2}, np.diag([0.0, 1.0]))
    there = at(program, [0, 0], [0, size])
    assert there.r1[0, 1] == there.scale1[0, 0] == 1
    assert at(program, [1e9, 0], [0, size]).judged[0] >= ROW_SHARE / 4
    assert at(program, [1e9, -1], [0, size]).judged[0] == 0


def test_a_dual_counts_with_the_entries_that_it_meets():
    """The large entry of A is in another row than the large duals, which cancel."""
    A = np.array([[1e6, 0, 0], [0, 1, 0], [0, -1, 0]])
    program = cd.ConeProgram(A, [1e6, 0, 0], [0, 1, 1], {"z": 3}, np.eye(3))
    there = at(program, [1, 0, 0], [-1e-6, 1e5, 1e5])
    assert there.scale1[0, 0] == pytest.approx(10)  # 1e-4 times 1e5


@pytest.mark.parametrize("beside", [1.0, 1e6, 1e9])
def test_a_small_row_is_not_hidden_by_a_large_one(beside):
    program = cd.ConeProgram(np.eye(2), [beside, 1], [0, 0], {"z": 2}, np.eye(2))
    for violation in (1e-9, 1e-6, 1e-3, 0.3):
        there = at(program, [beside, 1 + violation], [-beside, -1 - violation])
        share = violation / (2 + violation)
        rows = ROW_SHARE * share if share > ROW_TOLERANCE else 0
        assert there.judged[0] == pytest.approx(max(there.relative[0], rows), rel=1e-6)
        assert (there.judged[0] <= 1e-10) == (share <= ROW_TOLERANCE) or beside == 1


@pytest.mark.parametrize("name", CONES)
def test_known_solutions_satisfy_their_rows(name):
    known = draw(np.random.default_rng(0), CONES[name])
    assert at(known.program, known.x, known.y, known.s).judged[0] < 1e-12
    wrong = at(known.program, known.x + 1e-3, known.y, known.s)
    assert wrong.judged[0] >= wrong.relative[0] > 1e-8


def test_a_program_is_judged_in_a_stack_as_it_is_alone():
    rng = np.random.default_rng(0)
    program = draw(rng, CONES["mixed"]).program
    s, d = program.structure, program.data
    count = 20
    size = 10.0 ** rng.uniform(-9, 9, (count, 1))
    data = ConeData(d.P, d.A * 10.0 ** rng.uniform(-6, 6, (count, s.A.nnz)), d.b * size, d.c / size)
    x, v = rng.standard_normal((count, s.n)) * size, rng.standard_normal((count, s.m)) * size
    x[::2] *= 1e-9
    together = Residual(s, data)(x, v)
    for i in range(count):
        alone = Residual(s, data.take(np.array([i])))(x[i : i + 1], v[i : i + 1])
        np.testing.assert_allclose(alone.relative[0], together.relative[i], rtol=1e-9)
        np.testing.assert_allclose(alone.judged[0], together.judged[i], rtol=1e-9)
