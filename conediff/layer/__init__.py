"""A cvxpy problem as a differentiable function of its parameters.

In the order of the data flow: ``canonical`` (the cvxpy problem becomes matrices, once), ``arguments`` (values
of the parameters, checked), ``maps`` (values to the data of cone programs, solutions to values of variables),
``layer`` (the call), ``solution`` (what it returns), ``first_order`` and ``second_order`` (its derivatives),
``matrices`` (Jacobians and Hessians). ``inputs`` are the parameters as users name them; ``differentiate``
does all this for a problem that holds its values.
"""

from conediff.layer.differentiate import ProblemDerivative, differentiate
from conediff.layer.layer import CvxpyLayer
from conediff.layer.opt_layer import OptLayer
from conediff.layer.solution import LayerSolution

__all__ = ["CvxpyLayer", "LayerSolution", "OptLayer", "ProblemDerivative", "differentiate"]
