"""The PyTorch adapter of conediff: import it as ``conediff.torch``."""

from conediff_torch import functional
from conediff_torch.layer import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer", "functional"]
