"""Errors in place of derivatives of which a part would be missing."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Variable, forward_ad

from conediff.layer.adapter import third_derivatives

_ADVICE = (
    "second derivatives of a compiled layer are not supported: its gradient can be multiplied and added, but "
    "not be differentiated with respect to the layer's parameters. Differentiate a function that is not "
    "compiled, or compile what is around the layer"
)


def refuse_second(ctx: Any, *grads: Any) -> Any:
    """Refuse to differentiate the gradient of a compiled layer.

    Raises
    ------
    NotImplementedError
    """
    raise NotImplementedError(_ADVICE)


def refuse_third(ctx: Any, *grads: Any) -> Any:
    """Refuse to differentiate a second derivative.

    Raises
    ------
    NotImplementedError
    """
    raise third_derivatives("detach")


def refuse_graph_of_backward() -> None:
    """Refuse ``create_graph=True`` of the running backward pass, if there is one.

    A compiled graph runs the layer's adjoint where autograd does not record it. torch refuses to
    differentiate the compiled backward pass, but only along what the graph saved of its inputs; along other
    paths it would take the gradient for a constant. Whether the backward pass creates a graph is the grad
    mode in which its callbacks run; the grad mode here says nothing, because torch turns it off around
    compiled backward passes.

    Raises
    ------
    NotImplementedError
        From the backward pass, at its end.
    """
    if torch._C._current_graph_task_id() != -1:
        Variable._execution_engine.queue_callback(_refuse_if_grad_is_enabled)


def _refuse_if_grad_is_enabled() -> None:
    if torch.is_grad_enabled():
        raise NotImplementedError(f"{_ADVICE}. Compiled functions also refuse create_graph=True")


def refuse_tangents() -> None:
    """Refuse forward mode in a custom operator, which would drop the tangents.

    Raises
    ------
    NotImplementedError
        If a level of forward-mode differentiation is open.
    """
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            "forward-mode differentiation of a compiled layer is not supported: differentiate a function "
            "that is not compiled, or compile what is inside of it"
        )
