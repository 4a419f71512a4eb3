"""Shears: the part of a cone's automorphism that adds multiples of one row to another, and fills in A."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conediff.program import Array, Indices, Pattern, Structure, union


@dataclass(frozen=True, eq=False)
class Shears:
    """The shears of one structure, and the entries of A that they add.

    Parameters
    ----------
    into, source : int arrays, shape (k,)
        Shear j adds a multiple of row ``source[j]`` to row ``into[j]``.
    entries : int array, shape (e,)
        Entries of A, on its own sparsity, in rows ``source``.
    shear_of : int array, shape (e,)
        The shear that moves each of these entries.
    targets : int array, shape (e,)
        The entries of the scaled A to which it adds them.
    """

    into: Indices
    source: Indices
    entries: Indices
    shear_of: Indices
    targets: Indices

    def apply(self, w: Array, shear: Array, transposed: bool = False) -> Array:
        """Return (I + shear) w, or (I + shear') w, as a new array; shapes (B, m) and (B, k)."""
        into, source = (self.source, self.into) if transposed else (self.into, self.source)
        w = np.array(np.broadcast_to(w, (max(len(w), len(shear)), w.shape[1])))
        w[:, into] += shear * w[:, source]
        return w


def fill_in(structure: Structure) -> tuple[Pattern, Indices, Shears]:
    """Return A's sparsity with the entries that shears add, the places of A's own entries, and the shears."""
    A, m = structure.A, structure.m
    pairs = [
        (rows[:, ends[0]], rows[:, ends[1]])
        for cone, rows in structure.cone.groups
        if not cone.diagonal and (ends := cone.shear_rows) is not None
    ]
    none = np.zeros(0, dtype=np.intp)
    into = np.concatenate([none, *(pair[0] for pair in pairs)])
    source = np.concatenate([none, *(pair[1] for pair in pairs)])
    shear_at = np.full(m, -1)
    shear_at[source] = np.arange(source.size)
    entries = np.flatnonzero(shear_at[A.indices] >= 0)
    shear_of = shear_at[A.indices[entries]]
    pattern, (kept, targets) = union(A.shape, [(A.indices, A.columns), (into[shear_of], A.columns[entries])])
    if pattern.nnz == A.nnz:
        pattern = A
    return pattern, kept, Shears(into, source, entries, shear_of, targets)
