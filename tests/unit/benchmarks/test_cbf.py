"""The reader of the Conic Benchmark Format: each cone's points, by its definition, are the program's."""

from __future__ import annotations

import numpy as np
import pytest

import conediff as cd
from tests.benchmarks.judge import distance
from tests.benchmarks.readers.cbf import read_cbf
from tests.benchmarks.readers.problem import FormatError

POWERS = "POWCONES\n2 4\n2\n1.0\n3.0\n2\n1.0\n1.0\nPOW*CONES\n1 2\n2\n1.0\n3.0\n"


def written(tmp_path, *sections):
    path = tmp_path / "tiny.cbf"
    path.write_text("# a comment\n\nVER\n4\n" + "\n".join(sections) + "\n", encoding="ascii")
    return path


def power(a, x, y, z):
    return x >= 0 and y >= 0 and x**a * y ** (1 - a) >= abs(z)


def exponential(z, y, x):
    return y > 0 and z >= y * np.exp(x / y)


# name: rows, and membership by the format's definition, off the boundary
CONES = {
    "L=": (2, lambda v: not v.any()),
    "L+": (2, lambda v: v.min() >= 0),
    "L-": (2, lambda v: v.max() <= 0),
    "Q": (3, lambda v: v[0] >= np.linalg.norm(v[1:])),
    "QR": (4, lambda v: v[0] >= 0 and v[1] >= 0 and 2 * v[0] * v[1] >= v[2:] @ v[2:]),
    "EXP": (3, lambda v: exponential(*v)),
    # (a, b, c) of the dual: c < 0 and a e >= -c exp(b / c), with a, b, c in the order of EXP
    "EXP*": (3, lambda v: v[2] < 0 and np.e * v[0] >= -v[2] * np.exp(v[1] / v[2])),
    "@0:POW": (3, lambda v: power(0.25, *v)),
    "@1:POW": (3, lambda v: power(0.5, *v)),
    "@0:POW*": (3, lambda v: power(0.25, v[0] / 0.25, v[1] / 0.75, v[2])),
}


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("where", ["VAR", "CON"])
def test_members_are_those_of_the_definition(tmp_path, name, where):
    size, member = CONES[name]
    own, free = f"{size} 1\n{name} {size}", f"{size} 1\nF {size}"
    eye = "\n".join(f"{k} {k} 1" for k in range(size))
    sections = [f"VAR\n{own}"] if where == "VAR" else [f"VAR\n{free}", f"CON\n{own}\nACOORD\n{size}\n{eye}"]
    program = read_cbf(written(tmp_path, POWERS, "OBJSENSE\nMIN", *sections)).program
    rng = np.random.default_rng(0)
    points = [*(2 * rng.standard_normal((200, size))), np.zeros(size), -np.ones(size), np.ones(size)]
    inside = [distance(program.cones, program.b - program.A @ x, dual=False) <= 1e-12 for x in points]
    right = [bool(member(x)) or not x.any() for x in points]
    assert inside == right
    assert 0 < sum(right) < len(points)


def test_scalar_variables_have_coefficients_and_constants(tmp_path):
    """Maximise 3 - x - 2 y subject to x + y - 2 >= 0, x - y = 0.5."""
    path = written(
        tmp_path,
        "OBJSENSE\nMAX\nVAR\n2 1\nL+ 2\nCON\n2 2\nL+ 1\nL= 1",
        "OBJACOORD\n2\n0 -1\n1 -2\nOBJBCOORD\n3",
        "ACOORD\n4\n0 0 1\n0 1 1\n1 0 1\n1 1 -1\nBCOORD\n2\n0 -2\n1 -0.5",
    )
    problem = read_cbf(path)
    x = cd.solve(problem.program).x
    np.testing.assert_allclose(x, [1.25, 0.75], atol=1e-9)
    assert problem.objective(x) == pytest.approx(3 - 1.25 - 1.5)


