"""conediff for PyTorch: ``from conediff.torch import CvxpyLayer``."""

from conediff_torch import CvxpyLayer, OptLayer, functional

__all__ = ["CvxpyLayer", "OptLayer", "functional"]
