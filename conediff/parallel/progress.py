"""A progress bar over the parts of a stack."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def check_tqdm() -> None:
    """Raise ImportError, with what to do, if tqdm is not installed."""
    if importlib.util.find_spec("tqdm") is None:
        raise ImportError("progress=True draws its bar with tqdm, which is not installed: pip install tqdm")


@contextmanager
def progress_bar(parts: Sequence[slice], what: str) -> Iterator[Callable[[slice], None]]:
    """Show a bar that counts programs, on the standard error stream.

    Parameters
    ----------
    parts : sequence of slice
        All parts.
    what : str
        Stands in front of the bar.

    Yields
    ------
    callable
        To be called, from any thread, with each part that is done.

    Raises
    ------
    ImportError
        If tqdm is not installed.
    """
    check_tqdm()
    from tqdm.auto import tqdm

    lock = threading.Lock()
    bar: Any
    with tqdm(total=sum(part.stop - part.start for part in parts), desc=what, unit="program") as bar:

        def done(part: slice) -> None:
            with lock:
                bar.update(part.stop - part.start)

        yield done
