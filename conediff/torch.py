"""conediff for PyTorch: ``from conediff.torch import CvxpyLayer``."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('PyTorch is not installed: pip install "conediff[torch]"') from missing

from conediff_torch import CvxpyLayer, OptLayer, functional

__all__ = ["CvxpyLayer", "OptLayer", "functional"]
