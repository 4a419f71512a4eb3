"""Changes of variables that map a cone program to another cone program.

``magnitude`` brings the data of whole programs to ordinary size by powers of two, and ``cone_scaling``
applies automorphisms of the cones that make y and s about equally large. Each cone chooses its automorphism
in its own file, see `conediff.cones.automorphism`.
"""

from conediff.scaling.composed import ComposedScaling
from conediff.scaling.cone_scaling import ConeScaling, ConeScalings
from conediff.scaling.equilibration import Equilibration, Equilibrator
from conediff.scaling.magnitude import Magnitude

__all__ = ["ComposedScaling", "ConeScaling", "ConeScalings", "Equilibration", "Equilibrator", "Magnitude"]
