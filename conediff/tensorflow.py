"""Alias of `conediff_tensorflow`: ``from conediff.tensorflow import CvxpyLayer``."""

from conediff_tensorflow import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer"]