def test_psd_variables_are_matrices(tmp_path):
    """Minimise <F, X> + 5 X_0 + 3 t, tr X = 1, X_0 + t = 1, X, X_0 >= 0: the least eigenvalue of F, and 3."""
    path = written(
        tmp_path,
        "OBJSENSE\nMIN\nPSDVAR\n2\n1\n3\nVAR\n1 1\nF 1\nCON\n2 1\nL= 2",
        "OBJFCOORD\n4\n1 0 0 2\n1 1 0 1\n1 2 1 -1\n0 0 0 5",
        "FCOORD\n4\n0 1 0 0 1\n0 1 1 1 1\n0 1 2 2 1\n1 0 0 0 1\nACOORD\n1\n1 0 1\nBCOORD\n2\n0 -1\n1 -1",
        "OBJACOORD\n1\n0 3",
    )
    problem = read_cbf(path)
    assert problem.program.cones == {"z": 2, "s": [1, 3]}
    x = cd.solve(problem.program).x
    F = np.array([[2.0, 1, 0], [1, 0, -1], [0, -1, 0]])
    assert problem.objective(x) == pytest.approx(np.linalg.eigvalsh(F)[0] + 3, abs=1e-8)
    X = np.zeros((3, 3))
    X.T[np.triu_indices(3)] = x[2:] / np.array([1, np.sqrt(2), np.sqrt(2), 1, np.sqrt(2), 1])
    assert np.trace(X) == pytest.approx(1, abs=1e-9)


def test_psd_constraints_are_matrix_inequalities(tmp_path):
    """Minimise x subject to x I - F >= 0, in the second constraint; x - 1 >= 0 in the first."""
    path = written(
        tmp_path,
        "OBJSENSE\nMIN\nPSDCON\n2\n1\n2\nVAR\n1 1\nF 1\nOBJACOORD\n1\n0 1",
        "HCOORD\n3\n1 0 0 0 1\n1 0 1 1 1\n0 0 0 0 1\nDCOORD\n3\n0 0 0 -1\n1 0 0 -2\n1 1 0 -1.5",
    )
    problem = read_cbf(path)
    x = cd.solve(problem.program).x
    right = np.linalg.eigvalsh([[2.0, 1.5], [1.5, 0.0]])[-1]
    np.testing.assert_allclose(x, [right], atol=1e-9)


@pytest.mark.parametrize(
    "sections, message",
    [
        (["VAR\n1 1\nF 1\nINT\n1\n0"], "integer variables"),
        (["CHANGE"], "changed problems"),
        (["SOMETHING"], "section 'SOMETHING' is unknown"),
        (["VAR\n3 1\nEXP 2"], "announced"),
        (["VAR\n4 1\nEXP 4"], "cone EXP of 4 rows"),
        (["VAR\n3 1\nGMEAN 3"], "cone GMEAN of 3 rows"),
        (["VAR\n1 1\nQR 1"], "cone QR of 1 rows"),
        (["VAR\n3 1\n@0:POW 3"], "not declared"),
        ([POWERS, "VAR\n4 1\n@0:POW 4"], "two exponents and three rows"),
        (["POWCONES\n1 3\n3\n1\n1\n1", "VAR\n4 1\n@0:POW 4"], "3 exponents"),
        (["VAR\n1 1\nL+ 1", "OBJACOORD\n1\n3 1.0"], "out of range"),
        (["VAR\n1 1\nL+ 1", "OBJACOORD\n1\n-1 1.0"], "negative index"),
        (["VAR\n1 1\nL+ 1", "OBJACOORD\n2\n0 1.0"], "cut short"),
        (["PSDVAR\n1\n2", "OBJFCOORD\n1\n0 2 0 1.0"], "outside of its matrix"),
        (["OBJSENSE\nBEST"], "MIN or MAX"),
        (["VER\n9"], "version 9"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_name(tmp_path, sections, message):
    with pytest.raises(FormatError, match=message) as caught:
        read_cbf(written(tmp_path, *sections))
    assert "tiny.cbf" in str(caught.value)
