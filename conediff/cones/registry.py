"""The registry of cones: for each kind its keys in SCS's dictionary, the parser of their values, its class.

A new cone is one line in `KINDS`. `ProductCone` takes from this table which keys there are, how values are
checked, the order of rows, and how several programs are laid down one block diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conediff.cones import parse
from conediff.cones.base import Cone
from conediff.cones.box import Box
from conediff.cones.exponential import DualExponential, Exponential
from conediff.cones.linear import NonNegative, Zero
from conediff.cones.power import Power
from conediff.cones.psd import PSD, ComplexPSD
from conediff.cones.second_order import SecondOrder


@dataclass(frozen=True)
class Kind:
    """One kind of cone in SCS's dictionary.

    Parameters
    ----------
    keys : tuple of str
        Its keys: one, or two for the box cone.
    name : str
        In words, for messages.
    parse : callable
        ``parse(key, value)`` returns the checked value of one key: an int or a tuple, which is 0 or empty
        where there is no cone. Two values of one program side by side are ``value * 2``.
    cones : callable
        ``cones(*values)``, with one parsed value for each key, returns the groups of cones in the order of
        their rows.
    check : callable, optional
        ``check(*values)`` raises `ConeError` if the values of two keys do not fit together.
    scs : callable, optional
        ``scs(*values)`` returns the entries of SCS's dictionary that describe the same rows; by default the
        keys with their values. Entries of several kinds under one key are joined in the order of `KINDS`.
    single : bool
        Whether SCS takes at most one such cone. Programs with it are solved one by one.
    remembered : bool
        Whether SCS's projection starts from its result in the previous call, so that a kept workspace would
        give results that depend on earlier calls.
    """

    keys: tuple[str, ...]
    name: str
    parse: Callable[[str, Any], Any]
    cones: Callable[..., Iterable[Cone]]
    check: Callable[..., None] | None = None
    scs: Callable[..., dict[str, Any]] | None = None
    single: bool = False
    remembered: bool = False

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parsed values of this kind's keys; empty where the dictionary has no such cone.

        Raises
        ------
        ConeError
            If a value is not what SCS accepts.
        """
        if all(given.get(key) is None for key in self.keys):
            return {}
        values = [self.parse(key, () if given.get(key) is None else given[key]) for key in self.keys]
        if self.check is not None:
            self.check(*values)
        return dict(zip(self.keys, values, strict=True)) if any(values) else {}

    def entries(self, *values: Any) -> dict[str, Any]:
        """Return the entries of SCS's dictionary for parsed values, lists in place of tuples."""
        found = dict(zip(self.keys, values, strict=True)) if self.scs is None else self.scs(*values)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def one(cone: Callable[[Any], Cone]) -> Callable[[Any], list[Cone]]:
    """Make ``cones`` of a class that takes the whole value: one group."""
    return lambda value: [cone(value)]


def runs(cone: Callable[[int, int], Cone]) -> Callable[[tuple[int, ...]], Iterator[Cone]]:
    """Make ``cones`` of a class that takes (count, size): one group for each run of equal sizes."""

    def groups(sizes: tuple[int, ...]) -> Iterator[Cone]:
        start = 0
        for stop in range(1, len(sizes) + 1):
            if stop == len(sizes) or sizes[stop] != sizes[start]:
                yield cone(stop - start, sizes[start])
                start = stop

    return groups


def box(lower: tuple[float, ...], upper: tuple[float, ...]) -> list[Cone]:
    """Return the one box cone with these bounds."""
    return [Box(lower, upper)]


# In the order of rows, which SCS prescribes.
KINDS = [
    Kind(("z",), "zero", parse.size, one(Zero)),
    Kind(("l",), "nonnegative", parse.size, one(NonNegative)),
    Kind(
        ("bl", "bu"), "bounds of a box", parse.numbers, box, parse.check_bounds, single=True, remembered=True
    ),
    Kind(("q",), "second-order", parse.sizes, runs(SecondOrder)),
    Kind(("s",), "PSD", parse.sizes, runs(PSD)),
    Kind(("cs",), "complex PSD", parse.sizes, runs(ComplexPSD)),
    Kind(("ep",), "exponential", parse.size, one(Exponential)),
    Kind(("ed",), "dual exponential", parse.size, one(DualExponential)),
    Kind(("p",), "power", parse.exponents, one(Power)),
]
