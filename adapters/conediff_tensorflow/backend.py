"""The only function that depends on Keras's backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

import conediff

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    from .function import solve as solve

elif BACKEND == "torch":
    from conediff_torch import functional

    def solve(
        core: conediff.CvxpyLayer,
        params: Sequence[Any],
        solver_args: Mapping[str, Any],
        dtypes: Sequence[str],
        shapes: Sequence[tuple[int | None, ...]],
    ) -> tuple[Any, ...]:
        """Solve; one tensor for each output."""
        outputs = functional.solve(core, *params, solver_args=solver_args)
        return tuple(keras.ops.cast(output, dtype) for output, dtype in zip(outputs, dtypes, strict=True))

else:
    raise ImportError(
        f"conediff's Keras layer runs on the backends tensorflow and torch, but Keras uses {BACKEND!r}: set "
        "the environment variable KERAS_BACKEND before keras is imported"
    )
