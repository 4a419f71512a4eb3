"""For every kind of cone a program whose solution, and its derivative by one number, are known."""

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
    """A cone program in closed form.

    Parameters
    ----------
    name : str
    program : ConeProgram
    entry : tuple of str, int
        The number that changes: "b" or "c", and its position.
    x, dx : arrays, shape (n,)
        The solution, and its derivative by that number.
    """

    name: str
    program: ConeProgram
    entry: tuple[str, int]
    x: Array
    dx: Array


def cone_errors(case: Case) -> Mapping[str, float]:
    """Errors of the solution and of both modes of its derivative, relative to the largest entry."""
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


def _projection(name: str, cones: Mapping[str, Any], point: Sequence[float], k: int, x: Any, dx: Any) -> Case:
    """The projection of a point onto a cone, and its derivative by the point's k-th entry."""
    n = len(point)
    program = ConeProgram(-np.eye(n), np.zeros(n), -np.asarray(point), cones, P=np.eye(n))
    return Case(name, program, ("c", k), np.asarray(x, dtype=float), -np.asarray(dx, dtype=float))


def _last(
    name: str, cones: Mapping[str, Any], b: Sequence[float], c: float, k: int, x: float, dx: float
) -> Case:
    """The extreme value of the one entry of a cone's point that is free, the others being given."""
    program = ConeProgram(np.where(np.isnan(b), -1.0, 0.0)[:, None], np.nan_to_num(b), [c], cones)
    return Case(name, program, ("b", k), np.array([x]), np.array([dx]))


_FREE = float("nan")
_BOX = {"bl": [-1.0, -1.0], "bu": [1.0, 1.0]}

CASES = (
    # The point of least norm on a line.
    Case(
        "zero cone",
        ConeProgram(np.ones((1, 2)), [1.0], np.zeros(2), {"z": 1}, P=np.eye(2)),
        ("b", 0),
        np.array([0.5, 0.5]),
        np.array([0.5, 0.5]),
    ),
    _projection("nonnegative cone", {"l": 2}, [0.3, -0.7], 0, [0.3, 0], [1, 0]),
    # A point clipped to a box whose size is b[0].
    Case(
        "box cone",
        ConeProgram(np.array([[0.0, 0], [-1, 0], [0, -1]]), [1.0, 0, 0], [-0.3, -2.0], _BOX, P=np.eye(2)),
        ("b", 0),
        np.array([0.3, 1.0]),
        np.array([0.0, 1.0]),
    ),
    _projection("second-order cone", {"q": [3]}, [1, 3, 4], 1, [3, 1.8, 2.4], [0.3, 0.564, -0.048]),
    # [[1, 2], [2, 1]] has the eigenvalues 3 and -1; then the same with 2i.
    _projection(
        "positive semidefinite cone",
        {"s": [2]},
        [1, 2 * _ROOT2, 1],
        0,
        [1.5, 1.5 * _ROOT2, 1.5],
        [0.625, 0.25 * _ROOT2, -0.125],
    ),
    _projection(
        "complex positive semidefinite cone",
        {"cs": [2]},
        [1, 0, 2 * _ROOT2, 1],
        0,
        [1.5, 0, 1.5 * _ROOT2, 1.5],
        [0.625, 0, 0.25 * _ROOT2, -0.125],
    ),
    # The largest t with exp(t) <= 2, and the least w with exp(-1/2) <= e w.
    _last("exponential cone", {"ep": 1}, [_FREE, 1, 2], -1, 2, np.log(2), 0.5),
    _last("dual exponential cone", {"ed": 1}, [-1, 0.5, _FREE], 1, 1, np.exp(-1.5), -np.exp(-1.5)),
    # The largest z with z <= 2^0.3, and with z <= (2 / 0.3)^0.3 (1 / 0.7)^0.7.
    _last("power cone", {"p": [0.3]}, [2, 1, _FREE], -1, 0, 2**0.3, 0.3 * 2**-0.7),
    _last(
        "dual power cone",
        {"p": [-0.3]},
        [2, 1, _FREE],
        -1,
        0,
        (2 / 0.3) ** 0.3 * (1 / 0.7) ** 0.7,
        0.15 * (2 / 0.3) ** 0.3 * (1 / 0.7) ** 0.7,
    ),
)
