"""conediff for Keras and TensorFlow: ``from conediff.tensorflow import CvxpyLayer``."""

try:
    import keras  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('Keras is not installed: pip install "conediff[tensorflow]"') from missing

from conediff_tensorflow import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer"]
