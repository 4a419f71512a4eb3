"""Outputs: linear maps from the cone program's solution to the user's variables and duals."""

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
from conediff.layer.canonical._names import find_dual_owners, identify
from conediff.layer.canonical._probe import find_linear_maps
from conediff.layer.maps import OutputSpec
from conediff.program import Array, Structure


def build_output_specs(
    problem: cp.Problem, variables: Sequence[Any], reduced: Reduced, structure: Structure
) -> tuple[OutputSpec, ...]:
    """Return the map from the cone solution to each output, in the order of ``variables``."""
    owners = find_dual_owners(problem)
    primals = [v for v in variables if v is not problem.objective and v.id not in owners]
    duals = [v for v in variables if v is not problem.objective and v.id in owners]
    found = dict(zip(map(identify, primals), _build_primal_specs(primals, reduced, structure.n), strict=True))
    found.update(
        zip(map(identify, duals), _build_specs_of_duals(duals, owners, reduced, structure.m), strict=True)
    )
    objective = OutputSpec("objective", "objective", ())
    return tuple(objective if v is problem.objective else found[v.id] for v in variables)


def build_dual_specs(
    problem: cp.Problem, reduced: Reduced, structure: Structure
) -> tuple[tuple[OutputSpec, ...], ...]:
    """Return the maps to the dual variables of every constraint; () if cvxpy does not recover them."""
    owners = find_dual_owners(problem)

    def specs(duals: Sequence[Any]) -> tuple[OutputSpec, ...]:
        try:
            return tuple(_build_specs_of_duals(duals, owners, reduced, structure.m))
        except ProblemError:
            return ()

    # Probe all dual variables together; only if one of them is not recovered, each constraint by itself.
    groups = [list(c.dual_variables) for c in problem.constraints]
    together = specs([dual for group in groups for dual in group])
    if len(together) != sum(map(len, groups)):
        return tuple(specs(group) for group in groups)
    found = iter(together)
    return tuple(tuple(next(found) for _ in group) for group in groups)


def _build_primal_specs(variables: Sequence[Any], reduced: Reduced, n: int) -> list[OutputSpec]:
    """Return the maps from x to the variables."""

    def probe(x: Array) -> list[NDArray[Any]]:
        values = reduced.variable_entries(x)
        # Variables that cvxpy eliminated (without entries, or without effect) are zero.
        return [_to_array(values.get(v.id, 0.0), v.shape) for v in variables]

    # The cone programs of geometric programs have the logarithms of the variables.
    gp = any(isinstance(r, Dgp2Dcp) for r in reduced.chain.reductions)
    maps = find_linear_maps(probe, n, [v.name() for v in variables])
    return [
        OutputSpec(v.name(), "primal", shape, is_complex, gp, matrix)
        for v, (shape, is_complex, matrix) in zip(variables, maps, strict=True)
    ]


def _build_specs_of_duals(
    duals: Sequence[Any], owners: dict[int, Any], reduced: Reduced, m: int
) -> list[OutputSpec]:
    """Return the maps from y to the dual variables; raise ProblemError if cvxpy does not recover one."""
    constraints = {c.id: c for c in (owners[dual.id] for dual in duals)}

    def probe(y: Array) -> list[NDArray[Any]]:
        values = reduced.dual_values(y)
        with _restored_duals(constraints.values()):
            for key, c in constraints.items():
                if key not in values:
                    raise ProblemError(f"cvxpy does not recover the dual variable of the constraint {c}.")
                c.save_dual_value(values[key])
            return [np.array(dual.value) for dual in duals]

    maps = find_linear_maps(probe, m, [dual.name() for dual in duals]) if duals else []
    return [
        OutputSpec(dual.name(), "dual", shape, is_complex, False, matrix)
        for dual, (shape, is_complex, matrix) in zip(duals, maps, strict=True)
    ]


@contextmanager
def _restored_duals(constraints: Any) -> Iterator[None]:
    """Restore the values of the constraints' dual variables at the end of the context."""
    kept = [(dual, dual.value) for c in constraints for dual in c.dual_variables]
    try:
        yield
    finally:
        for dual, value in kept:
            dual.save_value(value)


def _to_array(value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a value, which may be sparse or a scalar, as an array of this shape."""
    dense = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    return np.broadcast_to(dense, shape) if dense.ndim == 0 else dense.reshape(shape)
