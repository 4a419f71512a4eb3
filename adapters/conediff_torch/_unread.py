"""What torch.compile is to leave alone."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def unread(function: _Function) -> _Function:
    """Keep torch.compile from reading a function that it left to Python, down to the arrays of the core.

    As ``torch.compiler.disable``, whose import takes seconds, but only where something has been compiled.
    """
    disabled: Any = None

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*arguments)
        if disabled is None:
            disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*arguments)

    return call  # type: ignore[return-value]
