"""The vmap that torch had before torch.func; is_grads_batched, vectorize=True and gradcheck still use it.

It ignores the vmap rules of autograd functions, and passes them batched tensors, whose values cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conediff_torch._levels import one_by_one

_is_batched: Callable[[Tensor], bool] = torch._C._functorch.is_legacy_batchedtensor


def unbatched(
    function: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Apply a function of plain tensors to tensors that may be batched, slice by slice.

    Parameters
    ----------
    function : callable
        Takes as many tensors or None, and returns a sequence of tensors.
    tensors : sequence of Tensor or None
    """
    dims = [0 if tensor is not None and _is_batched(tensor) else None for tensor in tensors]
    if all(dim is None for dim in dims):
        return tuple(function(*tensors))
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    opened = [
        tensor if tensor is None or dim is None else torch._remove_batch_dim(tensor, level, 1, 0)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
    size = next(
        len(tensor) for tensor, dim in zip(opened, dims, strict=True) if tensor is not None and dim == 0
    )
    return tuple(torch._add_batch_dim(part, 0, level) for part in one_by_one(function, size, dims, opened))
