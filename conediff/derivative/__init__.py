"""The derivative of the solution map, forward and reverse.

In the order of use: ``linearised_kkt`` (K at the solutions of one part of a stack), ``kkt_derivative`` (jvp
and vjp there), ``kinks`` (does a kink of the projection change the answer?), ``report`` (what the user has to
be told), ``first_order`` and ``second_order`` (all parts of a stack), ``diagnostics`` (how well the
derivative is defined).
"""

from conediff.derivative.diagnostics import Diagnostics, Observability
from conediff.derivative.second_order import StackDerivative

__all__ = ["Diagnostics", "Observability", "StackDerivative"]
