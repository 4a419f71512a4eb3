"""The vmap from before torch.func, which is_grads_batched, vectorize=True and gradcheck still use.

It knows no rules for autograd functions, and hands them batched tensors, which have no arrays to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

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
    batched = [tensor is not None and _is_batched(tensor) for tensor in tensors]
    if not any(batched):
        return tuple(function(*tensors))
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    opened: list[Any] = [
        torch._remove_batch_dim(tensor, level, 1, 0) if is_batched else tensor  # type: ignore[arg-type]
        for tensor, is_batched in zip(tensors, batched, strict=True)
    ]
    size = next(len(tensor) for tensor, is_batched in zip(opened, batched, strict=True) if is_batched)
    results = [
        function(*(t[i] if is_batched else t for t, is_batched in zip(opened, batched, strict=True)))
        for i in range(size)
    ]
    return tuple(torch._add_batch_dim(torch.stack(part), 0, level) for part in zip(*results, strict=True))
