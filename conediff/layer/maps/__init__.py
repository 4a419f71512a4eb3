"""From parameters to the numbers of a cone program, and from its solution to the user's arrays.

Everything here is a sparse linear or affine map, with log and exp at the ends for geometric programs.
The maps are found once, by `conediff.canonical`; this package applies them to whole stacks, forward
and transposed, and knows nothing of cvxpy, so that a saved layer can be rebuilt from plain arrays.

A stack of values has shape (R, *shape) where R is B or 1; one row serves the whole stack of B programs.
The cotangent of a complex z is dL/dRe(z) + i dL/dIm(z): the gradient for the real inner product
Re(conj(g) dz), as PyTorch has it.

The modules in the order in which numbers go through them: ``parameters`` (values to features),
``blocks`` (features to one part of the data), ``outputs`` (solution to arrays), ``problem`` (all of them
together), and ``_arrays`` (everything as plain arrays and back).
"""

from conediff.layer.maps.blocks import AffineBlock
from conediff.layer.maps.outputs import OutputSpec
from conediff.layer.maps.parameters import ParameterSpec
from conediff.layer.maps.problem import ProblemMaps
from conediff.layer.maps.visibility import MapsObservability

__all__ = ["AffineBlock", "MapsObservability", "OutputSpec", "ParameterSpec", "ProblemMaps"]
