"""What is refused rather than answered with a part of the derivative missing."""

from __future__ import annotations

import sys

from torch.autograd import forward_ad

_ADVICE = (
    "second derivatives of the layer are not supported: its gradient can be multiplied and added, but not be "
    "differentiated with respect to the layer's parameters. Leave the layer out of the term that needs them "
    "(a gradient penalty, a Hessian), detach its gradient there, or take differences of gradients"
)


def refuse_second(second: object = True) -> None:
    """Refuse what arrives where only a second derivative can come from.

    Raises
    ------
    NotImplementedError
        If something does.
    """
    if second is not None:
        raise NotImplementedError(_ADVICE)


def refuse_graph_of_compiled_gradient() -> None:
    """Refuse the backward pass of a compiled graph that is itself to be differentiated.

    torch runs it then inside a function which says so when it is differentiated; but that is connected to
    what the graph saved of its inputs only, and where it saved none, torch would take the gradient for a
    constant.

    Raises
    ------
    NotImplementedError
        If the operator that calls this runs inside of that function.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_qualname.endswith("CompiledFunctionBackward.forward"):
            raise NotImplementedError(f"{_ADVICE}. Compiled functions also refuse create_graph=True")


def refuse_tangents() -> None:
    """Refuse forward mode in an operator, where torch would drop the tangents.

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
