"""conediff for Keras: `CvxpyLayer` and `OptLayer`, on the backends TensorFlow and PyTorch."""

from .layer import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer"]
