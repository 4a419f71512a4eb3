"""The static part of a call: what JAX's traces carry beside arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from conediff.layer.calls import batch_shape
from conediff.layer.layer import CvxpyLayer
from conediff_jax._kept import Kept, of_layer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A call of a layer, without the values of its parameters.

    JAX's caches hold calls for long, and with them the layer. Equal calls are one entry there.

    Attributes
    ----------
    core : conediff.CvxpyLayer
    items : tuple of (str, type, value)
        Solver arguments. The types distinguish True from 1.0.
    dtypes : tuple of dtype
        Of the outputs.
    """

    core: CvxpyLayer
    items: tuple[tuple[str, type, Any], ...]
    dtypes: tuple[np.dtype[Any], ...]

    @classmethod
    def of(cls, core: CvxpyLayer, solver_args: Mapping[str, Any], parameters: Sequence[jax.Array]) -> Call:
        """Take the dtypes of the outputs from the parameters."""
        items = tuple(
            (k, type(v), v if isinstance(v, Hashable) else _Same(v)) for k, v in solver_args.items()
        )
        real = _result_dtype(parameters)
        dtypes = [jnp.promote_types(real, jnp.complex64) if o.complex else real for o in core.outputs]
        return cls(core, items, tuple(map(np.dtype, dtypes)))

    @property
    def solver_args(self) -> dict[str, Any]:
        """Solver arguments, as `CvxpyLayer.solve` takes them."""
        return {name: v.value if isinstance(v, _Same) else v for name, _, v in self.items}

    @property
    def kept(self) -> Kept:
        """Solutions for derivatives."""
        return of_layer(self.core)

    def of_derivative(self) -> Call:
        """Leave out the point to start from, which may be a solution that is worth releasing."""
        return replace(self, items=tuple(item for item in self.items if item[0] != "warm_start"))

    @property
    def inner(self) -> tuple[int, ...]:
        """Number of dimensions of each parameter that are not batch dimensions."""
        return tuple(len(spec.shape) for spec in self.core.parameters)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of each output, without the batch."""
        return tuple(spec.shape for spec in self.core.outputs)

    def batch(self, shapes: Sequence[Shape]) -> Shape:
        """Return the batch shape of parameters of these shapes.

        Raises
        ------
        ValueError
            If their number, a shape, or the batch dimensions do not fit.
        """
        return batch_shape(self.core.parameters, shapes)


@dataclass(frozen=True, eq=False)
class _Same:
    """Makes a value hashable: equal to itself only."""

    value: Any


def _result_dtype(parameters: Sequence[jax.Array]) -> np.dtype[Any]:
    """Return the dtype of the real parts of the outputs: JAX's promotion of the inexact parameters."""
    inexact = [p for p in parameters if jnp.issubdtype(p.dtype, jnp.inexact)]
    dtype = jnp.result_type(*inexact) if inexact else jnp.result_type(float)
    real: np.dtype[Any] = np.dtype(jnp.finfo(dtype).dtype)
    return real
