r"""Whether certificates of infeasibility and unboundedness hold, each row relative to its own entries.

A vector y of K* with A'y = 0 and b'y < 0 proves that a program is infeasible, because every feasible point
has b'y = y's + (A'y)'x >= 0. A vector x with P x = 0, -A x in K and c'x < 0 proves that a feasible program
has no finite optimum. With a residual A'y of more than zero, y still excludes all x whose entries add up to
less than abs(b'y) / max abs(A'y).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conediff.program import Array, ConeData, Structure
from conediff.solver.constants import CERTIFICATE, CERTIFICATE_GAIN


class Certificates:
    """Judges certificates for a stack of programs of ordinary magnitude.

    Parameters
    ----------
    structure : Structure
    data : ConeData
    """

    def __init__(self, structure: Structure, data: ConeData) -> None:
        self.structure, self.data = structure, data

    def prove_infeasibility(self, y: Array) -> NDArray[np.bool_]:
        """Return for which programs y, of shape (B, m), is a certificate.

        An entry of A'y is compared with b'y, and with the largest entry of y times the entries of its
        column; the distance of y from K* with the largest entry of y.
        """
        A = self.structure.A
        size = np.abs(y).max(axis=1, initial=0.0, keepdims=True)
        with np.errstate(all="ignore"):
            gain = _gain(self.data.b, y)
            residual = A.products(self.data.A)[1](y)
            terms = A.products(np.abs(self.data.A))[1](np.broadcast_to(size, y.shape))
            outside = y - self.structure.cone.project_dual(y).point
            return _vanish(residual, terms, gain) & _vanish(outside, size, np.inf)

    def prove_unboundedness(self, x: Array) -> NDArray[np.bool_]:
        """Return for which programs x, of shape (B, n), is a certificate.

        An entry of P x, and the distance of -A x from K in a row, are compared with c'x, and with the largest
        entry of x times the entries of this row of P or A.
        """
        A, P = self.structure.A, self.structure.P
        size = np.broadcast_to(np.abs(x).max(axis=1, initial=0.0, keepdims=True), x.shape)
        with np.errstate(all="ignore"):
            gain = _gain(self.data.c, x)
            curvature = P.products(self.data.P)[0](x)
            curved = P.products(np.abs(self.data.P))[0](size)
            # By Moreau, the distance of s from K is the size of the projection of -s onto K*.
            outside = self.structure.cone.project_dual(A.products(self.data.A)[0](x)).point
            rows = A.products(np.abs(self.data.A))[0](size)
            return _vanish(curvature, curved, gain) & _vanish(outside, rows, gain)


def _vanish(values: Array, terms: Array, gain: Array | float) -> NDArray[np.bool_]:
    """Return for which programs all values are zero beside their terms and a positive gain."""
    sizes = np.minimum(CERTIFICATE * terms, CERTIFICATE_GAIN * gain)
    return np.asarray(((np.abs(values) <= sizes) & (gain > 0)).all(axis=1))


def _gain(vector: Array, direction: Array) -> Array:
    """Return minus a product of vectors, shape (B, 1); 0 where that is within the rounding of its terms."""
    products = vector * direction
    gain = -products.sum(axis=1, keepdims=True)
    return np.where(gain > CERTIFICATE * np.abs(products).sum(axis=1, keepdims=True), gain, 0.0)
