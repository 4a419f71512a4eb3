"""What a user holds and sees: repr, dir, types, the line of verbose, messages on failures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
import conediff.compat

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layer():
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.ones(2))
    return cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])


def held(layer):
    """Every kind of object that a user gets from the public functions."""
    solution = layer.solve(np.ones((3, 2)))
    program = cd.ConeProgram(np.array([[-1.0]]), [-1.0], [2.0], {"l": 1})
    one = cd.solve(program)
    x, p = cp.Variable(name="x"), cp.Parameter(name="p", value=1.0)
    D, DT = conediff.compat.solve_and_derivative(program.A, program.b, program.c, {"l": 1})[3:]
    yield from (layer, layer.maps, layer.inputs, layer.settings, layer.parameters[0], layer.outputs[0])
    yield from (solution, solution.cones, solution.cones[0], solution.diagnostics)
    yield from (program, one, one.derivative(), solution.cones.derivative(), one.derivative().diagnostics)
    yield cd.differentiate(cp.Problem(cp.Minimize(cp.square(x - p)), [x >= 0]))
    yield from (D, DT)
    with conediff.compat.install() as replacement:
        yield replacement


def test_repr_says_what_it_is(layer):
    """No addresses, and short enough to read."""
    for thing in held(layer):
        text = repr(thing)
        assert len(text) < 500 and " object at 0x" not in text, text


def test_repr_of_a_solution_says_how_it_went():
    x, p = cp.Variable(2, name="x"), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    layer = cd.CvxpyLayer(problem, [p], [x], solver_args={"on_failure": "nan"})
    solution = layer.solve(np.array([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]]))
    assert re.match(
        r"LayerSolution\(\(x\[2\]\), batch=\(3,\): 2 solved, 1 infeasible; residual", repr(solution)
    )
    assert "3 programs: 2 solved, 1 infeasible" in repr(solution.cones)
    assert "(x[2]), batch=(): solved; residual" in repr(layer.solve(np.zeros(2)))
    assert "no elements" in repr(layer.solve(np.zeros((0, 2))))
    assert repr(layer.solve(np.full(2, 2.0))).endswith("infeasible)")


def test_dir_shows_the_public_names():
    assert dir(cd) == sorted([*cd.__all__, "__version__", "compat"])
    assert all(hasattr(cd, name) for name in dir(cd))


@pytest.mark.parametrize("solver", ["scs", "clarabel"])
def test_verbose_ends_with_our_own_line(layer, capfd, solver):
    line = r"conediff: {}; \d+ iterations of SCS or Clarabel{}; \d+ Newton steps{}; relative KKT residual \S+"
    args = {"verbose": True, "solver": solver}
    layer.solve(np.ones(2), solver_args=args)
    assert re.fullmatch(line.format("solved", "", ""), capfd.readouterr().out.splitlines()[-1])
    layer.solve(np.ones((3, 2)), solver_args=args)
    most = r", \d+ at most"
    assert re.fullmatch(line.format("3 solved", most, most), capfd.readouterr().out.splitlines()[-1])
    program = cd.ConeProgram(np.array([[1.0], [-1.0]]), [-1.0, -1.0], [1.0], {"l": 2})
    with pytest.raises(cd.SolverError):
        cd.solve(program, **args)
    assert capfd.readouterr().out.splitlines()[-1].startswith("conediff: infeasible; ")
    layer.solve(np.ones(2))
    assert "conediff:" not in capfd.readouterr().out


# Rows that contradict each other, and a variable that no row has: infeasible, and its dual too.
TWICE = np.array(
    [
        [0.784, 1.493, -1.259, 0.0],
        [1.346, 0.781, 0.264, 0.0],
        [1.458, 1.96, 1.802, 0.0],
        [0.357, -1.208, -0.004, 0.0],
        [-1.288, 0.395, 0.43, 0.0],
        [-1.184, -0.662, -0.436, 0.0],
    ]
)
B, OBJECTIVE = [1.32, 0.633, -2.204, 0.052, 0.684, 1.004], [173.9, -49.6, 32.9, -25.9]


def test_infeasible_and_unbounded_at_once():
    program = cd.ConeProgram(TWICE, B, OBJECTIVE, {"z": 2, "l": 4})
    with pytest.raises(cd.SolverError, match="the problem is infeasible") as caught:
        cd.solve(program)
    assert "improves without limit" not in str(caught.value)
    unbounded = cd.ConeProgram(np.array([[-1.0]]), [-1.0], [-1.0], {"l": 1})
    with pytest.raises(cd.SolverError, match="unbounded: .* improves without limit"):
        cd.solve(unbounded)


def test_infeasible_and_unbounded_in_a_batch_of_a_layer():
    x, b = cp.Variable(4), cp.Parameter(6, name="b")
    constraints = [TWICE[:2] @ x == b[:2], TWICE[2:] @ x <= b[2:]]
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(np.array(OBJECTIVE) @ x), constraints), [b], [x])
    easy = np.array([*TWICE[:2] @ np.ones(4), 9.0, 9.0, 9.0, 9.0])
    with pytest.raises(cd.SolverError) as caught:
        layer(np.stack([easy, B]))
    assert caught.value.statuses[0] == "unbounded"
    assert re.search(r"0 \(unbounded\), 1 \(infeasible( and unbounded)?\)", str(caught.value))


TYPED = """
import numpy as np
import cvxpy as cp
import conediff as cd
from numpy.typing import NDArray
from typing import Any

x, c = cp.Variable(2), cp.Parameter(2)
layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
solution = layer.solve(np.ones(2))
(g,) = solution.vjp(np.ones(2))
total: float = float(g.sum())
(h,) = solution.vjp(np.ones(2), needed=[True])
maybe: NDArray[Any] | None = h
(t,) = solution.jvp(np.ones(2))
other: float = float(t.sum())
(value,) = layer(np.ones(2))
D = cd.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - c))))
J: NDArray[Any] = D.jacobian(x, of=c)
one = cd.solve(cd.ConeProgram(np.eye(1), [1.0], [1.0], {"l": 1}))
dP, dA, db, dc = one.derivative().vjp(dx=np.ones(1))
"""


def test_strict_types(tmp_path):
    """Code of a user passes mypy --strict without casts."""
    pytest.importorskip("mypy")
    file = tmp_path / "user.py"
    file.write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-untyped-imports", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
