"""Ctrl-C while SCS or Clarabel runs.

SCS replaces the handler of SIGINT, and overlapping runs restore each other's. Clarabel calls back in every
iteration, but prints an exception of the callback instead of passing it on.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def restore_interrupt_handler() -> None:
    """Install Python's own handler of ctrl-C again; to be called after every run of SCS.

    An interrupt that arrives while SCS is being set up is lost: SCS catches it, and clears it when it starts.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is threading.main_thread():
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    elif _c_handler and callable(handler):
        # Only the main thread may call `signal.signal`; any thread may call the C function behind it.
        _set_c_handler(signal.SIGINT, _c_handler)


@contextmanager
def interrupts_noted() -> Iterator[Callable[..., bool]]:
    """Note ctrl-C in the block instead of raising KeyboardInterrupt; it is handled when the block ends.

    In other threads than the main one, which receives no signals, nothing changes.

    Yields
    ------
    callable
        Returns whether ctrl-C was pressed in the block; takes any arguments.
    """
    noted: list[Any] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield lambda *_: False
        return
    signal.signal(signal.SIGINT, lambda *received: noted.append(received))
    try:
        yield lambda *_: bool(noted)
    finally:
        signal.signal(signal.SIGINT, handler)
    if noted:
        handler(*noted[0])


def _c_level_handler() -> tuple[int | None, Any]:
    """Return the address of CPython's C handler of SIGINT, and the function that sets it; None elsewhere."""
    try:
        get, put = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    except AttributeError:
        return None, None
    get.restype = put.restype = ctypes.c_void_p
    get.argtypes, put.argtypes = [ctypes.c_int], [ctypes.c_int, ctypes.c_void_p]
    return (get(signal.SIGINT) if callable(signal.getsignal(signal.SIGINT)) else None), put


_c_handler, _set_c_handler = _c_level_handler()
