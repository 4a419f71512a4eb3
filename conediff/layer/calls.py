"""How a call passes its parameters: by position or by name, how many, and in which shapes.

Used before values are read (`arguments`), and by adapters before there are any values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from conediff.layer.maps import ParameterSpec

Shape = tuple[Any, ...]  # of int, or None for a size that is not known yet
# How messages on missing values begin, word for word as cvxpylayers says it.
EACH = "A tensor must be provided for each CVXPY parameter"


def check_count(names: Sequence[str], items: Sequence[Any], whose: str = "each parameter") -> None:
    """Check that there is one item for each name.

    Raises
    ------
    ValueError
        If there are more, or fewer.
    """
    if len(items) != len(names):
        expected = ", ".join(map(repr, names)) or "none"
        raise ValueError(
            f"{EACH}; received {len(items)} tensors, expected {len(names)}: one for {whose} ({expected})"
        )


def check_single_output(single_output: bool, count: int) -> None:
    """Check that a layer that returns its only output itself has one.

    Raises
    ------
    ValueError
        If it has more, or none.
    """
    if single_output and count != 1:
        raise ValueError(
            f"single_output: the layer returns {count} variables, not one: leave it out, or ask for one of "
            "them only"
        )


def check_distinct(specs: Sequence[ParameterSpec]) -> None:
    """Check that a name identifies one parameter.

    Raises
    ------
    ValueError
        If two parameters have the same name.
    """
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"more than one parameter is named {name!r}: give each a name of its own to use weights, or "
                "calls by name"
            )


def by_name(specs: Sequence[ParameterSpec], names: Sequence[str], items: Mapping[str, Any]) -> list[Any]:
    """Return the items of a mapping in the order of the names.

    Parameters
    ----------
    specs : sequence of ParameterSpec
        All parameters of the layer.
    names : sequence of str
        Those that calls pass.
    items : mapping
        From exactly these names.

    Raises
    ------
    ValueError
        If the mapping has other names, or two parameters have the same one.
    """
    check_distinct(specs)
    if set(items) != set(names):
        raise ValueError(f"expected values by the names {list(names)}, got {list(items)}")
    return [items[name] for name in names]


def batch_shape(specs: Sequence[ParameterSpec], shapes: Sequence[Shape]) -> Shape:
    """Return the batch shape of values of these shapes.

    Parameters
    ----------
    specs : sequence of ParameterSpec
    shapes : sequence of tuple of int or None
        One for each parameter; None is a size that is not known yet.

    Raises
    ------
    ValueError
        If the number of the shapes or a shape does not fit the parameters, or the leading dimensions do not
        go together; see `broadcast`.
    """
    check_count([spec.name for spec in specs], shapes)
    leading = [leading_shape(spec, tuple(shape)) for spec, shape in zip(specs, shapes, strict=True)]
    return broadcast(specs, shapes, leading)


def leading_shape(spec: ParameterSpec, shape: Shape) -> Shape:
    """Return the batch dimensions of a value.

    Raises
    ------
    ValueError
        If the shape does not end in the parameter's.
    """
    cut = len(shape) - len(spec.shape)
    if cut < 0:
        what = "Invalid parameter dimensionality"
    elif any(size not in (None, own) for size, own in zip(shape[cut:], spec.shape, strict=True)):
        what = "Invalid parameter shape"
    else:
        return shape[:cut]
    raise ValueError(f"{what} for parameter {spec.name!r}: expected {expected_shape(spec)}, got {shape}")


def expected_shape(spec: ParameterSpec) -> str:
    """Describe the shapes that a parameter may have; dots denote the batch dimensions."""
    return f"(..., {', '.join(map(str, spec.shape))})" if spec.shape else "(...)"


def broadcast(specs: Sequence[ParameterSpec], shapes: Sequence[Shape], leading: Sequence[Shape]) -> Shape:
    """Broadcast the leading dimensions, as NumPy does, of parameters that have the same number of them.

    A parameter without leading dimensions is shared by all elements. A size that is not known yields to one
    that is known and is not 1.

    Raises
    ------
    ValueError
        If two parameters have leading dimensions, but not as many; or if the sizes do not broadcast. The
        message gives the whole shapes, and axes of length 1 to squeeze if that helps.

    Notes
    -----
    NumPy would take a scalar parameter of shape (B, 1) beside a vector parameter of shape (B, n) for B x B
    programs: B times the work, and a loss on (B, B, n) that other shapes broadcast against silently.
    """
    batched = [k for k, lead in enumerate(leading) if lead]
    got = ", ".join(f"{spec.name!r} {tuple(shape)}" for spec, shape in zip(specs, shapes, strict=True))
    if len({len(leading[k]) for k in batched}) > 1:
        counts = ", ".join(f"{specs[k].name!r} has {len(leading[k])}" for k in batched)
        raise ValueError(
            f"Inconsistent batch sizes: parameters must have the same number of leading dimensions, or none; "
            f"{counts}; got {got}. {_suggest_squeeze(specs, leading, batched)}"
        )
    sizes = list(zip(*(leading[k] for k in batched), strict=True))
    if not all(map(_broadcasts, sizes)):
        raise ValueError(
            f"Inconsistent batch sizes: the leading dimensions of the parameters do not broadcast; got {got}"
        )
    return tuple(next((k for k in axis if k not in (1, None)), None if None in axis else 1) for axis in sizes)


def _broadcasts(axis: Sequence[int | None]) -> bool:
    return len(set(axis) - {1, None}) <= 1


def _suggest_squeeze(specs: Sequence[ParameterSpec], leading: Sequence[Shape], batched: Sequence[int]) -> str:
    """Say which axes to squeeze, so that all parameters have as few leading dimensions as any has."""
    depth = min(len(leading[k]) for k in batched)
    common = [leading[k] for k in batched if len(leading[k]) == depth]
    advice = []
    for k in batched:
        lead = leading[k]
        if len(lead) == depth:
            continue
        for kept in combinations(range(len(lead)), depth):  # the last axes are squeezed first
            rest = tuple(lead[i] for i in kept)
            gone = [i for i in range(len(lead)) if i not in kept]
            if all(lead[i] == 1 for i in gone) and all(map(_broadcasts, zip(*common, rest, strict=True))):
                common.append(rest)
                axes = " and ".join(map(str, gone))
                word = "axis" if len(gone) == 1 else "axes"
                advice.append(f"{word} {axes} of {specs[k].name!r}, to shape {rest + specs[k].shape}")
                break
        else:
            return (
                "Give each parameter that has some the same number of leading dimensions, with size 1 where "
                "elements share its value."
            )
    return f"Squeeze {', and '.join(advice)}."
