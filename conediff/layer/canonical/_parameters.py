"""Parameters: their declarations, and the map from their features to the reduced program's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from cvxpy.lin_ops.lin_op import CONSTANT_ID

from conediff.layer.canonical._chain import Reduced
from conediff.layer.canonical._checks import SYMMETRIC
from conediff.layer.maps import ParameterSpec
from conediff.program import Array

# cvxpy's attributes that `ParameterSpec.attributes` lists if they are set.
_FLAGS = ("nonneg", "nonpos", "pos", "neg", "diag", "hermitian", "imag", "complex", *SYMMETRIC)


def build_parameter_spec(p: Any, reduced: Reduced) -> ParameterSpec:
    """Return the declaration of a parameter, and whether its logarithm enters the reduced program."""
    attributes = [key for key in _FLAGS if p.attributes[key]]
    attributes += [key for key in ("boolean", "integer") if p.attributes[key] is not False]
    lower = upper = None
    if p.attributes["bounds"] is not None:
        lower, upper = (_dense(bound) for bound in p.attributes["bounds"])
    pattern = None
    if p.sparse_idx is not None:
        attributes.append("sparsity")
        pattern = np.sort(np.ravel_multi_index(p.sparse_idx, p.shape)).astype(np.intp)
    elif p.attributes["diag"]:
        pattern = np.arange(p.shape[0], dtype=np.intp) * (p.shape[0] + 1)
    return ParameterSpec(
        name=p.name(),
        shape=tuple(int(k) for k in p.shape),
        complex=bool(p.is_complex()),
        log=p in reduced.logarithms,
        attributes=tuple(attributes),
        lower=lower,
        upper=upper,
        pattern=pattern,
    )


def _dense(bound: Any) -> Array:
    """Return a bound, which may be sparse, as a float64 array."""
    dense: Any = bound.toarray() if hasattr(bound, "toarray") else bound
    return np.asarray(dense, dtype=np.float64)


def build_parameter_map(
    parameters: Sequence[Any], specs: Sequence[ParameterSpec], reduced: Reduced
) -> sp.csr_array:
    """Return the map from the features to the parameter vector of the reduced program.

    Every reduced entry equals one feature of the symmetrised (or masked) values. To find it, the features are
    numbered from one and the numbers are sent through cvxpy's reductions.

    Returns
    -------
    csr_array, shape (entries of the parameter vector, features)
    """
    entries: dict[int, Any] = {}
    projections = []
    start = 1
    for p, spec in zip(parameters, specs, strict=True):
        number = np.arange(start, start + spec.width, dtype=np.float64).reshape(
            spec.features_per_entry, *spec.shape
        )
        entries[p.id] = number[0] + 1j * number[1] if spec.complex else number[0]
        if spec.log:
            entries[reduced.logarithms[p].id] = number[1]
        projections.append(_build_projection(spec))
        start += spec.width
    arrived = reduced.parameter_entries(entries)
    program = reduced.program
    source = np.empty(program.total_param_size, dtype=np.int64)
    for key, column in program.param_id_to_col.items():
        if key != CONSTANT_ID:
            numbers = np.asarray(arrived[key]).flatten(order="F")
            source[column : column + numbers.size] = np.rint(numbers.real) - 1
    select = sp.csr_array(
        (np.ones(source.size), source, np.arange(source.size + 1)), shape=(source.size, start - 1)
    )
    if all(p is None for p in projections):
        return select
    blocks = [sp.eye_array(s.width) if p is None else p for s, p in zip(specs, projections, strict=True)]
    return sp.csr_array(select @ sp.block_diag(blocks, format="csr"))


def _build_projection(spec: ParameterSpec) -> sp.csr_array | None:
    """Return the projection of a parameter's features onto its declared structure; None means the identity.

    A symmetric matrix becomes (X + X') / 2, a Hermitian one (X + X*) / 2; entries outside of a sparsity
    pattern become zero. The logarithms of a symmetric matrix are averaged in the same way.
    """
    size = spec.size
    definite = "PSD" in spec.attributes or "NSD" in spec.attributes
    hermitian = "hermitian" in spec.attributes or (definite and spec.complex)
    if hermitian or definite or "symmetric" in spec.attributes:
        transposed = np.arange(size).reshape(spec.shape).T.ravel()
        swap = sp.csr_array((np.ones(size), (np.arange(size), transposed)), shape=(size, size))
        eye = sp.eye_array(size, format="csr")
        blocks = [(eye + swap) / 2, (eye - swap if hermitian else eye + swap) / 2]
        return sp.block_diag(blocks[: spec.features_per_entry], format="csr")
    if spec.pattern is not None:
        mask = np.zeros(size)
        mask[spec.pattern] = 1.0
        return sp.diags_array(np.tile(mask, spec.features_per_entry), format="csr")
    return None
