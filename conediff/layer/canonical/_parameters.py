"""Parameters: what is declared of them, and their way into the reduced program."""

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

_FLAGS = ("nonneg", "nonpos", "pos", "neg", "diag", "hermitian", "imag", "complex", *SYMMETRIC)


def parameter_spec(p: Any, reduced: Reduced) -> ParameterSpec:
    """Return what is declared of a parameter, and how it enters the reduced program."""
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
    dense: Any = bound.toarray() if hasattr(bound, "toarray") else bound
    return np.asarray(dense, dtype=np.float64)


def parameter_map(
    parameters: Sequence[Any], specs: Sequence[ParameterSpec], reduced: Reduced
) -> sp.csr_array:
    """Return the map from the features to the parameter vector of the reduced program.

    Features are numbered from one, and the numbers sent through the reductions. Every reduced entry is
    one of the features of the symmetrised (or masked) value, so that the number it receives says which.
    """
    entries: dict[int, Any] = {}
    foldings = []
    start = 1
    for p, spec in zip(parameters, specs, strict=True):
        number = np.arange(start, start + spec.width, dtype=np.float64).reshape(spec.parts, *spec.shape)
        entries[p.id] = number[0] + 1j * number[1] if spec.complex else number[0]
        if spec.log:
            entries[reduced.logarithms[p].id] = number[1]
        foldings.append(_folding(spec))
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
    if all(f is None for f in foldings):
        return select
    identities = [sp.eye_array(s.width) if f is None else f for s, f in zip(specs, foldings, strict=True)]
    return sp.csr_array(select @ sp.block_diag(identities, format="csr"))


def _folding(spec: ParameterSpec) -> sp.csr_array | None:
    """Return the projection of a parameter's features onto its structure; None for the identity.

    (X + X')/2 for symmetric, (X + X*)/2 for Hermitian matrices, and zero outside of a sparsity pattern.
    The logarithms of a symmetric matrix are averaged likewise.
    """
    size = spec.size
    definite = "PSD" in spec.attributes or "NSD" in spec.attributes
    hermitian = "hermitian" in spec.attributes or (definite and spec.complex)
    if hermitian or definite or "symmetric" in spec.attributes:
        transposed = np.arange(size).reshape(spec.shape).T.ravel()
        swap = sp.csr_array((np.ones(size), (np.arange(size), transposed)), shape=(size, size))
        eye = sp.eye_array(size, format="csr")
        parts = [(eye + swap) / 2, (eye - swap if hermitian else eye + swap) / 2]
        return sp.block_diag(parts[: spec.parts], format="csr")
    if spec.pattern is not None:
        mask = np.zeros(size)
        mask[spec.pattern] = 1.0
        return sp.diags_array(np.tile(mask, spec.parts), format="csr")
    return None
