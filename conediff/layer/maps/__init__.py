"""Maps from parameters to the data of a cone program, and from its solution to the user's arrays.

All maps are sparse and linear or affine; geometric programs add a logarithm before the first map and an
exponential after the last. `conediff.layer.canonical` finds the maps once. This package applies them and
their transposes to whole stacks. It does not import cvxpy, so a saved layer can be rebuilt from plain arrays.

A stack of values has shape (R, *shape), where R is B or 1; one row serves the whole stack of B programs.
The cotangent of a complex z is dL/dRe(z) + i dL/dIm(z): the gradient with respect to the real inner product
Re(conj(g) dz), as in PyTorch.

The modules in the order of the data flow: ``parameters`` (values to features), ``blocks`` (features to P,
A, b, c or d), ``outputs`` (solution to arrays), ``problem`` (all maps of a problem), ``value`` (the
optimal value), ``observability`` (which changes reach parameters and outputs), ``packing``
(all maps as plain arrays, and back).
"""

from conediff.layer.maps.blocks import AffineBlock
from conediff.layer.maps.observability import MapsObservability
from conediff.layer.maps.outputs import OutputSpec
from conediff.layer.maps.parameters import ParameterSpec
from conediff.layer.maps.problem import ProblemMaps
from conediff.layer.maps.value import CurvedValue

__all__ = ["AffineBlock", "CurvedValue", "MapsObservability", "OutputSpec", "ParameterSpec", "ProblemMaps"]
