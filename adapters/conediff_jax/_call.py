"""The static part of a call: what JAX's traces carry beside arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from conediff.layer.calls import batch_shape
from conediff.layer.layer import CvxpyLayer
from conediff_jax._kept import Kept

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer, without the values of its parameters.

    A trace keeps it, and with it the layer and the solutions that its derivatives may still need.

    Attributes
    ----------
    core : conediff.CvxpyLayer
    solver_args : mapping
    dtypes : tuple of dtype
        Of the outputs.
    kept : Kept
        Solutions for derivatives.
    """

    core: CvxpyLayer
    solver_args: Mapping[str, Any]
    dtypes: tuple[np.dtype[Any], ...]
    kept: Kept = field(default_factory=Kept)

    @classmethod
    def of(cls, core: CvxpyLayer, solver_args: Mapping[str, Any], parameters: Sequence[jax.Array]) -> Call:
        """Take the dtypes of the outputs from the parameters."""
        real = _result_dtype(parameters)
        dtypes = [jnp.promote_types(real, jnp.complex64) if o.complex else real for o in core.outputs]
        return cls(core, solver_args, tuple(map(np.dtype, dtypes)))

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


def _result_dtype(parameters: Sequence[jax.Array]) -> np.dtype[Any]:
    """Return the dtype of the real parts of the outputs: JAX's promotion of the inexact parameters."""
    inexact = [p for p in parameters if jnp.issubdtype(p.dtype, jnp.inexact)]
    return np.dtype(jnp.finfo(jnp.result_type(*inexact) if inexact else jnp.result_type(float)).dtype)
