"""Functions that torch.compile must not trace."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def dynamo_disabled(function: _Function) -> _Function:
    """Keep torch.compile from tracing a function, and all that it calls, after a graph break.

    It does what ``torch.compiler.disable`` does. That imports ``torch._dynamo``, which takes seconds; so it
    is called only in processes that have imported it.
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
