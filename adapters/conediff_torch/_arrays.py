"""The conversion of tensors to NumPy arrays and back, and the dtype and device of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conediff.layer.dtypes import lost_rounding, match_kind, numpy_dtype, output_dtype


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values; without a copy if it is on the CPU and has a dtype that NumPy has."""
    name = dtype_name(tensor.dtype)
    if numpy_dtype(name) != name:
        tensor = tensor.to(getattr(torch, numpy_dtype(name)))
    # With force: from any device, without the gradient; also conjugates, and zeros that take no memory.
    array: NDArray[Any] = tensor.numpy(force=True)
    return array


def to_tensor(array: NDArray[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an array as a tensor; without a copy if it is contiguous, writeable, and has the dtype.

    Parameters
    ----------
    array : array
    dtype : torch.dtype
        If it is real and the array is complex, the tensor has its complex counterpart.
    device : torch.device
    """
    array = np.asarray(array)
    if array.dtype.kind == "c":
        dtype = dtype.to_complex()
    return _shared(array).to(device=device, dtype=dtype)


def to_gradient(
    array: NDArray[Any], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the cotangent of a parameter as a tensor of the parameter's dtype and on its device.

    Parameters
    ----------
    array : array
        Summed over the axes along which a tensor of that shape broadcasts to it.
    shape : tuple of int
    dtype : torch.dtype
    device : torch.device
    """
    tensor = _shared(match_kind(array, dtype_name(dtype)))
    return tensor.sum_to_size(shape).to(device=device, dtype=dtype)


def _shared(array: NDArray[Any]) -> Tensor:
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = array.copy(order="C")
    return torch.from_numpy(array)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name under which the core knows a dtype."""
    return str(dtype).removeprefix("torch.")


def result_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the dtype of the real parts of the outputs.

    As in torch, tensors without dimensions count only if no floating tensor has dimensions.
    """
    inexact = [t for t in tensors if t.dtype.is_floating_point or t.dtype.is_complex]
    deciding = [t for t in inexact if t.dim()] or inexact
    default = dtype_name(torch.get_default_dtype())
    name = output_dtype([dtype_name(t.dtype) for t in deciding], _promoted, default)
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _promoted(first: str, *others: str) -> str:
    dtype: torch.dtype = getattr(torch, first)
    for other in others:
        dtype = torch.promote_types(dtype, getattr(torch, other))
    return dtype_name(dtype)


def result_device(tensors: Sequence[Tensor]) -> torch.device:
    """Return the device on which all tensors are.

    Raises
    ------
    RuntimeError
        If there are several. Tensors without dimensions may be on the CPU in any case, as in torch.
    """
    devices = {tensor.device for tensor in tensors if tensor.dim() or tensor.device.type != "cpu"}
    if len(devices) > 1:
        found = ", ".join(sorted(map(str, devices)))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found several: {found}")
    return devices.pop() if devices else torch.device("cpu")


def roundings(tensors: Sequence[Tensor]) -> list[float]:
    """Return the relative rounding of each tensor's dtype, or 0 if its array shows it."""
    return [lost_rounding(dtype_name(tensor.dtype)) for tensor in tensors]
