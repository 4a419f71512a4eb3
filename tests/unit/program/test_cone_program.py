"""A cone program: what it accepts, what it refuses, and that it never changes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.program.pattern import Pattern

A = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]])
B, C, CONES = [1.0, 2.0, 3.0], [1.0, 1.0], {"z": 1, "l": 2}
P = np.array([[2.0, 1.0], [1.0, 3.0]])


@pytest.mark.parametrize(
    "form",
    [
        np.array,
        np.asfortranarray,
        list,
        sp.csc_matrix,
        sp.csr_array,
        sp.coo_array,
        sp.lil_matrix,
        sp.dok_array,
    ],
)
def test_matrices_of_every_form(form):
    p = cd.ConeProgram(
        form(A) if form is not list else A.tolist(), B, C, CONES, form(P) if form is not list else P.tolist()
    )
    np.testing.assert_array_equal(p.A.toarray(), A)
    np.testing.assert_array_equal(p.P.toarray(), P)
    assert p.A.has_sorted_indices and (p.n, p.m) == (2, 3) and p.cones == CONES
    assert repr(p) == "ConeProgram(n=2, m=3, cones={'z': 1, 'l': 2})"


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_numbers_of_other_types_become_floats(dtype):
    p = cd.ConeProgram(A.astype(dtype), np.ones(3, dtype), np.ones(2, dtype), CONES)
    assert p.A.dtype == p.b.dtype == p.c.dtype == np.float64


def test_duplicate_entries_are_added_and_rows_sorted():
    rows, columns, values = [2, 0, 2, 1], [0, 0, 0, 1], [1.0, 5.0, 2.0, 4.0]
    given = sp.coo_array((values, (rows, columns)), shape=(3, 2))
    p = cd.ConeProgram(given, B, C, CONES)
    np.testing.assert_array_equal(p.A.indices, [0, 2, 1])
    np.testing.assert_array_equal(p.A.data, [5.0, 3.0, 4.0])
    unsorted = sp.csc_array(
        (np.array([1.0, 5.0, 4.0]), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(3, 2)
    )
    assert cd.ConeProgram(unsorted, B, C, CONES).A.has_sorted_indices
    np.testing.assert_array_equal(unsorted.indices, [2, 0, 1])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([1.0, 2.0], B, C, CONES), ValueError, r"A must be a matrix, but has shape \(2,\)"),
        ((A[None], B, C, CONES), ValueError, "A must be a matrix"),
        ((A, [B], C, CONES), ValueError, r"b must be a vector, but has shape \(1, 3\)"),
        ((A, B, 1.0, CONES), ValueError, r"c must be a vector, but has shape \(\)"),
        ((A, B[:2], C, CONES), ValueError, "b must have 3 entries and c must have 2; they have 2 and 2"),
        ((A, B, [1.0], CONES), ValueError, "they have 3 and 1"),
        ((np.zeros((3, 0)), B, [], CONES), ValueError, "no variables"),
        ((A, B, C, {"l": 4}), ValueError, "the cones have 4 rows in all, but A has 3"),
        ((A, B, C, {}), ValueError, "the cones have 0 rows"),
        ((A, B, C, CONES, np.eye(3)), ValueError, r"P must have shape \(2, 2\), but has \(3, 3\)"),
        ((A, B, C, CONES, np.triu(P)), ValueError, "P must be symmetric, with both triangles"),
        ((A, B, C, CONES, [1.0, 2.0]), ValueError, "P must be a matrix"),
        ((A, B, C, {"l": 2.5}), cd.ConeError, "whole numbers"),
        ((A, B, C, {"l": -1}), cd.ConeError, "not negative"),
        ((A, B, C, {"x": 3}), cd.ConeError, "unknown cone 'x'"),
        ((A, B, C, {"p": [1.5]}), cd.ConeError, "exponents"),
        ((A, B, C, {"bl": [1.0, 0.0], "bu": [0.0, 1.0]}), cd.ConeError, "above the upper bound"),
        ((A, [1.0, np.nan, 3.0], C, CONES), cd.ParameterError, r"b is not finite: b\[1\] is nan"),
        ((A, B, [1.0, -np.inf], CONES), cd.ParameterError, r"c is not finite: c\[1\] is -inf"),
        ((np.where(A == 3, np.inf, A), B, C, CONES), cd.ParameterError, r"A is not finite: A\[2, 0\] is inf"),
        ((np.where(A == -1, np.nan, A), B, C, CONES), cd.ParameterError, r"A\[1, 1\] is nan"),
        ((A, B, C, CONES, np.full((2, 2), np.nan)), cd.ParameterError, r"P is not finite: P\[0, 0\]"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        cd.ConeProgram(*arguments)


@pytest.mark.parametrize("name", ["A", "sparse A", "b"])
def test_complex_data_are_refused(name):
    given = {"A": (A + 1j, B), "sparse A": (sp.csc_array(A + 1j), B), "b": (A, np.array(B) + 1j)}[name]
    with pytest.raises((TypeError, ValueError)):
        cd.ConeProgram(*given, C, CONES)


def test_P_is_symmetric_up_to_rounding():
    nearly = P.copy()
    nearly[0, 1] *= 1 + 1e-15
    cd.ConeProgram(A, B, C, CONES, nearly)
    cd.ConeProgram(A, B, C, CONES, P * 1e-200)
    with pytest.raises(ValueError, match="symmetric"):
        cd.ConeProgram(A, B, C, CONES, np.triu(P) * 1e-200)


def test_no_rows_and_no_quadratic_term():
    p = cd.ConeProgram(np.zeros((0, 2)), [], C, {})
    assert (p.m, p.A.shape, p.P.shape, p.P.nnz) == (0, (0, 2), (2, 2), 0)


def test_it_is_pickled_and_copied():
    p = cd.ConeProgram(A, B, C, CONES, P)
    for other in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert np.array_equal(other.A.toarray(), A) and other.cones == CONES
        np.testing.assert_allclose(cd.solve(other).x, cd.solve(p).x)


def test_attributes_are_not_set():
    p = cd.ConeProgram(A, B, C, CONES, P)
    for name in ("A", "P", "b", "c", "cones", "n", "m"):
        with pytest.raises(AttributeError):
            setattr(p, name, None)


def test_properties_are_copies():
    p = cd.ConeProgram(A, B, C, CONES, P)
    for _ in range(2):
        np.testing.assert_array_equal(p.b, B)
        np.testing.assert_array_equal(p.c, C)
        np.testing.assert_array_equal(p.A.toarray(), A)
        np.testing.assert_array_equal(p.P.toarray(), P)
        p.b[:] = p.c[:] = 7
        for matrix in (p.A, p.P):
            matrix.data[:] = 7
            matrix.indices[:] = 0


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (0, 2), (2, 0)])
def test_largest_values_of_rows_and_columns(shape):
    rng = np.random.default_rng(0)
    A = sp.csc_array(rng.standard_normal(shape) * (rng.random(shape) < 0.5))
    pattern, values = Pattern.of(A), np.abs(np.stack([A.data, 2 * A.data]))
    dense = np.abs(A.toarray())
    np.testing.assert_array_equal(pattern.row_peaks(values)[1], 2 * dense.max(axis=1, initial=0))
    np.testing.assert_array_equal(pattern.column_peaks(values)[0], dense.max(axis=0, initial=0))


@pytest.mark.parametrize("name", ["P", "A", "b", "c"])
def test_complex_stacks_are_refused(name):
    """NumPy would drop the imaginary part, with a warning of its own."""
    program = cd.ConeProgram(A, B, C, CONES, P=P)
    stack = {"P": program.data.P, "A": program.data.A, "b": program.data.b, "c": program.data.c}[name]
    with pytest.raises(TypeError, match=f"{name} is complex"):
        cd.solve_batch(program, **{name: stack + 1j})


def test_complex_tangents_and_cotangents_are_refused():
    derivative = cd.solve(cd.ConeProgram(A, B, C, CONES, P=P)).derivative()
    for give in (
        lambda: derivative.vjp(np.ones(2) * 1j),
        lambda: derivative.jvp(db=np.ones(3) * 1j),
        lambda: derivative.jvp(dA=sp.csc_array(A * 1j)),
    ):
        with pytest.raises(TypeError, match="is complex"):
            give()
