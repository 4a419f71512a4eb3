"""The fields of `ProblemMaps` as a flat dictionary of plain arrays, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from conediff.cones import ProductCone
from conediff.layer.maps.blocks import AffineBlock
from conediff.layer.maps.outputs import OutputSpec
from conediff.layer.maps.parameters import ParameterSpec
from conediff.program import Pattern, Structure

# Fields that the header holds; the shape, and the attributes of parameters, are added as lists.
_PARAMETER_KEYS = ("name", "complex", "log")
_OUTPUT_KEYS = ("name", "kind", "complex", "exp")


def pack(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ProblemMaps`, keyed by name, as a flat dictionary of arrays.

    The entry ``"header"`` is a dictionary that JSON can hold: names, shapes, flags, cones.
    """
    structure: Structure = fields["structure"]
    header = {
        "n": structure.n,
        "m": structure.m,
        "cones": {key: np.asarray(rows).tolist() for key, rows in fields["cones"].items()},
        "parameters": [_to_json(spec, _PARAMETER_KEYS) for spec in fields["parameters"]],
        "outputs": [_to_json(spec, _OUTPUT_KEYS) for spec in fields["outputs"]],
        "duals": [[_to_json(spec, _OUTPUT_KEYS) for spec in group] for group in fields["duals"]],
        "sense": float(fields["sense"]),
        "log_objective": bool(fields["log_objective"]),
    }
    arrays: dict[str, Any] = {"header": header}
    for key, pattern in (("P", structure.P), ("A", structure.A)):
        arrays[f"pattern.{key}.indptr"] = pattern.indptr
        arrays[f"pattern.{key}.indices"] = pattern.indices
    for k, block in enumerate(fields["blocks"]):
        _pack_matrix(arrays, f"block.{k}", block.matrix)
        arrays[f"block.{k}.constant"] = block.constant
    for j, spec in enumerate(fields["parameters"]):
        for key in ("lower", "upper", "pattern"):
            if getattr(spec, key) is not None:
                arrays[f"parameter.{j}.{key}"] = getattr(spec, key)
    for j, output in enumerate(fields["outputs"]):
        if output.matrix is not None:
            _pack_matrix(arrays, f"output.{j}", output.matrix)
    for j, group in enumerate(fields["duals"]):
        for k, dual in enumerate(group):
            _pack_matrix(arrays, f"dual.{j}.{k}", dual.matrix)
    return arrays


def unpack(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ProblemMaps`, keyed by name, from the dictionary that `pack` returned."""
    header = arrays["header"]
    blocks = tuple(
        AffineBlock(_unpack_matrix(arrays, f"block.{k}", sp.csc_array), arrays[f"block.{k}.constant"])
        for k in range(5)
    )
    parameters = tuple(
        ParameterSpec(
            **_restore_tuples(plain, ("shape", "attributes")),
            lower=arrays.get(f"parameter.{j}.lower"),
            upper=arrays.get(f"parameter.{j}.upper"),
            pattern=arrays.get(f"parameter.{j}.pattern"),
        )
        for j, plain in enumerate(header["parameters"])
    )
    outputs = tuple(_unpack_output(arrays, f"output.{j}", plain) for j, plain in enumerate(header["outputs"]))
    duals = tuple(
        tuple(_unpack_output(arrays, f"dual.{j}.{k}", plain) for k, plain in enumerate(group))
        for j, group in enumerate(header["duals"])
    )
    return {
        "structure": _unpack_structure(arrays),
        "cones": header["cones"],
        "parameters": parameters,
        "outputs": outputs,
        "duals": duals,
        "blocks": blocks,
        "sense": header["sense"],
        "log_objective": header["log_objective"],
    }


def _unpack_structure(arrays: Mapping[str, Any]) -> Structure:
    header = arrays["header"]
    n, m = header["n"], header["m"]
    P, A = (
        Pattern(shape, arrays[f"pattern.{key}.indptr"], arrays[f"pattern.{key}.indices"])
        for key, shape in (("P", (n, n)), ("A", (m, n)))
    )
    return Structure(P, A, ProductCone.from_dict(dict(header["cones"])))


def _unpack_output(arrays: Mapping[str, Any], key: str, plain: Mapping[str, Any]) -> OutputSpec:
    matrix = None if plain["kind"] == "objective" else _unpack_matrix(arrays, key, sp.csr_array)
    return OutputSpec(**_restore_tuples(plain, ("shape",)), matrix=matrix)


def _to_json(spec: ParameterSpec | OutputSpec, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a spec that JSON can hold: those in ``keys``, the shape and the attributes."""
    plain = {key: getattr(spec, key) for key in keys}
    plain["shape"] = list(spec.shape)
    if isinstance(spec, ParameterSpec):
        plain["attributes"] = list(spec.attributes)
    return plain


def _restore_tuples(plain: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return ``plain`` with the lists under ``keys`` as tuples, which JSON cannot hold."""
    return {key: tuple(value) if key in keys else value for key, value in plain.items()}


def _pack_matrix(arrays: dict[str, Any], key: str, matrix: Any) -> None:
    for field in ("data", "indices", "indptr"):
        arrays[f"{key}.{field}"] = getattr(matrix, field)
    arrays[f"{key}.shape"] = np.array(matrix.shape)


def _unpack_matrix(arrays: Mapping[str, Any], key: str, kind: Callable[..., Any]) -> Any:
    triple = tuple(arrays[f"{key}.{field}"] for field in ("data", "indices", "indptr"))
    return kind(triple, shape=tuple(int(k) for k in arrays[f"{key}.shape"]))
