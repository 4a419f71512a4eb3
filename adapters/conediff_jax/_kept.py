"""Solutions for derivatives, by number.

Compiled code keeps arrays between the forward and the backward pass, and no objects. So the state of a
solution travels as an array, of one row of words for each element of the batch: the number of the solution,
the element's position in it, its outcome, and the bits of x, y and s. A derivative looks for the solution by
its number, which finds its factorisation too. If the solution is no longer kept, or only some of its elements
came back, x, y and s are read from the array.

The words are integers, because JAX has no float64 unless it is told so, and because they have no derivative.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.layer.layer import CvxpyLayer
from conediff.layer.solution import LayerSolution
from conediff_jax.constants import MAX_READ, MAX_UNREAD

Words = NDArray[np.uint32]
# Words in front of the bits of x, y and s. The outcome is that of `LayerSolution.state` plus one; zero stands
# for an element of which nothing is known: JAX fills in zeros for a branch of a lax.cond that was not taken.
HEADER = 3
_numbers = itertools.count(1)


class Kept:
    """Solutions of one layer.

    A call that is not compiled returns its state as an array of Python's: that owns the solution. The arrays
    of compiled code cannot, so the last solutions are kept, a bounded number of them.
    """

    def __init__(self) -> None:
        self._owned: dict[int, LayerSolution] = {}
        self._unread: OrderedDict[int, LayerSolution] = OrderedDict()
        self._read: OrderedDict[int, LayerSolution] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, solution: LayerSolution) -> Words:
        """Keep a solution; return its state, shape (*batch, `width`)."""
        number = next(_numbers) % 2**32
        with self._lock:
            self._unread[number] = solution
            if len(self._unread) > MAX_UNREAD:
                self._unread.popitem(last=False)
        return _to_words(solution, number)

    def give(self, words: Words, owner: Any) -> None:
        """Keep the solution of this state as long as its owner lives, and no longer."""
        if words.size:
            number = int(words.flat[0])
            with self._lock:
                solution = self._unread.pop(number, None)
            if solution is not None:
                self._owned[number] = solution
                weakref.finalize(owner, self._owned.pop, number, None).atexit = False

    def find(self, words: Words) -> LayerSolution | None:
        """Return the solution of which this is the whole state, if it is still kept."""
        flat = words.reshape(-1, words.shape[-1])
        whole = len(flat) and (flat[:, 0] == flat[0, 0]).all() and (flat[:, 1] == np.arange(len(flat))).all()
        if not whole:
            return None
        number = int(flat[0, 0])
        solution = self._owned.get(number) or self._find_compiled(number)
        return solution if solution is not None and solution.batch == words.shape[:-1] else None

    def _find_compiled(self, number: int) -> LayerSolution | None:
        with self._lock:
            solution = self._unread.pop(number, None) or self._read.get(number)
            if solution is not None:
                self._read[number] = solution
                if len(self._read) > MAX_READ:
                    self._read.popitem(last=False)
        return solution


_of_layer: weakref.WeakKeyDictionary[CvxpyLayer, Kept] = weakref.WeakKeyDictionary()


def of_layer(core: CvxpyLayer) -> Kept:
    """Return the solutions that are kept of a layer."""
    return _of_layer.setdefault(core, Kept())


def width(n: int, m: int) -> int:
    """Return the number of words for an element with n variables and m rows."""
    return HEADER + 2 * (n + 2 * m)


def _to_words(solution: LayerSolution, number: int) -> Words:
    *point, outcome = solution.state
    bits = np.concatenate(point, axis=1).view(np.uint32)
    header = [np.full(len(bits), number), np.arange(len(bits)), outcome.astype(np.uint32) + 1]
    words = np.concatenate([np.stack(header, axis=1).astype(np.uint32), bits], axis=1)
    return words.reshape(*solution.batch, words.shape[1])


def from_words(words: Words, n: int, m: int) -> tuple[NDArray[Any], ...]:
    """Return the state from which `CvxpyLayer.resume` rebuilds a solution."""
    flat = words.reshape(-1, width(n, m))
    point = flat[:, HEADER:].copy().view(np.float64)
    known = flat[:, 2] != 0
    outcome = np.where(known, flat[:, 2] - 1, 1).astype(np.int8)
    return point[:, :n], point[:, n : n + m], point[:, n + m :], outcome
