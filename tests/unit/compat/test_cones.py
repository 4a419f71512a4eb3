"""diffcp's module of cones."""

from __future__ import annotations

import numpy as np
import pytest

import conediff.compat as diffcp
from conediff import ConeError

CONES = {"f": 1, "l": 2, "q": [3, 2], "s": [3], "ep": 2, "ed": 1, "p": [0.3]}
ROWS = 1 + 2 + 5 + 6 + 6 + 3 + 3


def test_the_program_of_diffcps_readme():
    """A random program made of projections: a solution of it is known, hence its value."""
    rng = np.random.default_rng(0)
    cones = diffcp.cones.parse_cone_dict(CONES)
    z, x = rng.standard_normal(ROWS), rng.standard_normal(20)
    s = diffcp.cones.pi(z, cones, dual=False)
    y = s - z
    np.testing.assert_allclose(diffcp.cones.pi(-z, cones, dual=True), y, atol=1e-12)
    A = rng.standard_normal((ROWS, 20))
    b, c = A @ x + s, -A.T @ y
    found = diffcp.solve_only(A, b, c, CONES)
    assert (c @ found[0], -b @ found[1]) == pytest.approx((c @ x, c @ x))


def test_parse_cone_dict():
    expected = [("z", 3), ("l", 2), ("q", [3]), ("s", []), ("ep", 1)]
    assert diffcp.cones.parse_cone_dict({"ep": 1, "l": 2, "z": 1, "s": [], "f": 2, "q": [3]}) == expected


@pytest.mark.parametrize("n", [1, 2, 4])
def test_symmetric_matrices_as_vectors(n):
    """The lower triangle by columns; the inner product is kept."""
    rng = np.random.default_rng(n)
    X, Y = (M + M.T for M in rng.standard_normal((2, n, n)))
    x, y = diffcp.cones.vec_symm(X), diffcp.cones.vec_symm(Y)
    assert x @ y == pytest.approx(np.vdot(X, Y))
    np.testing.assert_allclose(diffcp.cones.unvec_symm(x, n), X)
    np.testing.assert_allclose(x[:n], np.append(X[0, 0], np.sqrt(2) * X[1:, 0]))


def test_shapes_that_do_not_fit():
    with pytest.raises(ConeError, match="cone"):
        diffcp.cones.pi(np.ones(3), [("l", 2)])
    with pytest.raises(ValueError, match=r"square matrix, but has shape \(3, 2\)"):
        diffcp.cones.vec_symm(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"shape \(3,\) for dim=2, but has \(4,\)"):
        diffcp.cones.unvec_symm(np.ones(4), 2)
