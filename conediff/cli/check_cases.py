"""One program per kind of cone, with its solution and a derivative of the solution in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conediff.api.solve import solve
from conediff.program import Array, ConeProgram

_ROOT2 = np.sqrt(2.0)


@dataclass(frozen=True)
class Case:
    """A cone program whose solution is known in closed form.

    Parameters
    ----------
    name : str
    program : ConeProgram
    entry : tuple of str, int
        The entry of the data that varies: "b" or "c", and its position.
    x, dx : arrays, shape (n,)
        The solution, and its derivative with respect to that entry.
    """

    name: str
    program: ConeProgram
    entry: tuple[str, int]
    x: Array
    dx: Array


def measure_errors(case: Case) -> Mapping[str, float]:
    """Return the relative errors of the solution, and of its derivative in forward and reverse mode."""
    solution = solve(case.program)
    derivative = solution.derivative()
    (name, position), w = case.entry, np.cos(np.arange(case.x.size))
    step = np.zeros(getattr(case.program, name).size)
    step[position] = 1.0
    pushed = derivative.jvp(**{f"d{name}": step})[0]
    pulled = getattr(derivative.vjp(dx=w), f"d{name}")[position]
    size = np.abs(case.dx).max()
    return {
        "value": float(np.abs(solution.x - case.x).max() / np.abs(case.x).max()),
        "gradient": float(max(np.abs(pushed - case.dx).max(), abs(pulled - w @ case.dx)) / size),
    }


def _project_onto(
    name: str, cones: Mapping[str, Any], point: Sequence[float], k: int, x: Any, dx: Any
) -> Case:
    """Return the projection of a point onto a cone, varying with the point's k-th entry."""
    n = len(point)
    program = ConeProgram(-np.eye(n), np.zeros(n), -np.asarray(point), cones, P=np.eye(n))
    return Case(name, program, ("c", k), np.asarray(x, dtype=float), -np.asarray(dx, dtype=float))


def _maximise_entry(
    name: str, cones: Mapping[str, Any], b: Sequence[float], c: float, k: int, x: float, dx: float
) -> Case:
    """Return an extreme value of the entry that is NaN in b, of a point in a cone with the other entries."""
    program = ConeProgram(np.where(np.isnan(b), -1.0, 0.0)[:, None], np.nan_to_num(b), [c], cones)
    return Case(name, program, ("b", k), np.array([x]), np.array([dx]))


_FREE = float("nan")
_BOX = {"bl": [-1.0, -1.0], "bu": [1.0, 1.0]}

CASES = (
    # The point of least norm on the line x1 + x2 = b[0].
    Case(
        "zero cone",
        ConeProgram(np.ones((1, 2)), [1.0], np.zeros(2), {"z": 1}, P=np.eye(2)),
        ("b", 0),
        np.array([0.5, 0.5]),
        np.array([0.5, 0.5]),
    ),
    _project_onto("nonnegative cone", {"l": 2}, [0.3, -0.7], 0, [0.3, 0], [1, 0]),
    # A point clipped to the box [-b[0], b[0]].
    Case(
        "box cone",
        ConeProgram(np.array([[0.0, 0], [-1, 0], [0, -1]]), [1.0, 0, 0], [-0.3, -2.0], _BOX, P=np.eye(2)),
        ("b", 0),
        np.array([0.3, 1.0]),
        np.array([0.0, 1.0]),
    ),
    _project_onto("second-order cone", {"q": [3]}, [1, 3, 4], 1, [3, 1.8, 2.4], [0.3, 0.564, -0.048]),
    # [[1, 2], [2, 1]] has the eigenvalues 3 and -1; with 2i in place of 2, in the next case, it has the same.
    _project_onto(
        "positive semidefinite cone",
        {"s": [2]},
        [1, 2 * _ROOT2, 1],
        0,
        [1.5, 1.5 * _ROOT2, 1.5],
        [0.625, 0.25 * _ROOT2, -0.125],
    ),
    _project_onto(
        "complex positive semidefinite cone",
        {"cs": [2]},
        [1, 0, 2 * _ROOT2, 1],
        0,
        [1.5, 0, 1.5 * _ROOT2, 1.5],
        [0.625, 0, 0.25 * _ROOT2, -0.125],
    ),
    # The largest t with exp(t) <= 2; the smallest w with exp(-1/2) <= e w.
    _maximise_entry("exponential cone", {"ep": 1}, [_FREE, 1, 2], -1, 2, np.log(2), 0.5),
    _maximise_entry("dual exponential cone", {"ed": 1}, [-1, 0.5, _FREE], 1, 1, np.exp(-1.5), -np.exp(-1.5)),
    # The largest z with z <= 2^0.3; the largest z with z <= (2 / 0.3)^0.3 (1 / 0.7)^0.7.
    _maximise_entry("power cone", {"p": [0.3]}, [2, 1, _FREE], -1, 0, 2**0.3, 0.3 * 2**-0.7),
    _maximise_entry(
        "dual power cone",
        {"p": [-0.3]},
        [2, 1, _FREE],
        -1,
        0,
        (2 / 0.3) ** 0.3 * (1 / 0.7) ** 0.7,
        0.15 * (2 / 0.3) ** 0.3 * (1 / 0.7) ** 0.7,
    ),
)
