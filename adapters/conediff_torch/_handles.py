"""Solutions by number: what torch keeps for the backward pass are tensors, so a solution travels as one.

A handle is a tensor without dimensions that holds the number of a solution, and whose storage owns it: the
solution lives as long as anything keeps the handle, be it autograd, a compiled graph or a checkpoint.
"""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import torch
from torch import Tensor

from conediff_torch._solved import Solved


class Ticket(np.ndarray):
    """The number of a solution, in an array that owns the solution."""

    solved: Solved


_tickets: weakref.WeakValueDictionary[int, Ticket] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def issue(solved: Solved) -> tuple[Tensor, Ticket]:
    """Return a handle of a solution, and what its storage owns."""
    number = next(_numbers)
    ticket = np.array(float(number)).view(Ticket)
    ticket.solved = solved
    _tickets[number] = ticket
    return torch.from_numpy(ticket), ticket


def redeem(handle: Tensor) -> Solved:
    """Return the solution that a handle, or a copy of it, stands for.

    Raises
    ------
    RuntimeError
        If nothing keeps the solution any more.
    """
    ticket = _tickets.get(int(handle))
    if ticket is None:
        raise RuntimeError(
            "the solution that this backward pass needs has been released: what a compiled graph saved for "
            "the backward pass was copied, and the original dropped"
        )
    return ticket.solved
