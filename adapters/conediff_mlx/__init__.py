"""The MLX adapter of conediff: import it as ``conediff.mlx``."""

from conediff_mlx import functional
from conediff_mlx.layer import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer", "functional"]
