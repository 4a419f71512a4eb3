"""Solutions by number: torch saves tensors for the backward pass, so a solution is saved as a tensor.

A handle is a tensor without dimensions that holds the number of a solution. The array in which the tensor is
stored owns the solution. So the solution lives as long as autograd, a compiled graph or a checkpoint keeps
the handle.
"""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import torch
from torch import Tensor

from conediff_torch._solved import Solved


class SolutionHandle(np.ndarray):
    """The number of a solution, in an array that owns the solution."""

    solved: Solved


_handles: weakref.WeakValueDictionary[int, SolutionHandle] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def register(solved: Solved) -> tuple[Tensor, SolutionHandle]:
    """Return a tensor from which `lookup` finds the solution, and the array that keeps it alive."""
    number = next(_numbers)
    handle = np.array(float(number)).view(SolutionHandle)
    handle.solved = solved
    _handles[number] = handle
    return torch.from_numpy(handle), handle


def lookup(handle: Tensor) -> Solved:
    """Return the solution whose number a handle, or a copy of it, holds.

    Raises
    ------
    RuntimeError
        If the solution has been released.
    """
    found = _handles.get(int(handle))
    if found is None:
        raise RuntimeError(
            "the solution that this backward pass needs has been released: what a compiled graph saved for "
            "the backward pass was copied, and the original dropped"
        )
    return found.solved
