"""The Keras adapter on TensorFlow. Modules that import from here are skipped without either of them."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras has another backend", allow_module_level=True)

import conediff_tensorflow  # noqa: E402
from conediff_tensorflow import CvxpyLayer, OptLayer, serial  # noqa: E402

__all__ = ["CvxpyLayer", "OptLayer", "conediff_tensorflow", "keras", "serial", "tf"]
