"""Changes of variables under which a cone program stays a cone program.

``magnitude`` brings whole programs to numbers of ordinary size, ``automorphism`` has the linear maps that
keep a cone, and ``cone_scaling`` uses them to make y and s of one size.
"""

from conediff.scaling.cone_scaling import ConeScaling, ConeScalings
from conediff.scaling.magnitude import Magnitude

__all__ = ["ConeScaling", "ConeScalings", "Magnitude"]
