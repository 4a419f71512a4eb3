"""conediff for Keras and TensorFlow: ``from conediff.tensorflow import CvxpyLayer``."""

try:
    import keras  # noqa: F401
except ModuleNotFoundError as missing:
    advice = 'pip install keras tensorflow, or ".[tensorflow]" in a checkout of conediff'
    if missing.name == "keras":
        raise ModuleNotFoundError(f"Keras is not installed: {advice}", name="keras") from missing
    # Keras imports its backend; which one, ~/.keras/keras.json and the variable KERAS_BACKEND say.
    raise ModuleNotFoundError(
        f"Keras is installed, but cannot import {missing.name}, which its backend needs: {advice}, or choose "
        "another backend by the environment variable KERAS_BACKEND (tensorflow or torch)",
        name=missing.name,
    ) from missing

from conediff_tensorflow import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer"]
