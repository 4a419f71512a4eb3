"""Who works on the parts of a stack: threads of this process, or the workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

from conediff.parallel.executor import ExecutorBackend
from conediff.parallel.progress import progress_bar
from conediff.parallel.threads import ThreadBackend

# Returns the arguments for a part.
Arguments = Callable[[slice], tuple[Any, ...]]


class Backend(Protocol):
    """Cuts a stack into parts, and maps a function over them."""

    def parts(self, count: int, at_least: int, multiple: int, row_bytes: int) -> list[slice]:
        """Cut a stack into parts.

        Parameters
        ----------
        count : int
            Programs in the stack.
        at_least : int
            Number of parts into which threads cut it.
        multiple : int
            Programs that SCS solves in one pile; workers get whole piles.
        row_bytes : int
            Bytes of numbers that one program takes in a message.
        """

    def map(
        self,
        function: Callable[..., Any],
        shared: Sequence[Any],
        parts: Sequence[slice],
        arguments: Arguments,
    ) -> list[Any]:
        """Return ``[function(*shared, *arguments(part)) for part in parts]``."""


class ProgressBackend:
    """Another back end, whose maps show a progress bar.

    Parameters
    ----------
    inner : ThreadBackend or ExecutorBackend
    what : str
        Stands in front of the bar.
    """

    def __init__(self, inner: ThreadBackend | ExecutorBackend, what: str) -> None:
        self.inner, self.what = inner, what

    def parts(self, count: int, at_least: int, multiple: int, row_bytes: int) -> list[slice]:
        """Cut a stack into parts, as the other back end does."""
        return self.inner.parts(count, at_least, multiple, row_bytes)

    def map(
        self,
        function: Callable[..., Any],
        shared: Sequence[Any],
        parts: Sequence[slice],
        arguments: Arguments,
    ) -> list[Any]:
        """Return what the other back end returns, and show how many programs are done."""
        with progress_bar(parts, self.what) as advance:
            return self.inner.map(function, shared, parts, arguments, advance)


def backend(executor: Executor | None, threads: int | None, progress: str = "") -> Backend:
    """Return the workers of an executor, or threads of this process (all processors by default).

    ``progress``, if it is not empty, stands in front of a bar that maps show.
    """
    chosen = ThreadBackend(threads) if executor is None else ExecutorBackend(executor)
    return ProgressBackend(chosen, progress) if progress else chosen
