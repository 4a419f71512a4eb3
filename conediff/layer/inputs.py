"""The parameters of a layer as users name them: by position, by name, or by cvxpy object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conediff.layer.calls import EACH, check_distinct
from conediff.layer.maps import ParameterSpec


class Inputs:
    """The parameters of a layer, in the order of calls.

    Parameters
    ----------
    specs : sequence of ParameterSpec
    parameters : sequence of cvxpy.Parameter
        The user's own; none for a layer that was built from maps. A copied or pickled layer keeps their ids
        only.
    """

    def __init__(self, specs: Sequence[ParameterSpec], parameters: Sequence[Any] = ()) -> None:
        self._specs, self._parameters = tuple(specs), tuple(parameters)
        self._positions = {int(p.id): k for k, p in enumerate(parameters)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parameters": ()}

    def __repr__(self) -> str:
        return f"Inputs({', '.join(self._names)})"

    def ordered(self, values: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """Return what a call passes, in the order of the parameters.

        Parameters
        ----------
        values : sequence
            One value for each parameter, or one mapping to the values from the parameters or their names.
        named : mapping
            Values that were passed as keywords.

        Raises
        ------
        TypeError
            If values are passed by position and by name.
        ValueError
            If a key is not a parameter, or one is missing.
        """
        if named and values:
            raise TypeError(
                f"values are passed by position or by name, not both: got {len(values)} by position and "
                f"{', '.join(named)} by name"
            )
        if named or (len(values) == 1 and isinstance(values[0], Mapping)):
            return self.from_mapping(named or values[0])
        return list(values)

    def from_mapping(self, items: Mapping[Any, Any]) -> list[Any]:
        """Return the items of a mapping from each parameter, or its name, in the order of the parameters."""
        found = {self.position(key): item for key, item in items.items()}
        if len(found) != len(self._specs) or len(found) != len(items):
            given = [key if isinstance(key, str) else key.name() for key in items]
            raise ValueError(f"expected values by the names {self._names}, got {given}")
        return [found[k] for k in range(len(found))]

    def position(self, key: Any) -> int:
        """Return the position of a parameter, given itself or its name.

        Raises
        ------
        ValueError
            If it is not one of the layer's, or two have the name.
        """
        names = self._names
        if isinstance(key, str) and key in names:
            check_distinct([spec for spec in self._specs if spec.name == key])
            return names.index(key)
        position = None if isinstance(key, str) else self._positions.get(getattr(key, "id", -1))
        if position is None:
            what = key if isinstance(key, str) or not hasattr(key, "name") else key.name()
            raise ValueError(f"expected values by the names {names}, got {what!r}, which is none of them")
        return position

    def own_values(self) -> list[Any]:
        """Return the values that the parameters hold.

        Raises
        ------
        ValueError
            If one holds none, or the layer does not have them.
        """
        if len(self._parameters) != len(self._specs):
            raise ValueError(
                f"{EACH}; received none, and this layer, which was copied or loaded, does not have the "
                f"parameters {self._names}, so that it cannot take their own values"
            )
        return [_own_value(p) for p in self._parameters]

    @property
    def _names(self) -> list[str]:
        return [spec.name for spec in self._specs]


def _own_value(parameter: Any) -> Any:
    value = parameter.value if parameter.sparse_idx is None else parameter.value_sparse
    if value is None:
        raise ValueError(
            f"{EACH}; received none, and the parameter {parameter.name()!r} holds no value: pass values, or "
            "set parameter.value"
        )
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)
