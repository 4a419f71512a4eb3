"""The derivative of the solution map, forward and reverse.

In the order of use: ``linearised_kkt`` (K at the solutions of one part of a stack), ``kkt_derivative`` (jvp
and vjp there), ``kinks`` (does a kink of the projection change the answer?), ``report`` (what the user has to
be told), ``batch_derivative`` (all parts of a stack), ``diagnostics`` (how well the derivative is defined).
"""

from conediff.derivative.batch_derivative import BatchDerivative
from conediff.derivative.diagnostics import Diagnostics, Observability

__all__ = ["BatchDerivative", "Diagnostics", "Observability"]
