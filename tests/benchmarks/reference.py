"""What is right: values by Clarabel, gradients by a tight solve, confirmed by differences of Clarabel's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

import conediff as cd
from tests.benchmarks.problems import Case, Values

Array = NDArray[np.float64]
WRONG = 1e-2  # relative error from which a value or a gradient counts as wrong, not merely inaccurate
CONFIRMED = 1e-3  # relative error of a finite difference that still confirms a gradient
STEP = 1e-4
DENSE = 2000  # rows and columns up to which the gradient is taken by dense linear algebra
TIGHT = {f"tol_{name}": 1e-10 for name in ("gap_abs", "gap_rel", "feas")}


@dataclass
class Reference:
    """Right answers for a batch.

    Attributes
    ----------
    values, gradients : arrays, shape (size, variables), (size, parameters)
        All variables, and all parameters, side by side.
    differences : array, shape (confirmed,)
        By how much a finite difference along a random direction of length one differs from the gradient's
        entry there, relative to the typical size of such an entry.
    agreement : float
        Largest relative distance of Clarabel's values from the tight solve.
    """

    values: Array
    gradients: Array
    differences: Array
    agreement: float

    @classmethod
    def of(cls, case: Case, parameters: Values, confirm: int = 8) -> Reference:
        """Solve every element twice, and differentiate."""
        size = len(parameters[0])
        cotangents = case.cotangents(size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = cd.CvxpyLayer(case.problem, case.parameters, case.variables)
            small = layer.maps.structure.n + layer.maps.structure.m <= DENSE
            solution = layer.solve(
                *parameters, solver_args={"tol": 1e-12, "method": "dense" if small else "auto"}
            )
            gradients = flat(solution.vjp(*cotangents))
            values = np.stack([_clarabel(case, [p[i] for p in parameters]) for i in range(size)])
            differences = [
                _difference(case, [p[i] for p in parameters], [c[i] for c in cotangents], gradients[i], i)
                for i in range(min(size, confirm))
            ]
        agreement = relative(flat(solution.values), values).max()
        return cls(values, gradients, np.array(differences), float(agreement))

    def errors(self, values: Values, gradients: Values) -> tuple[float, float]:
        """Return the worst relative error, over the elements, of values and of gradients."""
        size = len(values[0])
        return (
            float(relative(flat(values), self.values[:size]).max()),
            float(relative(flat(gradients), self.gradients[:size], self.scale).max()),
        )

    @property
    def scale(self) -> float:
        """Norm below which a gradient counts as small: sparsemax at a vertex has none at all."""
        return float(np.median(np.linalg.norm(self.gradients, axis=1)))

    @property
    def confirmed(self) -> bool:
        """Whether values agree and most finite differences do; one may lie across a kink."""
        return self.agreement < 1e-5 and float(np.median(self.differences)) < CONFIRMED


def flat(parts: Values) -> Array:
    """Lay arrays side by side, shape (size, all)."""
    return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in parts], axis=1)


def relative(found: Array, right: Array, floor: float = 0.0) -> Array:
    """Return the relative error of every row; a NaN is infinitely wrong."""
    distance = np.linalg.norm(found - right, axis=1)
    scale = np.maximum(np.linalg.norm(right, axis=1), max(floor, np.finfo(float).tiny))
    return np.nan_to_num(distance / scale, nan=np.inf)


def _clarabel(case: Case, parameters: list[Array]) -> Array:
    for parameter, value in zip(case.parameters, parameters, strict=True):
        parameter.value = value
    case.problem.solve(solver=cp.CLARABEL, **TIGHT)
    return np.concatenate([np.ravel(variable.value) for variable in case.variables])


def _difference(
    case: Case, parameters: list[Array], cotangents: list[Array], gradient: Array, seed: int
) -> float:
    """Compare the gradient along a random direction with a central difference."""
    rng = np.random.default_rng(seed)
    weights = np.concatenate([np.ravel(c) for c in cotangents])
    directions = [rng.standard_normal(p.shape) for p in parameters]
    if all(p.ndim == 2 and np.array_equal(p, p.T) for p in parameters):
        directions = [(d + d.T) / 2 for d in directions]
    length = np.sqrt(sum(np.vdot(d, d) for d in directions))
    directions = [d / length for d in directions]
    ends = [
        weights @ _clarabel(case, [p + h * d for p, d in zip(parameters, directions, strict=True)])
        for h in (STEP, -STEP)
    ]
    expected = gradient @ np.concatenate([np.ravel(d) for d in directions])
    typical = max(np.linalg.norm(gradient) / np.sqrt(gradient.size), 1e-6)
    return float(abs((ends[0] - ends[1]) / (2 * STEP) - expected) / typical)
