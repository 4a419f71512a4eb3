"""Where the rows of a group of equal cones are among the rows of a program."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.cones.base import Array

Indices = NDArray[np.intp]
Rows = slice | Indices  # of one group: a slice where its rows follow one another


@dataclass(frozen=True)
class Place:
    """The rows of a group; ``shape`` is (count, dim)."""

    rows: Rows
    shape: tuple[int, ...]

    @classmethod
    def of(cls, rows: Indices) -> Place:
        flat = rows.ravel()
        together = (np.diff(flat) == 1).all()
        return cls(slice(int(flat[0]), int(flat[-1]) + 1) if together else flat, rows.shape)

    def take(self, v: Array) -> Array:
        return v[..., self.rows].reshape(*v.shape[:-1], *self.shape)

    def put(self, result: Array, values: Array) -> None:
        result[..., self.rows] = values.reshape(*values.shape[:-2], math.prod(self.shape))
