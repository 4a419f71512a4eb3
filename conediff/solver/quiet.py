"""What SCS prints although ``verbose`` is False: dropped.

At its limit of iterations SCS prints "could not determine problem status" if it tends to a certificate, but
has no candidate for one. It writes to ``sys.stdout``, in the thread that called it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Output:
    """``sys.stdout`` without what some threads write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: set[int] = set()
        self.target: Any = None

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() in self._silent else self.target.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def silence(self) -> None:
        """Drop what this thread writes."""
        with self._lock:
            self._silent.add(threading.get_ident())
            if sys.stdout is not self:
                self.target, sys.stdout = sys.stdout, self

    def end_silence(self) -> None:
        """Pass on what this thread writes; the last thread restores ``sys.stdout``."""
        with self._lock:
            self._silent.discard(threading.get_ident())
            if not self._silent and sys.stdout is self:
                sys.stdout = self.target


_output = _Output()


@contextmanager
def nothing_printed() -> Iterator[None]:
    """Drop what this thread writes to ``sys.stdout`` in the block; other threads print as before."""
    if sys.stdout is None:  # an application without a console
        yield
        return
    _output.silence()
    try:
        yield
    finally:
        _output.end_silence()
