"""Outputs: how each is read from the cone program's solution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from numpy.typing import NDArray

from conediff.errors import ProblemError
from conediff.layer.canonical._chain import Reduced
from conediff.layer.canonical._names import dual_owners, identity
from conediff.layer.canonical._probe import linear_maps
from conediff.layer.maps import OutputSpec
from conediff.program import Array, Structure


def output_specs(
    problem: cp.Problem, variables: Sequence[Any], reduced: Reduced, structure: Structure
) -> tuple[OutputSpec, ...]:
    """Return where each output is read from the cone solution."""
    owners = dual_owners(problem)
    primals = [v for v in variables if v is not problem.objective and v.id not in owners]
    duals = [v for v in variables if v is not problem.objective and v.id in owners]
    found = dict(zip(map(identity, primals), _primal_specs(primals, reduced, structure.n), strict=True))
    found.update(zip(map(identity, duals), _dual_specs(duals, owners, reduced, structure.m), strict=True))
    objective = OutputSpec("objective", "objective", ())
    return tuple(objective if v is problem.objective else found[v.id] for v in variables)


def constraint_dual_specs(
    problem: cp.Problem, reduced: Reduced, structure: Structure
) -> tuple[tuple[OutputSpec, ...], ...]:
    """Return where the dual variables of every constraint are read; none where cvxpy recovers none."""
    owners = dual_owners(problem)

    def specs(duals: Sequence[Any]) -> tuple[OutputSpec, ...]:
        try:
            return tuple(_dual_specs(duals, owners, reduced, structure.m))
        except ProblemError:
            return ()

    groups = [list(c.dual_variables) for c in problem.constraints]
    together = specs([dual for group in groups for dual in group])
    if len(together) != sum(map(len, groups)):
        return tuple(specs(group) for group in groups)
    found = iter(together)
    return tuple(tuple(next(found) for _ in group) for group in groups)


def _primal_specs(variables: Sequence[Any], reduced: Reduced, n: int) -> list[OutputSpec]:
    def probe(x: Array) -> list[NDArray[Any]]:
        values = reduced.variable_entries(x)
        # What cvxpy eliminated (no entries, or nothing depends on it) is zero.
        return [_array(values.get(v.id, 0.0), v.shape) for v in variables]

    # Geometric programs are solved in the logarithms of their variables.
    gp = any(isinstance(r, Dgp2Dcp) for r in reduced.chain.reductions)
    maps = linear_maps(probe, n, [v.name() for v in variables])
    return [
        OutputSpec(v.name(), "primal", shape, is_complex, gp, matrix)
        for v, (shape, is_complex, matrix) in zip(variables, maps, strict=True)
    ]


def _dual_specs(duals: Sequence[Any], owners: dict[int, Any], reduced: Reduced, m: int) -> list[OutputSpec]:
    constraints = {c.id: c for c in (owners[dual.id] for dual in duals)}

    def probe(y: Array) -> list[NDArray[Any]]:
        values = reduced.dual_values(y)
        with _duals_kept(constraints.values()):
            for key, c in constraints.items():
                if key not in values:
                    raise ProblemError(f"cvxpy does not recover the dual variable of the constraint {c}.")
                c.save_dual_value(values[key])
            return [np.array(dual.value) for dual in duals]

    maps = linear_maps(probe, m, [dual.name() for dual in duals]) if duals else []
    return [
        OutputSpec(dual.name(), "dual", shape, is_complex, False, matrix)
        for dual, (shape, is_complex, matrix) in zip(duals, maps, strict=True)
    ]


@contextmanager
def _duals_kept(constraints: Any) -> Iterator[None]:
    """Give the constraints' dual variables back the values that they had."""
    kept = [(dual, dual.value) for c in constraints for dual in c.dual_variables]
    try:
        yield
    finally:
        for dual, value in kept:
            dual.save_value(value)


def _array(value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    dense = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    return np.broadcast_to(dense, shape) if dense.ndim == 0 else dense.reshape(shape)
